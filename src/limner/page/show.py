"""Looks as HTML: captions side by side, what they earn, and a heat map of their tokens with numbers."""

from __future__ import annotations

import base64
import functools
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from limner.page.results import Side, Told
from limner.report.images import SMALL
from limner.report.labels import Label, label, signed
from limner.strips import picture

NOTHING = "\N{EN DASH}"
_PLAIN = Label("")


@dataclass(frozen=True)
class Look:
    """One picture with what was said of it."""

    name: str
    """Its file, or its id in the gallery."""
    address: str
    """data: URL of a small picture; several frames as a strip."""
    hard_edges: bool
    """Whether it is so small that it is enlarged."""
    frames: int
    """How many the captioner was shown."""
    sides: tuple[Side, ...]
    """One or two captioners."""


@dataclass(frozen=True)
class Trouble:
    """A file that could not be used."""

    name: str
    """The file; empty where it is about all."""
    message: str
    """One sentence."""


@dataclass(frozen=True)
class Heat:
    """One number of a token."""

    text: str
    """As written."""
    side: str
    """"more" or "less"; empty where there is no number."""
    strength: float
    """0..1."""


@dataclass(frozen=True)
class Cell:
    """One token as it is drawn."""

    text: str
    """White space made visible."""
    probable: Heat
    """Its log-probability: the less likely, the stronger."""
    earned: Heat
    """Its return: its distance from the middle of all that is shown."""
    hover: str
    """Everything about it in one line."""


@dataclass(frozen=True)
class Scale:
    """The colours' numbers."""

    low: str
    """The lowest."""
    middle: str
    """The number without colour."""
    high: str
    """The highest; empty where the colour has one side."""


def address(media: Sequence[Image.Image]) -> tuple[str, bool]:
    """A picture, or frames as a strip, as a small data: URL; and whether to show it with hard edges."""
    small = picture(media)
    hard = max(small.size) <= SMALL
    file = io.BytesIO()
    small.save(file, "PNG" if hard else "JPEG", quality=85)
    kind = "png" if hard else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}", hard


def html(looks: Sequence[Look], troubles: Sequence[Trouble] = ()) -> str:
    """The results, safe to put into a page: what a model or a file's name says is escaped."""
    told = [each for look in looks for side in look.sides for each in side.captions]
    heat = _Heats(told)
    return _template().render(
        looks=looks, troubles=troubles, scales=heat.scales, cells=heat.cells, several=len(looks) > 1,
        number=_PLAIN.text, title=lambda name: label(f"reward/{name}").title,
        scored=any(each.parts for each in told), jsonl=_data(jsonl(looks)), text=text(looks),
        plain=_data(text(looks)),
    )  # fmt: skip


def text(looks: Sequence[Look]) -> str:
    """Every caption with its picture and captioner, for people."""
    lines: list[str] = []
    for look in looks:
        for side in look.sides:
            lines += [f"{look.name}\t{side.name}\t{' '.join(each.text.split())}" for each in side.captions]
    return "".join(f"{line}\n" for line in lines)


def jsonl(looks: Sequence[Look]) -> str:
    """Every caption with all its numbers, one JSON object a line; what is not scored is null."""
    rows: list[dict[str, Any]] = [
        {
            "image": look.name,
            "model": side.name,
            "caption": told.text,
            "ended": told.ended,
            "reward": _number(told.total),
            "parts": {part.name: _number(part.value) for part in told.parts},
            "tokens": [token.text for token in told.tokens],
            "logprobs": [_number(token.logprob) for token in told.tokens],
            "returns": [_number(token.earned) for token in told.tokens],
        }
        for look in looks
        for side in look.sides
        for told in side.captions
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class _Heats:
    """Colours of all tokens that are shown together, on one scale."""

    def __init__(self, told: Iterable[Told]):
        tokens = [token for each in told for token in each.tokens]
        self._lowest = min((token.logprob for token in tokens), default=0.0)
        returns = [token.earned for token in tokens if math.isfinite(token.earned)]
        self._middle = median(returns) if returns else math.nan
        self._reach = max((abs(value - self._middle) for value in returns), default=0.0) or 1.0
        self.scales = {"logprob": Scale(_text(0.0), "", _text(self._lowest))}
        if returns:
            ends = _text(min(returns)), _text(self._middle), _text(max(returns))
            self.scales["return"] = Scale(*ends)

    def cells(self, told: Told) -> list[Cell]:
        """The tokens of a caption."""
        cells: list[Cell] = []
        for token in told.tokens:
            share = math.exp(min(0.0, token.logprob))
            hover = (
                f"{token.text.strip() or 'white space'}: log-probability {_text(token.logprob)} ({share:.1%})"
            )
            if math.isfinite(token.earned):
                hover += f", return {_text(token.earned)}"
            strength = token.logprob / self._lowest if self._lowest < 0 else 0.0
            probable = Heat(_text(token.logprob), "less", round(max(0.0, strength), 3))
            cells.append(Cell(_visible(token.text), probable, self._earned(token.earned), hover))
        return cells

    def _earned(self, value: float) -> Heat:
        if not math.isfinite(value):
            return Heat(NOTHING, "", 0.0)
        away = value - self._middle
        return Heat(_text(value), "more" if away >= 0 else "less", round(abs(away) / self._reach, 3))


def _text(value: float) -> str:
    return signed(f"{round(value, 2) + 0.0:.2f}")


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _visible(token: str) -> str:
    return token.strip() or "\N{OPEN BOX}"


def _data(content: str) -> str:
    encoded = base64.b64encode(content.encode("utf8", "replace")).decode()
    return f"data:application/octet-stream;base64,{encoded}"


@functools.cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("limner.page", "assets"), undefined=StrictUndefined, autoescape=True,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("results.html.jinja")
