"""Pictures with what was said of them before and after training, facts marked where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from limner.evaluation import Row
from limner.report import images, labels
from limner.report.files import Absent, RunFiles

SHOWN = 16
"""Pairs shown, evenly spaced over the evaluated samples."""
WORST = 6
"""Samples shown on which the captions after training are worst."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a caption."""

    text: str
    """Its words."""
    state: str
    """"true", "false", or empty where it states nothing that is known."""
    kind: str
    """Kind of the fact."""


@dataclass(frozen=True)
class Said:
    """One caption on the page."""

    pieces: tuple[Piece, ...]
    """Its words with their facts; none where there is no caption."""
    note: str
    """What else is known of it: "covers 22% · 1 of 4 facts false"."""


@dataclass(frozen=True)
class Exhibit:
    """A picture and its captions."""

    id: str
    """Of the sample."""
    picture: str | None
    """data: address; None where no picture was kept."""
    hard_edges: bool
    """Whether the picture is so small that it is enlarged."""
    before: Said | None
    """Before training; None where it was not written."""
    after: Said | None
    """After training; None where it was not written."""


@dataclass(frozen=True)
class Gallery:
    """The section."""

    shown: tuple[Exhibit, ...]
    """Evenly spaced samples."""
    worst: tuple[Exhibit, ...]
    """Where the captions after training fail most."""
    worst_by: str
    """What "worst" means: "most false facts"."""
    total: int
    """Samples that were evaluated."""
    facts: bool
    """Whether facts are marked."""


def build(run: RunFiles) -> Gallery:
    """Pairs of captions. Raises Absent where nothing was evaluated."""
    before, after = run.before, run.after
    main = after or before
    if main is None:
        raise Absent(f"There are no captions to show. {run.missing_evaluations}")
    if not main.rows:
        raise Absent("The evaluation holds no captions.")
    captions = [None if e is None else {row.id: row for row in e.rows} for e in (before, after)]

    def exhibit(id: str) -> Exhibit:
        found = images.address(run.folder / "evaluation" / "images" / images.file_name(id), run.folder)
        picture, hard_edges = found or (None, False)
        said = [None if rows is None or id not in rows else _said(rows[id]) for rows in captions]
        return Exhibit(id, picture, hard_edges, said[0], said[1])

    worst, worst_by = _worst(after.rows) if after is not None else ([], "")
    return Gallery(
        shown=tuple(exhibit(id) for id in spaced(main.ids, SHOWN)),
        worst=tuple(exhibit(id) for id in worst),
        worst_by=worst_by,
        total=len(main.rows),
        facts=any(row.facts for row in main.rows),
    )


def spaced(ids: Sequence[str], count: int) -> list[str]:
    """At most `count` ids, evenly spaced, from the first on."""
    count = min(count, len(ids))
    return [ids[place * len(ids) // count] for place in range(count)]


def _worst(rows: Sequence[Row]) -> tuple[list[str], str]:
    """Ids on which captions fail most, worst first, and by what measure; none where nothing failed."""
    if any(row.facts for row in rows):
        false = {row.id: sum(not fact["true"] for fact in row.facts) for row in rows}
        failed = sorted((id for id in false if false[id]), key=lambda id: -false[id])
        return failed[:WORST], "most false facts"
    for name in ("clip_recall_mrr", "itm"):
        known = {row.id: value for row in rows if math.isfinite(value := row.measures.get(name, math.nan))}
        if len(known) > WORST:
            return sorted(known, key=lambda id: known[id])[:WORST], f"lowest {labels.measure(name).title}"
    return [], ""


def _said(row: Row) -> Said:
    notes = []
    coverage = row.measures.get("coverage", math.nan)
    if math.isfinite(coverage):
        notes.append(f"covers {coverage:.0%}")
    if row.facts:
        false = sum(not fact["true"] for fact in row.facts)
        stated = len(row.facts)
        all_true = "1 fact, true" if stated == 1 else f"{stated} facts, all true"
        notes.append(f"{false} of {stated} facts false" if false else all_true)
    return Said(_pieces(row), " · ".join(notes))


def _pieces(row: Row) -> tuple[Piece, ...]:
    """The caption cut where facts begin and end; a word in several facts is false if any of them is."""
    words = row.caption.split()
    state, kind = [""] * len(words), [""] * len(words)
    for fact in row.facts:
        start, end = int(str(fact["start"])), int(str(fact["end"]))
        for place in range(max(start, 0), min(end, len(words))):
            if state[place] != "false":
                state[place], kind[place] = "true" if fact["true"] else "false", str(fact.get("kind", ""))
    pieces: list[Piece] = []
    for word, s, k in zip(words, state, kind, strict=True):
        if pieces and (pieces[-1].state, pieces[-1].kind) == (s, k) and (not s or k == "relation"):
            pieces[-1] = Piece(f"{pieces[-1].text} {word}", s, k)
        else:
            pieces.append(Piece(word, s, k))
    return tuple(pieces)
