"""A captioner before a run and after it, on samples that are looked at for nothing else."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from limner import checkpoint
from limner.captioners.base import Policy
from limner.data.usable import usable
from limner.errors import UserError
from limner.update import Optimiser

if TYPE_CHECKING:
    from limner.config import Recipe


def measure(recipe: Recipe, policy: Policy, folder: Path, *, name: str) -> None:
    """Caption and measure `evaluate.test`; writes evaluation/NAME.json and the pictures of the gallery.

    Does nothing where the recipe names no test samples.

    Raises:
        UserError: not one test sample can be used, or a published data set is not whole.
    """
    settings = recipe.evaluate
    if settings.test is None:
        return
    from limner.evaluate import Gauge, cropped
    from limner.report import images

    gauge = Gauge(
        settings.metrics, clip=settings.clip, itm=settings.itm, qa=settings.qa, captioner=policy,
        device=str(policy.device), dtype=recipe.run.dtype,
    )  # fmt: skip
    samples = usable(settings.test, allow_missing=settings.allow_missing)
    batch = recipe.update.micro_batch
    groups = iter(lambda: [cropped(sample) for sample in islice(samples, batch)], [])
    counted = -(-len(settings.test) // batch)
    for group in track(
        groups, f"measuring {name} the run", counted, console=Console(stderr=True), transient=True
    ):
        gauge.add(policy.caption(group, settings.test_decoding), group)
        images.save(folder / "evaluation" / "images", group)
    if not gauge.rows:
        raise UserError(f"evaluate.test: {settings.test}: not one sample in it can be used")
    result = replace(
        gauge.result(seed=recipe.run.seed), model=f"{folder.name} {name}", data=str(settings.test),
        decoding=asdict(settings.test_decoding),
    )  # fmt: skip
    result.save(folder / "evaluation" / f"{name}.json")


def best(policy: Policy, optimiser: Optimiser, folder: Path) -> Policy:
    """The policy with the weights of the run's best checkpoint."""
    checkpoint.restore(checkpoint.choose(folder), {"policy": optimiser})
    return policy
