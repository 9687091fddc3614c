"""Checkpoints: written beside and renamed, safetensors and JSON only, the last few and the best kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file

from limner import distributed
from limner.errors import UserError
from limner.paths import is_run
from limner.update import Optimiser


@dataclass
class Progress:
    """How far a run has come: with the recipe and the tensors, all that a resume needs."""

    step: int = 0
    """Updates done."""
    position: int = 0
    """Items of the data consumed."""
    bad_steps: int = 0
    """Refused steps in a row."""
    best: float | None = None
    """Best value so far of the measure that chooses checkpoints."""
    best_step: int | None = None
    """The step it was measured at."""
    stale: int = 0
    """Evaluations in a row without a better best."""
    stopped: str = ""
    """The alarms that ended the run; empty where none did."""

    def over(self, *, steps: int, patience: int | None) -> bool:
        """Whether all steps are done, `patience` evaluations were no better, or an alarm ended the run."""
        return self.step >= steps or bool(self.stopped) or (patience is not None and self.stale >= patience)


def save(folder: Path, progress: Progress, optimisers: Mapping[str, Optimiser], *, keep: int) -> Path:
    """Write checkpoints/step-NNNNNN; a kill at any moment leaves only whole checkpoints.

    Every rank calls this and rank 0 writes; the files are the same for any number of ranks.

    Args:
        folder: the run's `checkpoints`.
        progress: stored as JSON.
        optimisers: "policy" and, where there is one, "value": parameters and moments.
        keep: how many of the last to keep, beside the best.
    """
    final = folder / f"step-{progress.step:06d}"
    states = {name: optimiser.state() for name, optimiser in optimisers.items()}
    if not distributed.first():
        return final
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{final.name}.writing"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    for name, state in states.items():
        tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}
        save_file(tensors, beside / f"{name}.safetensors")
    (beside / "progress.json").write_text(json.dumps(vars(progress)) + "\n", encoding="utf8")
    for file in [*beside.iterdir(), beside]:
        _flush(file)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(beside, final)
    _flush(folder)
    prune(folder, progress, keep=keep)
    return final


def prune(folder: Path, progress: Progress, *, keep: int) -> None:
    """Remove all but the last `keep` and the best, and what a kill left half written or half removed."""
    kept = {path.name for path in steps(folder)[-keep:]}
    if progress.best_step is not None:
        kept.add(f"step-{progress.best_step:06d}")
    for old in [*folder.glob("step-*"), *folder.glob(".step-*.writing")]:
        if old.name not in kept:
            shutil.rmtree(old)


def steps(folder: Path) -> list[Path]:
    """Whole checkpoints in order."""
    return sorted(path for path in folder.glob("step-*") if (path / "progress.json").is_file())


def read_progress(checkpoint: Path) -> Progress:
    """The progress stored in a checkpoint."""
    return Progress(**json.loads((checkpoint / "progress.json").read_text(encoding="utf8")))


def restore(checkpoint: Path, optimisers: Mapping[str, Optimiser]) -> Progress:
    """Load parameters and moments in place. A run that an alarm ended goes on."""
    for name, optimiser in optimisers.items():
        optimiser.load(load_file(checkpoint / f"{name}.safetensors"))
    progress = read_progress(checkpoint)
    progress.stopped = ""
    return progress


def choose(run: Path, which: str = "best") -> Path:
    """The folder of a run's checkpoint.

    Args:
        run: a run directory.
        which: "best" (the last, where nothing chose a best), "last", or a step number.

    Raises:
        UserError: there is no such checkpoint.
    """
    found = steps(run / "checkpoints")
    if not found:
        raise UserError(f"{run}: there is no checkpoint in this run yet")
    if which == "last":
        return found[-1]
    if which == "best":
        best = read_progress(found[-1]).best_step
        named = run / "checkpoints" / f"step-{best:06d}" if best is not None else found[-1]
        return named if named in found else found[-1]
    if which.isdigit() and (run / "checkpoints" / f"step-{int(which):06d}") in found:
        return run / "checkpoints" / f"step-{int(which):06d}"
    have = ", ".join(str(step_of(path)) for path in found)
    raise UserError(f"{run}: there is no checkpoint {which!r}; there are: best, last, {have}")


def named(model: str | Path) -> Path | None:
    """The checkpoint of a run that a name means: its folder, or that of the run, whose best it is then.

    None for what is neither.
    """
    path = Path(model)
    if (path / "progress.json").is_file():
        return path.absolute()
    return choose(path).absolute() if is_run(path) else None


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was written after."""
    return int(checkpoint.name.removeprefix("step-"))


def _flush(path: Path) -> None:
    """Ask the disk to keep what was written."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
