"""The model card of an export: README.md with what the run's folder tells."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from limner import __version__
from limner.model_card import facts, licence, samples, usage
from limner.model_card.text import fenced, plain, public
from limner.model_card.usage import Exported

if TYPE_CHECKING:
    from limner.captioners.base import Policy
    from limner.export import Card

__all__ = ["Exported", "public", "write"]
IMAGES = "images"
"""The folder of pictures beside the card."""


def write(folder: Path, run: Path, which: str, policy: Policy, *, exported: Exported, told: Card) -> None:
    """Write README.md, and the pictures it shows, into an export.

    Args:
        folder: the export.
        run: the run directory.
        which: the checkpoint: "best", "last" or a step number.
        policy: the captioner of that checkpoint.
        exported: what the folder holds, and its name, which becomes the model's.
        told: what the card is told.
    """
    known = facts.gather(run, which, policy)
    shown = samples.choose(run, known, told.samples)
    for place, one in enumerate(shown, 1):
        (folder / IMAGES).mkdir(exist_ok=True)
        shutil.copyfile(one.picture, folder / IMAGES / f"{place}.png")
    granted = licence.of(policy.settings.path, told.license)
    metadata = ModelCardData(
        license=granted.license,
        license_name=granted.name,
        license_link=granted.link,
        library_name="peft" if exported.adapters else "transformers",
        pipeline_tag=usage.task(policy),
        base_model=granted.base,
        base_model_relation=("adapter" if exported.adapters else "finetune") if granted.base else None,
        tags=known.tags(adapters=exported.adapters),
    )
    environment = Environment(
        loader=PackageLoader("limner", "model_card"), autoescape=False, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"plain": plain, "fenced": fenced}
    text = environment.get_template("card.md.jinja").render(
        metadata=metadata.to_yaml(), exported=exported, known=known, samples=shown, images=IMAGES,
        licence=granted, code=usage.code(policy, exported, known.decoding), version=__version__,
        kind=type(policy.model).__name__,
        base=public(policy.settings.path),
    )  # fmt: skip
    (folder / "README.md").write_text(text, encoding="utf8", errors="replace")
