"""Reads a run directory for the page; what is missing or unreadable is `Absent`, which says why."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from limner.alarms import Alarm, Spell, Watch, spells
from limner.compare import Comparison, compare
from limner.errors import UserError
from limner.evaluation import Evaluation

Parsed = TypeVar("Parsed")
Row = Mapping[str, Any]


class Absent(Exception):
    """Something the page goes without; the message is shown in its place."""


@dataclass(frozen=True)
class SampleFile:
    """samples/step-NNNNNN.jsonl."""

    step: int
    """The step it was written at."""
    rows: tuple[Row, ...]
    """As written."""


class RunFiles:
    """A run directory, read as it is asked for."""

    def __init__(self, folder: Path):
        """Nothing is read yet."""
        self.folder = folder

    @cached_property
    def metrics(self) -> list[dict[str, float | None]]:
        """Rows of metrics.jsonl; what is not finite is None. Raises Absent."""
        rows = _lines(self.folder / "metrics.jsonl", _numbers)
        rows = [row for row in rows if row.get("step") is not None]
        if not rows:
            raise Absent("metrics.jsonl holds no step yet.")
        return rows

    @cached_property
    def watch(self) -> Watch:
        """The limits of logged numbers. Raises Absent."""
        given = self.setting("watch.alarms", {})
        try:
            limits = {key: limit and Alarm(**limit) for key, limit in given.items()}
            return Watch(limits, int(self.setting("watch.window", Watch.window)))
        except (AttributeError, TypeError, ValueError) as error:
            raise Absent(f"resolved.json: watch is not as limner writes it: {error}.") from error

    @cached_property
    def alarms(self) -> dict[str, list[Spell]]:
        """When numbers were beyond their limits, by key, judged anew. Raises Absent."""
        return spells(self.watch, self.metrics)

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """resolved.json: dotted path -> {"value", "origin"}. Raises Absent."""
        return _parsed(self.folder / "resolved.json", _settings)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """environment.json. Raises Absent."""
        return _parsed(self.folder / "environment.json", lambda tree: dict(tree.items()))

    @cached_property
    def evaluations(self) -> tuple[Evaluation | Absent, Evaluation | Absent]:
        """The captions before and after training, or why they are missing."""
        return self._evaluation("before.json"), self._evaluation("after.json")

    @property
    def before(self) -> Evaluation | None:
        """The captions before training."""
        return None if isinstance(self.evaluations[0], Absent) else self.evaluations[0]

    @property
    def after(self) -> Evaluation | None:
        """The captions after training."""
        return None if isinstance(self.evaluations[1], Absent) else self.evaluations[1]

    @property
    def missing_evaluations(self) -> str:
        """Why there is no before or no after; empty where there are both."""
        return " ".join(str(found) for found in self.evaluations if isinstance(found, Absent))

    @cached_property
    def comparison(self) -> Comparison:
        """Before against after, over the captions that both have. Raises Absent."""
        if self.before is None or self.after is None:
            raise Absent(self.missing_evaluations)
        folder = self.folder / "evaluation"
        try:
            return compare(folder / "before.json", folder / "after.json", allow_missing=True)
        except UserError as error:
            raise Absent(f"{error}.".replace(f"{folder}/", "evaluation/")) from error

    @cached_property
    def samples(self) -> list[SampleFile]:
        """Captions drawn during training, by step. Raises Absent."""
        files = list(self._sample_files())
        if not files:
            raise Absent("There are no samples/step-*.jsonl in this run.")
        return files[::-1]

    @cached_property
    def last_samples(self) -> SampleFile:
        """The captions that were drawn last. Raises Absent."""
        last = next(self._sample_files(), None)
        if last is None:
            raise Absent("There are no samples/step-*.jsonl in this run yet.")
        return last

    def _sample_files(self) -> Iterator[SampleFile]:
        """Those with captions, the last first."""
        for path in sorted((self.folder / "samples").glob("step-*.jsonl"), reverse=True):
            if rows := tuple(_lines(path, dict)):
                yield SampleFile(_number_in(path), rows)

    @cached_property
    def rejects(self) -> list[Row]:
        """Rows of rejects.jsonl, {"id", "reason"}; none where the file was never made. Raises Absent."""
        path = self.folder / "rejects.jsonl"
        if not path.exists():
            return []
        return _lines(path, lambda row: {"id": str(row["id"]), "reason": str(row["reason"])})

    @cached_property
    def chosen_step(self) -> int | None:
        """The step of the checkpoint that was best on the validation samples; None where none was chosen."""
        best = self._progress("best_step")
        return best if isinstance(best, int) else None

    @cached_property
    def checkpoint_step(self) -> int | None:
        """The step of the last checkpoint; None where there is none."""
        step = self._progress("step")
        return step if isinstance(step, int) else None

    @cached_property
    def stopped_early(self) -> bool:
        """Whether the run ended because `evaluate.patience` evaluations in a row were no better."""
        stale, patience = self._progress("stale"), self.setting("evaluate.patience")
        return isinstance(stale, int) and isinstance(patience, int) and stale >= patience

    @cached_property
    def stopped_by_alarm(self) -> str:
        """The alarms that ended the run; empty where none did."""
        return str(self._progress("stopped") or "")

    def _progress(self, key: str) -> object:
        """A value of the last checkpoint; None where there is none."""
        found = sorted((self.folder / "checkpoints").glob("step-*/progress.json"))
        return _parsed(found[-1], lambda tree: tree.get(key)) if found else None

    def setting(self, path: str, default: Any = None) -> Any:
        """One value of the recipe; the default where the recipe cannot be read."""
        if not (self.folder / "resolved.json").exists():
            return default
        return self.settings.get(path, {}).get("value", default)

    def _evaluation(self, name: str) -> Evaluation | Absent:
        path = self.folder / "evaluation" / name
        if not path.is_file():
            return Absent(f"There is no {_shown(path)} in this run.")
        try:
            evaluation = Evaluation.load(path)
        except UserError as error:
            return Absent(f"{error}.".replace(str(path), _shown(path)))
        if any({"start", "end", "true"} - fact.keys() for row in evaluation.rows for fact in row.facts):
            return Absent(f"{_shown(path)}: a fact has no start, end or true.")
        return evaluation


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None


def _numbers(row: Row) -> dict[str, float | None]:
    return {str(key): number(value) for key, value in row.items()}


def _settings(tree: Row) -> dict[str, dict[str, Any]]:
    return {path: {"value": row["value"], "origin": str(row["origin"])} for path, row in tree.items()}


def _number_in(path: Path) -> int:
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isdigit() else 0


def _parsed(path: Path, parse: Callable[[Any], Parsed]) -> Parsed:
    """A JSON file through `parse`; Absent where it is missing or holds something else."""
    if not path.is_file():
        raise Absent(f"There is no {_shown(path)} in this run.")
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Absent(f"{_shown(path)} is not as limner writes it: {error!r}.") from error


def _lines(path: Path, parse: Callable[[Any], Parsed]) -> list[Parsed]:
    """A JSONL file through `parse`, without a last line that is still being written."""
    if not path.is_file():
        raise Absent(f"There is no {_shown(path)} in this run.")
    parsed: list[Parsed] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for count, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                break
            try:
                parsed.append(parse(json.loads(line)))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise Absent(
                    f"{_shown(path)}: line {count} is not as limner writes it: {error!r}."
                ) from error
    return parsed


def _shown(path: Path) -> str:
    """A file's name as the page says it: with its folder inside the run, never the whole path."""
    parents = {"evaluation", "samples", "checkpoints"}
    return f"{path.parent.name}/{path.name}" if path.parent.name in parents else path.name
