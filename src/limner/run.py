"""The run directory: everything about a run, nothing outside it.

runs/NAME/  recipe.yaml  resolved.json  environment.json  metrics.jsonl  rejects.jsonl
            samples/  checkpoints/  evaluation/  tensorboard/  report.html
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.tensorboard import SummaryWriter

from limner import strips
from limner.errors import UserError
from limner.types import Mean, Rollouts, Scores, Targets

if TYPE_CHECKING:
    from limner.config import Recipe

LIBRARIES = ("limner", "torch", "transformers", "peft", "safetensors", "tokenizers", "numpy", "pillow")
SHOWN = 8
"""Samples written each time."""


class Run:
    """Writes a run's files. In an existing directory it goes on after `step` and drops later rows."""

    def __init__(self, folder: Path, recipe: Recipe, *, step: int = 0):
        """Open or make the directory."""
        self.folder, self.recipe = folder, recipe
        for name in ("samples/images", "checkpoints", "evaluation"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        if not (folder / "resolved.json").exists():
            _write(folder / "recipe.yaml", recipe.source)
            _write(folder / "resolved.json", json.dumps(recipe.resolved(), indent=1) + "\n")
        _write(folder / "environment.json", json.dumps(environment(), indent=1) + "\n")
        _drop_after(folder / "metrics.jsonl", step)
        self._metrics = (folder / "metrics.jsonl").open("a", encoding="utf8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self._last = time.perf_counter()

    def close(self) -> None:
        """Close files."""
        self._metrics.close()
        self._board.close()

    def log(self, step: int, metrics: Mapping[str, Mean]) -> dict[str, float | None]:
        """Write one line of metrics.jsonl and the same to TensorBoard; NaN is written as null."""
        now = time.perf_counter()
        row: dict[str, float | None] = {"step": step, "seconds": round(now - self._last, 4)}
        self._last = now
        for name, mean in metrics.items():
            row[name] = mean.value if math.isfinite(mean.value) else None
            if row[name] is not None:
                self._board.add_scalar(name, row[name], step)
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()
        return row

    def write_samples(
        self, step: int, rollouts: Rollouts, scores: Scores, targets: Targets, tokenizer
    ) -> None:
        """Write a step's first captions with image, reward parts, and return and value of every token."""
        rows = []
        for n in range(0, min(len(rollouts.tokens), SHOWN * rollouts.captions), rollouts.captions):
            sample, length = rollouts.sample(n), int(rollouts.lengths[n])
            image = f"images/{n:02d}-{step:06d}.png"
            strips.picture(sample.media).save(self.folder / "samples" / image)
            ids = rollouts.tokens[n, :length].tolist()
            kept = {name: part.values[n].sum().item() for name, part in scores.parts.items()}
            returns = targets.returns if targets.returns is not None else targets.advantages
            rows.append(
                {
                    "id": sample.id, "image": image, "caption": rollouts.texts[n], "parts": kept,
                    "tokens": [tokenizer.decode([i]) for i in ids],
                    "returns": [round(x, 4) for x in returns[n, :length].tolist()],
                    "values": None if rollouts.values is None
                    else [round(x, 4) for x in rollouts.values[n, :length].tolist()],
                }
            )  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows)
        _write(self.folder / "samples" / f"step-{step:06d}.jsonl", text)


class SilentRun(Run):
    """The run of a rank that writes nothing."""

    def __init__(self, folder: Path, recipe: Recipe, *, step: int = 0):
        """Leave the directory to the rank that writes."""

    def close(self) -> None:
        """Nothing to close."""

    def log(self, step: int, metrics: Mapping[str, Mean]) -> dict[str, float | None]:
        """The row alone."""
        return {"step": step, **{name: mean.value for name, mean in metrics.items()}}

    def write_samples(
        self, step: int, rollouts: Rollouts, scores: Scores, targets: Targets, tokenizer
    ) -> None:
        """Write nothing."""


class Clock:
    """Wall time of the named parts of one step."""

    def __init__(self):
        """Start with nothing."""
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time spent inside to `time/name`."""
        start = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[f"time/{name}"] = self.seconds.get(f"time/{name}", 0.0) + time.perf_counter() - start

    def means(self) -> dict[str, Mean]:
        """As metrics."""
        return {name: Mean(value, 1.0) for name, value in self.seconds.items()}


def new_folder(recipe: Recipe) -> Path:
    """A directory for a new run: run.output/run.name, which must not hold a run yet.

    Raises:
        UserError: it holds a run.
    """
    name = recipe.run.name or f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(recipe.run.output) / name
    if (folder / "resolved.json").exists():
        raise UserError(
            f"{folder}: holds a run already; go on with it by --resume {folder}, or give another run.name"
        )
    return folder


def environment() -> dict[str, object]:
    """What the run ran on."""
    versions = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu, "libraries": versions,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }  # fmt: skip


def read_metrics(folder: Path) -> list[dict[str, float | None]]:
    """All whole lines of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _drop_after(path: Path, step: int) -> None:
    """Keep whole lines up to a step: later ones will be made again."""
    if path.exists():
        kept = [row for row in read_metrics(path.parent) if (row["step"] or 0) <= step]
        _write(path, "".join(json.dumps(row) + "\n" for row in kept))


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(path.name + ".writing")
    beside.write_text(text, encoding="utf8")
    os.replace(beside, path)
