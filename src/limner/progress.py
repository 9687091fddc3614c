"""What a person sees while a run trains: a bar with the time left, and the numbers that matter."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from limner import checkpoint

if TYPE_CHECKING:
    from limner.config import Recipe

SHORT = {"reward/total": "reward", "watch/words": "words", "loss/value": "value loss", "unscored": "unscored"}


class Show:
    """A progress bar on standard error; evaluations leave a line above it."""

    def __init__(self, recipe: Recipe, progress: checkpoint.Progress, console: Console):
        """Start where the run is."""
        self.recipe, self.progress, self.best = recipe, progress, recipe.evaluate.best
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[numbers]}"), console=console,
        )  # fmt: skip
        self.task = self.bar.add_task(
            recipe.name, total=recipe.update.steps, completed=progress.step, numbers=""
        )

    def __enter__(self) -> Self:
        """Show the bar."""
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is, and say why the run is over before its last step."""
        self.bar.stop()
        step, steps = self.progress.step, self.recipe.update.steps
        if kind is None and step < steps:
            stale = f"{self.best} rose in none of the last {self.progress.stale} evaluations"
            why = self.progress.stopped or stale
            self.bar.console.print(f"stopped at step {step} of {steps}: {why}", markup=False)

    def step(self, row: Mapping[str, float | None]) -> None:
        """Move on by one step."""
        numbers = [f"{short} {row[key]:.2f}" for key, short in SHORT.items() if row.get(key) is not None]
        self.bar.update(self.task, completed=int(row["step"] or 0), numbers="  ".join(numbers))
        measured = {
            k.removeprefix("evaluate/"): v
            for k, v in row.items()
            if k.startswith("evaluate/") and v is not None
        }
        if measured:
            kept = sorted(measured, key=lambda name: name != self.best)
            self.bar.console.print(
                f"step {row['step']}: " + "  ".join(f"{name} {measured[name]:.3f}" for name in kept)
            )
