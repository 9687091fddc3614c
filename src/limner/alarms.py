"""Alarms of a run: limits of logged numbers, and when their means went beyond them; no torch.

Captions that learn to please a reward in a way nobody meant show it in numbers that no reward is told about:
they run into the length limit, become the same, repeat themselves, or praise themselves.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Lt


@dataclass(frozen=True)
class Alarm:
    """Limits of one logged number. Any of them raises the alarm; null is no limit."""

    min: float | None = None
    """Less than this."""
    max: float | None = None
    """More than this."""
    times: Annotated[float, Gt(1)] | None = None
    """More than this many times what it was at the start; for numbers above 0."""
    share: Annotated[float, Gt(0), Lt(1)] | None = None
    """Less than this share of what it was at the start; for numbers above 0."""
    rise: Annotated[float, Gt(0)] | None = None
    """More than this above what it was at the start."""
    fall: Annotated[float, Gt(0)] | None = None
    """More than this below what it was at the start."""

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Refuse no limit at all.

        Raises:
            ValueError: the sentence to show.
        """
        if all(limit is None for limit in vars(self).values()):
            raise ValueError("give at least one of min, max, times, share, rise, fall")

    def beyond(self, value: float, start: float) -> str:
        """Which limits a value is beyond, in words; empty where none is."""
        limits = (
            (self.min, self.min, -1, "below {:g}"),
            (self.max, self.max, 1, "above {:g}"),
            (self.times, start * (self.times or 0), 1, "above {:g} times the start"),
            (self.share, start * (self.share or 0), -1, "below {:g} of the start"),
            (self.rise, start + (self.rise or 0), 1, "more than {:g} above the start"),
            (self.fall, start - (self.fall or 0), -1, "more than {:g} below the start"),
        )
        return ", ".join(
            said.format(given)
            for given, limit, side, said in limits
            if given is not None and limit is not None and side * (value - limit) > 0
        )


ALARMS: Mapping[str, Alarm] = {
    "watch/cut": Alarm(max=0.1),
    "watch/distinct": Alarm(share=0.5),
    "watch/repetition": Alarm(max=0.6),
    "watch/words": Alarm(share=0.5),
    "watch/self_praise": Alarm(max=0.05),
    "watch/lm_logprob": Alarm(fall=1.0),
    "watch/zero_spread": Alarm(max=0.5),
    "evaluate/bad_phrases": Alarm(max=0.1),
}
"""The limits that every run has."""

WATCHED = (
    *("words", "tokens", "cut", "distinct", "repetition", "colours", "objects", "self_praise", "zero_spread"),
    *("lm_logprob", "kl"),
)
"""What is logged as `watch/...`."""

MEANING: Mapping[str, str] = {
    "watch/cut": "captions run into the length limit",
    "watch/distinct": "captions are becoming the same",
    "watch/repetition": "captions repeat words",
    "watch/words": "captions are becoming short",
    "watch/self_praise": "captions praise themselves",
    "watch/lm_logprob": "the language model finds captions unlikely, grammar may be suffering",
    "watch/zero_spread": "groups whose captions all earn the same teach nothing",
    "evaluate/bad_phrases": "measured captions hold bad phrases",
}
"""What it means where one of those is passed."""


@dataclass(frozen=True)
class Watch:
    """What raises an alarm."""

    alarms: Mapping[str, Alarm | None] = field(default_factory=dict[str, Alarm | None])
    """Limits by logged key: {watch/words: {times: 3}}. They stand beside those that every run has
    (docs/report.md), in the place of the one with the same key; null takes that away."""
    window: Annotated[int, Ge(1)] = 10
    """Steps over whose mean a number is judged, so that a single noisy step raises nothing; the first so
    many steps are the start."""
    stop_on_alarm: bool = False
    """An alarm ends the run, after a checkpoint."""

    def unknown(self, rewards: Iterable[str]) -> list[str]:
        """Keys with limits that no run with these rewards logs, as far as that can be told beforehand."""
        names = {"watch": set(WATCHED), "reward": {"total", "greedy", *rewards}}
        parts = {key: (*key.split("/"), "") for key in self.alarms}
        return [key for key, part in parts.items() if part[0] in names and part[1] not in names[part[0]]]

    @property
    def limits(self) -> dict[str, Alarm]:
        """All limits by key."""
        return {key: alarm for key, alarm in {**ALARMS, **self.alarms}.items() if alarm is not None}


