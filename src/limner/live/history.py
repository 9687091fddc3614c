"""What a run has logged so far: a column a key, and the alarms, kept up row by row."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from limner.alarms import Raised, Spell, Spells, Watch
from limner.report.files import number

Floats = npt.NDArray[np.float64]
RECENT = 50
"""Steps whose mean says how long a step takes."""


class History:
    """The numbers of metrics.jsonl: 8 bytes each, however long the run."""

    def __init__(self, watch: Watch):
        """Begin before the first row; `watch` holds the limits of its alarms."""
        self._judge = Spells(watch)
        self._steps = array("d")
        self._columns: dict[str, array[float]] = {}
        self.longest = 0.0
        """Most seconds that a step took."""

    def __len__(self) -> int:
        """Rows."""
        return len(self._steps)

    def add(self, row: Mapping[str, object]) -> None:
        """Take in a row.

        Raises:
            ValueError: its step is missing, or not behind the last one.
        """
        numbers = {sys.intern(str(key)): number(value) for key, value in row.items()}
        step = numbers.pop("step", None)
        if step is None or (self._steps and step <= self._steps[-1]):
            raise ValueError("no step, or one that was there")
        for key in numbers:
            if key not in self._columns:
                self._columns[key] = array("d", [math.nan]) * len(self._steps)
        self._steps.append(step)
        for key, column in self._columns.items():
            value = numbers.get(key)
            column.append(math.nan if value is None else value)
        self.longest = max(self.longest, numbers.get("seconds") or 0.0)
        self._judge({**numbers, "step": step})

    @property
    def step(self) -> int:
        """The last step; 0 before the first."""
        return int(self._steps[-1]) if self._steps else 0

    @property
    def steps(self) -> Floats:
        """(S,) steps of the rows."""
        return np.array(self._steps)

    @property
    def keys(self) -> Sequence[str]:
        """Logged keys but `step`, as they came."""
        return tuple(self._columns)

    def column(self, key: str) -> Floats:
        """(S,) values of a key; NaN where it was not logged."""
        return np.array(self._columns.get(key, array("d", [math.nan]) * len(self)))

    def columns(self) -> dict[str, Floats]:
        """All of them."""
        return {key: np.array(column) for key, column in self._columns.items()}

    def last(self, key: str) -> float | None:
        """The last value of a key that is a number; None where there is none."""
        return next((value for value in reversed(self._columns.get(key, ())) if value == value), None)

    @property
    def step_seconds(self) -> float | None:
        """Mean seconds of the last steps, evaluations included; None before the first."""
        recent = [value for value in self._columns.get("seconds", array("d"))[-RECENT:] if value == value]
        return math.fsum(recent) / len(recent) if recent else None

    @property
    def spells(self) -> Mapping[str, Sequence[Spell]]:
        """All alarms so far, by key."""
        return self._judge.found

    @property
    def standing(self) -> Mapping[str, Raised]:
        """The alarms that stand now."""
        return self._judge.alarms.raised
