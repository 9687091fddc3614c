"""A page about one set of captions: tables with intervals, lengths, pictures with what was said of them."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from limner.evaluation import write_whole
from limner.metrics.bootstrap import Interval
from limner.report.images import SMALL
from limner.report.labels import signed

MOST_BINS = 40


@dataclass(frozen=True)
class Bar:
    """A row of a table: a value with its interval."""

    title: str
    """What is measured."""
    text: str
    """The value."""
    interval: str
    """Its 95% interval; empty where there is none."""
    known: bool
    """Whether there is anything to draw."""
    low: float
    """Place of the lower end on the row's axis, in per cent."""
    at: float
    """Place of the value."""
    high: float
    """Place of the upper end."""
    count: str
    """What it is over."""


@dataclass(frozen=True)
class Table:
    """Values that belong together."""

    title: str
    """Heading."""
    about: str
    """What they are."""
    of: str
    """Head of the first column."""
    counted: str
    """Head of the last."""
    bars: tuple[Bar, ...]
    """The rows."""
    notes: tuple[str, ...] = ()
    """Sentences below."""


@dataclass(frozen=True)
class Said:
    """One reply."""

    text: str
    """What was said."""
    state: str
    """"true", "false" or "unscored"."""
    mark: str
    """The state in a word."""


@dataclass(frozen=True)
class Asked:
    """One question."""

    question: str
    """With its options."""
    right: str
    """The right answer."""
    said: tuple[Said, ...]
    """The replies."""


@dataclass(frozen=True)
class Example:
    """A picture and a caption of it."""

    id: str
    """Of the sample or question."""
    picture: str | None
    """data: address; None where there is none."""
    hard_edges: bool
    """Whether it is so small that it is enlarged."""
    caption: str
    """The caption."""
    note: str = ""
    """What was measured of it."""
    asked: tuple[Asked, ...] = ()
    """Questions about it."""


@dataclass(frozen=True)
class Gallery:
    """Examples of one kind."""

    title: str
    """Heading."""
    about: str
    """Why these."""
    examples: tuple[Example, ...]
    """In order."""

    @property
    def asking(self) -> bool:
        """Whether questions are shown."""
        return any(example.asked for example in self.examples)


@dataclass(frozen=True)
class Histogram:
    """How often captions are how long."""

    bars: tuple[tuple[float, str], ...]
    """(height in per cent of the highest, words for people)."""
    low: str
    """Under the left end."""
    high: str
    """Under the right end."""
    about: str
    """In words."""


@dataclass(frozen=True)
class Page:
    """All of it."""

    name: str
    """Title."""
    lead: str
    """What was measured, in a sentence."""
    headline: tuple[str, str] | None
    """(title, value) of the number that stands first; None where none does."""
    tables: tuple[Table, ...]
    """Values."""
    histogram: Histogram | None
    """Of the captions' lengths."""
    galleries: tuple[Gallery, ...]
    """Pictures."""
    facts: tuple[tuple[str, str], ...]
    """(name, value): settings."""


def write(page: Page, out: Path) -> Path:
    """Write a page as one HTML file that needs no network.

    Raises:
        UserError: the file cannot be written.
    """
    loader = PackageLoader("limner.report", "page")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    style = Markup(loader.get_source(environment, "style.css")[0])
    template = environment.get_template("measured.html.jinja")
    text = template.render(page=page, style=style, version=metadata.version("limner"))
    write_whole(out, text.encode("utf-8", "replace").decode())
    return out


def bar(title: str, made: Interval, text: Callable[[float], str], *, count: str, share: bool) -> Bar:
    """A value on an axis: a share from 0 to 1, any other from 0 to a little above its interval."""
    ends = [value for value in (made.low, made.value, made.high) if math.isfinite(value)]
    low, high = (0.0, 1.0) if share else (min([0.0, *ends]), 1.1 * max([0.0, *ends]))
    known = bool(ends) and high > low

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2) if known and math.isfinite(value) else 0.0

    between = f"{text(made.low)} to {text(made.high)}" if math.isfinite(made.low) else ""
    places = place(made.low), place(made.value), place(made.high)
    return Bar(title, text(made.value), between, known, *places, count)


def histogram(values: Sequence[float], unit: str) -> Histogram | None:
    """How often values lie where; None of nothing."""
    kept = np.array([value for value in values if math.isfinite(value)])
    if not len(kept):
        return None
    low, high = int(kept.min()), int(kept.max())
    step = max(1, -(-(high - low + 1) // MOST_BINS))
    edges = np.arange(low, high + step + 1, step)
    counts, _ = np.histogram(kept, edges)
    highest = max(1, int(counts.max()))
    bars = tuple(
        (round(100 * int(count) / highest, 1), f"{_span(int(edge), step)} {unit}: {count} captions")
        for count, edge in zip(counts, edges, strict=False)
    )
    middle, fifth, ninety = (float(np.quantile(kept, q)) for q in (0.5, 0.05, 0.95))
    about = f"{unit.capitalize()} a caption: median {middle:.0f}, 90% within {fifth:.0f} to {ninety:.0f}."
    return Histogram(bars, f"{low} {unit}", f"{high} {unit}", about)


def _span(edge: int, step: int) -> str:
    return str(edge) if step == 1 else f"{edge}\N{EN DASH}{edge + step - 1}"


def address(image: Image.Image, *, hard_edges: bool) -> str:
    """A picture as a data: address."""
    buffer = io.BytesIO()
    if hard_edges:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.convert("RGB").save(buffer, "JPEG", quality=82, optimize=True)
    kind = "png" if hard_edges else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def is_small(image: Image.Image) -> bool:
    """Whether a picture is shown enlarged with hard edges."""
    return max(image.size) <= SMALL


def facts(settings: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Settings as (name, value), those in others after a dot; what is not set is left out."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += [(f"{key}.{inner}", text) for inner, text in facts(value)]
        elif value not in (None, "", [], {}):
            rows.append((key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return tuple(rows)


def percent(value: float) -> str:
    """A share as people read it."""
    return signed(f"{100 * value:.1f}%") if math.isfinite(value) else "\N{EN DASH}"
