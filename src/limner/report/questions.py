"""Questions about pictures, and what was answered to them from the captions before and after training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from limner.answering.draw import one_line
from limner.evaluation import Evaluation, Row
from limner.metrics.bootstrap import Interval, Ratio, intervals, paired
from limner.metrics.measures import written_change
from limner.questions import LETTERS
from limner.report import images, measured
from limner.report.files import Absent, RunFiles
from limner.report.gallery import spaced
from limner.report.labels import Label

SHOWN = 6
"""Pictures shown, evenly spaced over those with questions."""
OPEN = 5
"""Questions of a picture that are shown at once, evenly spaced; the rest are one click away."""
ALL = "all"
"""The last row of the table."""
MEASURE = "qa_accuracy"
_WRITTEN = {
    "question": str,
    "options": list,
    "right": str,
    "said": str,
    "correct": (int, float, type(None)),
}
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reply:
    """What was answered from one caption."""

    letter: str
    """Of the option chosen; empty where there was no answer."""
    text: str
    """The option, or why there was no answer."""
    state: str
    """"true", "false", or "unscored" where there was no answer."""


@dataclass(frozen=True)
class Asked:
    """One question about one picture."""

    question: str
    """Its text."""
    kind: str
    """What it asks for; may be empty."""
    options: tuple[tuple[str, str, bool], ...]
    """(letter, text, right), in the order in which they were shown, without "cannot answer"."""
    before: Reply | None
    """From the caption before training; None where it was not asked."""
    after: Reply | None
    """From the caption after training; None where it was not asked."""


@dataclass(frozen=True)
class Caption:
    """One caption and how it fared."""

    text: str
    """As written; may be empty."""
    note: str
    """How many questions were answered from it."""


@dataclass(frozen=True)
class Exhibit:
    """A picture, its two captions and its questions."""

    id: str
    """Of the sample."""
    picture: str | None
    """data: address; None where no picture was kept."""
    hard_edges: bool
    """Whether the picture is so small that it is enlarged."""
    before: Caption | None
    """None where it was not written."""
    after: Caption | None
    """None where it was not written."""
    asked: tuple[Asked, ...]
    """Some questions, evenly spaced."""
    rest: tuple[Asked, ...]
    """The others."""


@dataclass(frozen=True)
class Questions:
    """The section."""

    kinds: tuple[tuple[measured.Row, int], ...]
    """Share answered right by kind of question, with the number of questions; the last is over all."""
    shown: tuple[Exhibit, ...]
    """Some pictures."""
    total: int
    """Pictures with questions."""
    answerer: str
    """Who answered."""
    cannot: str
    """Text of the option "cannot answer", which every question had; empty where none was offered."""


def build(run: RunFiles) -> Questions:
    """Questions with their answers. Raises Absent where none were asked."""
    before, after = run.before, run.after
    main = after or before
    if main is None:
        raise Absent(f"Nothing was asked about captions. {run.missing_evaluations}")
    if not all(_is_asked(one) for e in (before, after) if e for row in e.rows for one in row.questions):
        raise Absent("A question in evaluation/ is not as limner writes it.")
    ids = [row.id for row in main.rows if row.questions]
    if not ids:
        raise Absent("No questions were asked; qa among evaluate.metrics asks them.")
    held = main.settings.get("qa")
    settings: Mapping[str, Any] = held if isinstance(held, Mapping) else {}
    cannot = one_line(str(settings.get("cannot_answer") or ""))
    rows = [None if e is None else {row.id: row for row in e.rows} for e in (before, after)]
    return Questions(
        _kinds(before, after),
        tuple(_exhibit(run, id, rows, cannot) for id in spaced(ids, SHOWN)),
        len(ids),
        str(settings.get("answerer", "")),
        cannot,
    )


def _is_asked(one: object) -> bool:
    return isinstance(one, Mapping) and all(isinstance(one.get(key), kind) for key, kind in _WRITTEN.items())


def _exhibit(run: RunFiles, id: str, rows: Sequence[Mapping[str, Row] | None], cannot: str) -> Exhibit:
    found = images.address(run.folder / "evaluation" / "images" / images.file_name(id), run.folder)
    picture, hard_edges = found or (None, False)
    before, after = (None if side is None else side.get(id) for side in rows)
    asked = _asked(before, after, cannot)
    first_caption, second_caption = (
        None if row is None else Caption(row.caption, _note(row)) for row in (before, after)
    )
    few = min(OPEN, len(asked))
    first = {place * len(asked) // few for place in range(few)}
    some, rest = (tuple(one for n, one in enumerate(asked) if (n in first) == open) for open in (True, False))
    return Exhibit(id, picture, hard_edges, first_caption, second_caption, some, rest)


def _asked(before: Row | None, after: Row | None, cannot: str) -> tuple[Asked, ...]:
    """The questions of the later caption, with what both were answered; those only the earlier had follow."""
    sides = [{} if row is None else _keyed(row.questions) for row in (before, after)]
    return tuple(
        _one(sides[0].get(key), sides[1].get(key), cannot) for key in dict.fromkeys([*sides[1], *sides[0]])
    )


def _keyed(questions: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    """By text, options in order (letters mean the same in both then), and how often that came before."""
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    times: dict[tuple[Any, ...], int] = {}
    for one in questions:
        key = (one["question"], *one["options"])
        times[key] = times.get(key, 0) + 1
        found[(*key, times[key])] = one
    return found


def _one(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, cannot: str) -> Asked:
    asked = after or before
    assert asked is not None
    options = tuple(
        (letter, str(text), letter in asked["right"])
        for letter, text in zip(LETTERS, asked["options"], strict=False)
        if not (cannot and text == cannot and letter not in asked["right"])
    )
    replies = (None if one is None else _reply(one, cannot) for one in (before, after))
    return Asked(str(asked["question"]), str(asked.get("kind", "")), options, *replies)


def _reply(asked: Mapping[str, Any], cannot: str) -> Reply:
    said = str(asked["said"])
    if not said:
        return Reply("", str(asked.get("error") or "no answer"), "unscored")
    place = LETTERS.find(said)
    text = str(asked["options"][place]) if 0 <= place < len(asked["options"]) else ""
    right = said in asked["right"]
    return Reply(said, "cannot answer" if cannot and text == cannot else text, "true" if right else "false")


def _note(row: Row) -> str:
    replies = [_reply(one, "") for one in row.questions]
    right = sum(reply.state == "true" for reply in replies)
    without = sum(reply.state == "unscored" for reply in replies)
    return f"{right} of {len(replies)} right" + (f", {without} without an answer" if without else "")


def _kinds(before: Evaluation | None, after: Evaluation | None) -> tuple[tuple[measured.Row, int], ...]:
    """A row a kind, then all together: shares of the questions answered, pictures resampled."""
    sides = [e for e in (before, after) if e is not None]
    counts: dict[str, int] = {}
    for row in sides[-1].rows:
        for one in row.questions:
            counts[_kind(one)] = counts.get(_kind(one), 0) + 1
    names = [*(counts if len(counts) > 1 else ()), ALL]
    counts[ALL] = sum(counts.values())
    found = [None if e is None else intervals(_shares(e.rows, names)) for e in (before, after)]
    changes: dict[str, Interval] = {}
    if before is not None and after is not None:
        first, second = ({row.id: row for row in e.rows} for e in (before, after))
        shared = [id for id in first if id in second]
        changes = paired(*(_shares([side[id] for id in shared], names) for side in (first, second)))
    rows: list[tuple[measured.Row, int]] = []
    for name in names:
        title = "All questions" if name == ALL else f"{name[:1].upper()}{name[1:]}"
        verdict = written_change(MEASURE, changes[name]) if name in changes else ""
        left, right = (None if side is None else side[name] for side in found)
        rows.append((measured.row(Label(title, form="share"), left, right, verdict), counts[name]))
    return tuple(rows)


def _kind(asked: Mapping[str, Any]) -> str:
    return str(asked.get("kind") or "other")


def _shares(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Ratio]:
    """By kind, the share answered right of N pictures' questions; what was not answered is left out."""
    shares: dict[str, Ratio] = {}
    for name in names:
        values = [
            [
                float(one["correct"])
                for one in row.questions
                if one["correct"] is not None and name in (ALL, _kind(one))
            ]
            for row in rows
        ]
        means: Floats = np.array([np.mean(each) if each else math.nan for each in values], dtype=np.float64)
        weights: Floats = np.array([float(len(each)) for each in values], dtype=np.float64)
        shares[name] = Ratio.pooled(means, weights)
    return shares
