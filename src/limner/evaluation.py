"""The result of an evaluation: every caption with its measures, and the numbers of the whole set."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from rich import box
from rich.table import Table
from rich.text import Text

from limner.errors import UserError
from limner.metrics.bootstrap import Interval, intervals
from limner.metrics.measures import MEASURES, columns_of, ratios, written, written_interval

Floats = npt.NDArray[np.float64]
_SHARE = "coverage"
"""A measure that is written in per cent."""


@dataclass(frozen=True)
class Row:
    """One image with its caption and what was measured."""

    id: str
    """Id of the sample in its source."""
    caption: str
    """The caption."""
    measures: Mapping[str, float]
    """By name; NaN is unscored. With BLEU also the counts that corpus BLEU is made of."""
    facts: tuple[Mapping[str, object], ...] = ()
    """On the miniature world: claims as {"start", "end", "true", "kind"}, counted in `caption.split()`."""
    questions: tuple[Mapping[str, Any], ...] = ()
    """What was asked: {"question", "kind", "options", "right", "said", "correct"}; "right" and "said" are
    letters; without an answer "said" is empty, "correct" is null, and "error" says why."""


@dataclass(frozen=True)
class Evaluation:
    """All rows with the numbers of the set."""

    rows: tuple[Row, ...]
    """One an image."""
    summary: Mapping[str, Interval]
    """The measures of the set with their 95% intervals."""
    model: str = ""
    """Who wrote the captions."""
    data: str = ""
    """What was captioned."""
    decoding: Mapping[str, object] | None = None
    """How captions were written; None where they were read."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """How they were measured: the checkpoints of CLIP and ITM, the seed of the bootstrap."""
    environment: Mapping[str, object] = field(default_factory=dict)
    """What it ran on."""
    prism: Mapping[str, Any] | None = None
    """What questions about the captions found, as in prism.json; its intervals resample questions."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the rows."""
        return tuple(row.id for row in self.rows)

    def columns(self) -> dict[str, Floats]:
        """(N,) values of every measure, in the order of the rows."""
        names = self.rows[0].measures if self.rows else ()
        return {name: np.array([row.measures[name] for row in self.rows], dtype=np.float64) for name in names}

    def table(self) -> Table:
        """For the terminal."""
        title = Text(f"{self.model} on {self.data}: {len(self.rows)} captions")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for title in ("measure", "value", "95% interval", "images"):
            table.add_column(title, justify="left" if title == "measure" else "right")
        for name, interval in self.summary.items():
            numbers = written(name, interval.value), written_interval(name, interval), str(interval.n)
            table.add_row(MEASURES[name].title, *map(Text, numbers))
        for title, interval in _prism_rows(self.prism):
            # shares of right answers are written as other shares are
            numbers = written(_SHARE, interval.value), written_interval(_SHARE, interval)
            table.add_row(title, *map(Text, numbers), f"{interval.n} questions")
        return table

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all; NaN is written as null.

        Raises:
            UserError: the file cannot be written.
        """
        value = {
            "model": self.model,
            "data": self.data,
            "decoding": self.decoding,
            "settings": self.settings,
            "summary": {name: _plain(asdict(interval)) for name, interval in self.summary.items()},
            "environment": self.environment,
            **({} if self.prism is None else {"prism": self.prism}),
        }
        rows = ",\n  ".join(json.dumps(_row(row)) for row in self.rows)
        text = json.dumps(value, indent=1).removesuffix("\n}") + f',\n "rows": [\n  {rows}\n ]\n}}\n'
        write_whole(path, text)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, or is no evaluation.
        """
        try:
            value = json.loads(path.read_text(encoding="utf8"))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise UserError(f"{path}: is not JSON: {error}") from error
        try:
            rows = tuple(_read_row(row) for row in value["rows"])
            summary = {name: _read_interval(made) for name, made in value["summary"].items()}
            return cls(
                rows,
                summary,
                value["model"],
                value["data"],
                value["decoding"],
                value["settings"],
                value["environment"],
                value.get("prism"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: is not a file of `limner evaluate`: {type(error).__name__} {error}"
            ) from error


def summed_up(columns: Mapping[str, Floats], *, seed: int = 0) -> dict[str, Interval]:
    """The measures of a set with intervals, in the order of tables.

    Args:
        columns: (N,) values of every measure, and what else `columns_of` them names.
        seed: of the bootstrap.
    """
    return intervals(ratios({name: columns[name] for name in columns_of(columns)}), seed=seed)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    beside = path.with_name(path.name + ".writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf8")
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def number(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return value if math.isfinite(value) else None


def _prism_rows(prism: Mapping[str, Any] | None) -> list[tuple[str, Interval]]:
    """(title, mean over captions) of every set, then over sets."""
    if prism is None:
        return []
    made = [(f"Prism: {row['title']}", _read_interval(row["mean"])) for row in prism["sets"].values()]
    return (
        made if len(made) == 1 else [*made, ("Prism: mean over sets", _read_interval(prism["macro"]["mean"]))]
    )


def _row(row: Row) -> dict[str, object]:
    value: dict[str, object] = {"id": row.id, "caption": row.caption, "measures": _plain(row.measures)}
    value |= {"facts": list(row.facts)} if row.facts else {}
    return value | ({"questions": list(row.questions)} if row.questions else {})


def _read_row(row: Mapping[str, Any]) -> Row:
    facts, questions = tuple(row.get("facts", ())), tuple(row.get("questions", ()))
    return Row(row["id"], row["caption"], _numbers(row["measures"]), facts, questions)


def _read_interval(made: Mapping[str, float | None]) -> Interval:
    numbers = _numbers(made)
    return Interval(numbers["value"], numbers["low"], numbers["high"], int(numbers["n"]))


def _plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: number(value) for name, value in numbers.items()}


def _numbers(plain: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in plain.items()}