@dataclass(frozen=True)
class Raised:
    """A number beyond its limits."""

    key: str
    """As logged."""
    value: float
    """Mean over the window."""
    start: float
    """Mean over the first steps."""
    beyond: str
    """The limits in words."""
    given: bool
    """Whether the limits are those that every run has."""

    @property
    def meaning(self) -> str:
        """What it means, where that is known."""
        return MEANING.get(self.key, "") if self.given else ""

    def __str__(self) -> str:
        """For the console."""
        said = f"{self.key} is {self.value:.3g} ({self.start:.3g} at the start), {self.beyond}"
        return f"{said}: {self.meaning}" if self.meaning else said


@dataclass
class _Number:
    """What is kept of one logged number."""

    start: list[float] = field(default_factory=list[float])
    """Its values in the first steps."""
    recent: deque[tuple[float, float]] = field(default_factory=deque[tuple[float, float]])
    """(step, value) within the window."""
    beyond: float = -math.inf
    """The step in which it was beyond its limits last."""


class Alarms:
    """Judges row after row of what is logged; the same rows give the same alarms.

    A number is judged in the steps that log it, from step `window` on. Its alarm stands until it has been
    within its limits for `window` steps, so that one that hovers there does not raise it again and again.
    """

    def __init__(self, watch: Watch, rows: Iterable[Mapping[str, float | None]] = ()):
        """Begin after the rows that are logged already."""
        self.watch, self.limits = watch, watch.limits
        self.raised: dict[str, Raised] = {}
        """The alarms that stand, as they were when their number was beyond its limits last."""
        self._numbers = {key: _Number() for key in self.limits}
        for row in rows:
            self(row)

    def __call__(self, row: Mapping[str, float | None]) -> list[Raised]:
        """Judge a row; returns the alarms that did not stand before."""
        step, before = row["step"] or 0.0, self.raised
        self.raised = dict(before)
        for key, number in self._numbers.items():
            value = row.get(key)
            if value is None or not math.isfinite(value):
                continue
            if raised := self._judged(key, step, value):
                self.raised[key], number.beyond = raised, step
            elif step - number.beyond >= self.watch.window:
                self.raised.pop(key, None)
        return [raised for key, raised in self.raised.items() if key not in before]

    @property
    def never(self) -> list[str]:
        """Keys with limits of the recipe that no row had: misspelt, or not of this run."""
        return [key for key in self.watch.alarms if key in self.limits and not self._numbers[key].start]

    def _judged(self, key: str, step: float, value: float) -> Raised | None:
        window, number = self.watch.window, self._numbers[key]
        if step <= window or not number.start:
            number.start.append(value)
        number.recent.append((step, value))
        while number.recent[0][0] <= step - window:
            number.recent.popleft()
        if step < window:
            return None
        mean = math.fsum(v for _, v in number.recent) / len(number.recent)
        start = math.fsum(number.start) / len(number.start)
        beyond = self.limits[key].beyond(mean, start)
        return Raised(key, mean, start, beyond, key not in self.watch.alarms) if beyond else None


@dataclass(frozen=True)
class Spell:
    """Steps in a row in which an alarm stood."""

    first: int
    last: int
    """The last that was logged with it."""
    over: bool
    """Whether the number came back within its limits and stayed there."""
    raised: Raised
    """As it was when the number was beyond its limits last."""


class Spells:
    """Judges row after row, and keeps all alarms of the run."""

    def __init__(self, watch: Watch):
        """Begin before the first row."""
        self.alarms = Alarms(watch)
        self.found: dict[str, list[Spell]] = {}
        """By key, in order."""

    def __call__(self, row: Mapping[str, float | None]) -> None:
        """Judge a row."""
        before = self.alarms.raised
        self.alarms(row)
        step = int(row["step"] or 0)
        for key, raised in self.alarms.raised.items():
            known = self.found.setdefault(key, [])
            first = known.pop().first if key in before else step
            known.append(Spell(first, step, False, raised))
        for key in before.keys() - self.alarms.raised.keys():
            last = self.found[key].pop()
            self.found[key].append(Spell(last.first, last.last, True, last.raised))


def spells(watch: Watch, rows: Iterable[Mapping[str, float | None]]) -> dict[str, list[Spell]]:
    """All alarms of a run by key, in order; from its rows alone."""
    judge = Spells(watch)
    for row in rows:
        judge(row)
    return judge.found
