"""Small multiples of everything that was logged: from numbers to SVG geometry; markup is the template's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from limner.alarms import Spell
from limner.metrics.measures import MEASURES
from limner.report import labels
from limner.report.files import RunFiles

Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT = 340.0, 168.0
"""Of one chart, in SVG units."""
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 10.0, 22.0
"""Margins for ticks."""
MOST = 320
"""Places along the steps at which a curve is drawn; longer runs are thinned to the extremes between them."""
LEAST_MARK = 3.0
"""Least width of a mark."""
LEAST_SHARE = 0.1
"""Least height of the axis of a share."""
SPARSE = 24
"""A curve of fewer values is drawn as dots joined by a line, without smoothing."""

GROUPS = {
    "evaluate": "Measured on held-out samples",
    "reward": "Rewards",
    "watch": "Watched, rewarded by nothing",
    "": "Learning",
}
"""Groups of charts by the start of the key; the last takes the rest."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    """Where, in SVG units."""
    text: str
    """What it says."""


@dataclass(frozen=True)
class Span:
    """Steps of a chart that are marked."""

    left: float
    """Where they begin, in SVG units."""
    width: float
    """How far they reach, in SVG units."""
    text: str
    """What it says."""


@dataclass(frozen=True)
class Chart:
    """One curve, ready to be drawn."""

    key: str
    """As logged."""
    label: labels.Label
    """What it is called."""
    line: str
    """Path of the values as logged."""
    smooth: str
    """Path of the running mean; empty where the values are few."""
    dots: tuple[tuple[float, float], ...]
    """Places of the values where they are few."""
    x_ticks: tuple[Tick, ...]
    """Steps."""
    y_ticks: tuple[Tick, ...]
    """Values."""
    chosen: Tick | None
    """The step of the chosen checkpoint, with the value there."""
    alarms: tuple[Span, ...]
    """Where the number was beyond its limits."""
    last: str
    """The last value: the running mean there, where there is one."""
    hover: str
    """JSON of [step, x, y, text] for each place, for reading values under the pointer."""
    said: str
    """The curve in one sentence, for those who can't see it."""


@dataclass(frozen=True)
class Group:
    """Charts that belong together."""

    title: str
    """Heading."""
    charts: tuple[Chart, ...]
    """In order."""


@dataclass(frozen=True)
class Curves:
    """The section."""

    groups: tuple[Group, ...]
    """Without empty ones."""
    flat: tuple[str, ...]
    """Keys that never changed, with their value: "Refused steps 0"."""
    empty: tuple[str, ...]
    """Keys without any number."""
    window: int
    """Values in the running mean."""
    chosen: int | None
    """Step of the chosen checkpoint."""


def build(run: RunFiles) -> Curves:
    """Charts of all keys in metrics.jsonl. Raises Absent where there are none."""
    rows = run.metrics
    steps = np.array([row["step"] for row in rows], dtype=float)
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = {key: np.array([_nan(row.get(key)) for row in rows]) for key in keys}
    return drawn(steps, columns, chosen=run.chosen_step, alarms=run.alarms)


def drawn(
    steps: Floats,
    columns: Mapping[str, Floats],
    *,
    chosen: int | None = None,
    alarms: Mapping[str, Sequence[Spell]],
) -> Curves:
    """Charts of logged numbers.

    Args:
        steps: (S,) of the rows.
        columns: (S,) values by key; NaN where nothing was logged.
        chosen: step of the chosen checkpoint, which is marked.
        alarms: by key, marked too.
    """
    window = max(5, len(steps) // 20) | 1
    flat, empty = [], []
    charts: dict[str, list[Chart]] = {group: [] for group in GROUPS}
    for key in ordered(columns):
        values = columns[key]
        seen = values[np.isfinite(values)]
        if not seen.size:
            empty.append(labels.label(key).title)
        elif seen.size > 1 and np.ptp(seen) == 0 and key not in alarms:
            flat.append(f"{labels.label(key).title} {labels.label(key).text(seen[0])}")
        else:
            group = key.partition("/")[0]
            charts[group if group in GROUPS else ""].append(
                _chart(key, steps, values, window, chosen, alarms.get(key, ()))
            )
    groups = tuple(Group(title, tuple(charts[name])) for name, title in GROUPS.items() if charts[name])
    return Curves(groups, tuple(flat), tuple(empty), window, chosen)


_ELSEWHERE = ("step", "seconds", "alarms")


def ordered(keys: Iterable[str]) -> list[str]:
    """Keys without times and alarms, shown elsewhere; evaluation measures in the order of tables."""
    kept = [key for key in keys if key not in _ELSEWHERE and not key.startswith(("time/", "alarm/"))]
    places = {f"evaluate/{name}": place for place, name in enumerate(MEASURES)}
    return sorted(kept, key=lambda key: (key != "reward/total", places.get(key, len(places))))


@dataclass(frozen=True)
class _Scale:
    """From steps and values to SVG units."""

    steps: tuple[float, float]
    values: tuple[float, float]

    def x(self, step: float) -> float:
        first, last = self.steps
        return round(LEFT + (WIDTH - LEFT - RIGHT) * _part(step, first, last), 1)

    def y(self, value: float) -> float:
        low, high = self.values
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * _part(value, low, high), 1)

    def path(self, steps: Floats, values: Floats) -> str:
        points = (f"{self.x(s)} {self.y(v)}" for s, v in zip(steps, values, strict=True) if np.isfinite(v))
        return "M" + "L".join(points)


