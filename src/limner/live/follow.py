"""Follows the runs of a folder: looks at what changed since the last look, and says how each run is."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.alarms import Watch
from limner.component import did_you_mean
from limner.errors import UserError
from limner.live.history import History
from limner.live.tail import Tail
from limner.report.files import Absent, RunFiles
from limner.report.labels import seconds

MARKS = ("resolved.json", "metrics.jsonl")
"""A folder with one of these is a run."""
DEEPEST = 3
"""Folders inside folders in which runs are looked for."""
WRITTEN = (
    *("metrics.jsonl", "environment.json", "samples", "samples/images"),
    *("checkpoints", "evaluation", "evaluation/images"),
)
"""What a run that goes on writes to."""
QUIET_SECONDS = 120.0
"""A run is never called stalled sooner."""
QUIET_STEPS = 3
"""A run is called stalled after this many times its longest step without any file that changed."""
STARTING_SECONDS = 900.0
"""A run without a step is called stalled after this long: models are loaded, captions before it measured."""
METHODS = {"constant": "objective.kind"}
"""Advantages that say nothing of the method, with the setting that does."""


@dataclass(frozen=True)
class State:
    """How a run is."""

    name: str
    """`starting`, `running`, `finished`, `stopped` or `stalled`."""
    why: str = ""
    """More about it, in a few words."""

    @property
    def going(self) -> bool:
        """Whether more is to come, as far as can be told."""
        return self.name in ("starting", "running")

    def __str__(self) -> str:
        """Both."""
        return f"{self.name}: {self.why}" if self.why else self.name


class Followed:
    """One run. `look` reads what was added; everything else is what is known since."""

    def __init__(self, folder: Path, name: str):
        """Nothing is read yet."""
        self.folder, self.name = folder, name
        self.started = _changed(folder / "resolved.json") or _changed(folder)
        """When its recipe was written, in seconds since 1970."""
        self.state = State("starting")
        self.tail = Tail(folder / "metrics.jsonl")
        self._seen: dict[str, float] = {}
        self._begin()

    def _begin(self) -> None:
        """Know nothing."""
        self.files = RunFiles(self.folder)
        """Its other files; renewed when one of them changed."""
        self.tail.forget()
        self.history, self.broken = History(self._limits()), 0
        """What it logged, and how many lines of metrics.jsonl hold no row."""

    def look(self, now: float) -> bool:
        """Read what was added.

        Args:
            now: seconds since 1970.

        Returns:
            Whether anything changed that is shown.
        """
        seen = {name: _changed(self.folder / name) for name in (*WRITTEN, "resolved.json")}
        before, self._seen = self._seen, seen
        if before.get("resolved.json") != seen["resolved.json"]:
            self._begin()
        elif any(seen[name] != before[name] for name in WRITTEN if name != "metrics.jsonl"):
            self.files = RunFiles(self.folder)
        read, state = self._read(), self.state.name
        self.state = self._judged(now)
        return read or seen != before or self.state.name != state

    def _read(self) -> bool:
        """Take in new rows."""
        renewed, lines = self.tail.look()
        if renewed:
            self.history, self.broken = History(self._limits()), 0
        for line in lines:
            try:
                self.history.add(dict(json.loads(line).items()))
            except (ValueError, TypeError, AttributeError, RecursionError):
                self.broken += 1
        return renewed or bool(lines)

    def _judged(self, now: float) -> State:
        """Running, or why it is not."""
        step, files = self.history.step, self.files
        if self.steps is not None and step >= self.steps:
            return State("finished")
        with contextlib.suppress(Absent, OSError):
            if step and files.checkpoint_step == step and files.stopped_by_alarm:
                return State("stopped", files.stopped_by_alarm)
            if step and files.checkpoint_step == step and files.stopped_early:
                return State("stopped", "evaluations got no better")
        quiet = now - max(self._seen.values())
        patience = max(QUIET_SECONDS, QUIET_STEPS * self.history.longest) if step else STARTING_SECONDS
        if quiet > patience:
            return State("stalled", f"nothing written for {seconds(quiet)}")
        return State("running" if step else "starting")

    @property
    def steps(self) -> int | None:
        """How many the recipe wants; None where that is not known."""
        steps = self._setting("update.steps")
        return steps if isinstance(steps, int) else None

    @property
    def method(self) -> str:
        """What its advantage, or its loss, is called in recipes."""
        kind = self._setting("advantage.kind")
        return str(self._setting(METHODS.get(str(kind), "advantage.kind")) or "").replace("_", " ")

    @property
    def seconds_left(self) -> float | None:
        """Until its last step at the pace of its last ones; None where it does not go on or none is known."""
        pace = self.history.step_seconds
        if self.steps is None or pace is None or not self.state.going:
            return None
        return pace * (self.steps - self.history.step)

    def _setting(self, path: str) -> Any:
        with contextlib.suppress(Absent, OSError):
            return self.files.setting(path)
        return None

    def _limits(self) -> Watch:
        with contextlib.suppress(Absent, OSError):
            return self.files.watch
        return Watch()


class Runs:
    """All runs of a folder, those that began last first; they may appear and vanish."""

    def __init__(self, folder: Path):
        """Nothing is read yet.

        Raises:
            UserError: there is no such folder.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the folder of a run, or one that holds runs")
        self.folder = folder
        self._known: dict[Path, Followed] = {}

    def look(self, now: float) -> bool:
        """Read what was added, as `Followed.look`; returns whether anything changed that is shown."""
        found = {
            path: self._known.get(path) or Followed(path, self._name(path)) for path in _runs(self.folder)
        }
        changed, self._known = found.keys() != self._known.keys(), found
        for run in found.values():
            changed |= run.look(now)
        return changed

    @property
    def behind(self) -> bool:
        """Whether there is more to read now: a long run is read in pieces, between looks at the others."""
        return any(run.tail.more for run in self._known.values())

    def __iter__(self) -> Iterator[Followed]:
        """The runs in order."""
        return iter(sorted(self._known.values(), key=lambda run: (-run.started, run.name)))

    def named(self, name: str) -> Followed:
        """The run of a name.

        Raises:
            UserError: there is none.
        """
        names = [run.name for run in self]
        if name not in names:
            raise UserError(f"{self.folder}: {did_you_mean(name, names)}; runs: {', '.join(names) or 'none'}")
        return next(run for run in self if run.name == name)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix() if path != self.folder else path.resolve().name


def _runs(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Folders of runs; there are none inside a run."""
    if any((folder / name).is_file() for name in MARKS):
        yield folder
    elif depth < DEEPEST:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            inside = sorted(Path(entry.path) for entry in entries if entry.is_dir() and entry.name[0] != ".")
            for path in inside:
                yield from _runs(path, depth + 1)


def _changed(path: Path) -> float:
    """When a file, or what a folder lists, changed last; 0 where there is none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
