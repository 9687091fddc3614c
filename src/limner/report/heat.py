"""What every token earned: captions drawn during training, tokens coloured by their return and value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import median
from typing import Any

from limner.report import images, labels
from limner.report.files import Absent, Row, RunFiles, SampleFile, number

STEPS = 3
"""Steps shown: the first, the last and what lies between them."""
CAPTIONS = 3
"""Captions shown a step."""


@dataclass(frozen=True)
class Heat:
    """One number of a token."""

    text: str
    """As written."""
    side: str
    """"more" or "less" than the middle of what is shown; empty where there is no number."""
    strength: float
    """0..1, how far from the middle."""


@dataclass(frozen=True)
class Token:
    """One token of a caption."""

    text: str
    """As the tokenizer decodes it; white space made visible."""
    earned: Heat
    """Its return."""
    value: Heat | None
    """What the value function expected there, where there is one."""


@dataclass(frozen=True)
class Drawn:
    """One caption drawn during training."""

    id: str
    """Of the sample."""
    picture: str | None
    """data: address; None where it is missing."""
    hard_edges: bool
    """Whether the picture is so small that it is enlarged."""
    parts: tuple[tuple[str, str], ...]
    """(name, value) of every reward part."""
    tokens: tuple[Token, ...]
    """In order."""


@dataclass(frozen=True)
class Step:
    """Captions of one step, on one scale."""

    step: int
    """Which."""
    captions: tuple[Drawn, ...]
    """Some of the step's captions."""
    low: str
    """The lowest number of the scale."""
    middle: str
    """The number without colour: the median return."""
    high: str
    """The highest."""


@dataclass(frozen=True)
class HeatMap:
    """The section."""

    steps: tuple[Step, ...]
    """Captions by step."""
    has_values: bool
    """Whether there is a value function."""


def build(run: RunFiles) -> HeatMap:
    """Captions of some steps. Raises Absent where no samples with returns were written."""
    steps = [_step(run, file) for file in chosen(run.samples)]
    shown = tuple(step for step in steps if step is not None)
    if not shown:
        raise Absent("The samples in samples/ carry no returns.")
    tokens = (token for step in shown for caption in step.captions for token in caption.tokens)
    return HeatMap(shown, any(token.value is not None for token in tokens))


def _step(run: RunFiles, file: SampleFile) -> Step | None:
    rows = file.rows[:CAPTIONS]
    returns = [x for row in rows for x in _numbers(row, "returns") if x is not None]
    if not returns:
        return None
    numbers = returns + [x for row in rows for x in _numbers(row, "values") if x is not None]
    middle = median(returns)
    reach = max(abs(x - middle) for x in numbers) or 1.0

    def heat(value: float | None) -> Heat:
        if value is None:
            return Heat("\N{EN DASH}", "", 0.0)
        return Heat(
            _text(value), "more" if value >= middle else "less", round(abs(value - middle) / reach, 3)
        )

    captions = []
    for row in rows:
        values = _numbers(row, "values")
        cells = zip_longest(_tokens(row), _numbers(row, "returns"), values)
        tokens = tuple(Token(_visible(t), heat(r), heat(v) if values else None) for t, r, v in cells)
        captions.append(drawn(run, row, tokens))
    return Step(file.step, tuple(captions), _text(min(numbers)), _text(middle), _text(max(numbers)))


def _text(value: float) -> str:
    return labels.signed(f"{round(value, 1) + 0.0:.1f}")


def chosen(files: Sequence[SampleFile]) -> list[SampleFile]:
    """The first, the last, and evenly spaced ones between."""
    count = min(STEPS, len(files))
    if count == 1:
        return [files[-1]]
    return [files[round(place * (len(files) - 1) / (count - 1))] for place in range(count)]


def drawn(run: RunFiles, row: Row, tokens: tuple[Token, ...] = ()) -> Drawn:
    """A row of samples/ with its picture and what it earned."""
    found = images.address(run.folder / "samples" / str(row.get("image", "")), run.folder)
    picture, hard_edges = found or (None, False)
    parts: Any = row.get("parts")
    named = parts.items() if isinstance(parts, dict) else ()
    plain = labels.Label("")
    shown = tuple((labels.label(f"reward/{name}").title, plain.text(number(x))) for name, x in named)
    return Drawn(str(row.get("id", "")), picture, hard_edges, shown, tokens)


def _numbers(row: Row, name: str) -> list[float | None]:
    listed = row.get(name)
    return [number(x) for x in listed] if isinstance(listed, list) else []


def _tokens(row: Row) -> list[str]:
    listed = row.get("tokens")
    return [str(token) for token in listed] if isinstance(listed, list) else []


def _visible(token: str | None) -> str:
    """A token's text; one of nothing but white space is shown as an open box."""
    return (token or "").strip() or "\N{OPEN BOX}"