def _chart(
    key: str, steps: Floats, values: Floats, window: int, chosen: int | None, spells: Sequence[Spell]
) -> Chart:
    label, seen = labels.label(key), np.isfinite(values)
    few = int(seen.sum()) < SPARSE
    smooth = values if few else running_mean(values, window)
    places = np.flatnonzero(seen) if few else _places(len(steps))
    y_ticks = nice(*_span(float(values[seen].min()), float(values[seen].max()), label.form == "share"), 3)
    first, last = float(steps.min()), float(steps.max())
    scale = _Scale((first, last), (y_ticks[0], y_ticks[-1]))
    shown = [i for i in places if seen[i]]
    hover = [[int(steps[i]), scale.x(steps[i]), scale.y(smooth[i]), label.text(values[i])] for i in shown]
    start, end = (label.text(smooth[np.isfinite(smooth)][place]) for place in (0, -1))
    within = chosen is not None and first <= chosen <= last
    thin = _extremes(values)
    return Chart(
        key=key,
        label=label,
        line=scale.path(steps[thin], values[thin]),
        smooth="" if few else scale.path(steps[places], smooth[places]),
        dots=tuple((scale.x(steps[i]), scale.y(values[i])) for i in shown) if few else (),
        x_ticks=tuple(Tick(scale.x(s), f"{s:,.0f}") for s in nice(first, last, 4) if first <= s <= last),
        y_ticks=tuple(Tick(scale.y(v), label.tick(v)) for v in y_ticks),
        chosen=Tick(scale.x(chosen), f"step {chosen:,}") if chosen is not None and within else None,
        alarms=tuple(_span_of(spell, scale) for spell in spells),
        last=end,
        hover=json.dumps(hover),
        said=f"{label.title}: from {start} to {end} over steps {first:,.0f} to {last:,.0f}"
        + "".join(f"; alarm in steps {spell.first:,} to {spell.last:,}" for spell in spells),
    )


def _span_of(spell: Spell, scale: _Scale) -> Span:
    """At least as wide as can be seen."""
    left, right = scale.x(spell.first), scale.x(spell.last)
    text = f"alarm, steps {spell.first:,} to {spell.last:,}: {spell.raised.beyond}"
    return Span(min(left, WIDTH - RIGHT - LEAST_MARK), round(max(right - left, LEAST_MARK), 1), text)


def _span(low: float, high: float, share: bool) -> tuple[float, float]:
    """What an axis covers: of a share at least LEAST_SHARE within 0..1, so that a wobble looks like one."""
    if not share or high - low >= LEAST_SHARE or low < 0 or high > 1:
        return low, high
    bottom = min(max(0.0, (low + high - LEAST_SHARE) / 2), 1 - LEAST_SHARE)
    return min(low, bottom), max(high, bottom + LEAST_SHARE)


def running_mean(values: Floats, window: int) -> Floats:
    """Mean over a centred window of what is finite in it; narrower at both ends, so that it does not lag.

    Args:
        values: (S,) floats; NaN where nothing was logged.
        window: an odd count of places.

    Returns:
        (S,) floats; NaN where the window holds nothing.
    """
    half = window // 2
    seen = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(seen, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(seen)])
    places = np.arange(len(values))
    reach = np.minimum(half, np.minimum(places, len(values) - 1 - places))
    start, stop = places - reach, places + reach + 1
    held = counts[stop] - counts[start]
    return np.where(held > 0, (sums[stop] - sums[start]) / np.maximum(held, 1), np.nan)


def nice(low: float, high: float, count: int) -> list[float]:
    """About `count` + 1 round numbers that cover low..high."""
    if high <= low:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    gap = power * min((1, 2, 2.5, 5, 10), key=lambda step: abs(step * power - rough))
    first, last = math.floor(low / gap + 1e-9), math.ceil(high / gap - 1e-9)
    return [float(f"{place * gap:.12g}") for place in range(first, last + 1)]


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _part(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _places(length: int) -> npt.NDArray[np.int64]:
    """At most MOST indices, evenly spaced, with both ends."""
    return np.unique(np.linspace(0, length - 1, min(length, MOST)).round().astype(np.int64))


def _extremes(values: Floats) -> npt.NDArray[np.int64]:
    """Indices of the lowest and the highest value of each of MOST stretches, so that no spike is lost."""
    seen = np.flatnonzero(np.isfinite(values))
    if len(seen) <= 2 * MOST:
        return seen
    stretches = np.array_split(seen, MOST)
    kept = [part[[values[part].argmin(), values[part].argmax()]] for part in stretches]
    return np.unique(np.concatenate(kept))
