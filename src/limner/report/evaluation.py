"""The page of an evaluation: every measure with its interval, Prism, lengths, the best and worst captions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from limner.data.base import Source
from limner.errors import Reject
from limner.evaluation import Evaluation, Row
from limner.prism.result import PrismResult
from limner.questions import LETTERS
from limner.report import labels, prism
from limner.report.gallery import spaced
from limner.report.single import (
    Asked,
    Example,
    Gallery,
    Page,
    Said,
    Table,
    address,
    bar,
    facts,
    histogram,
    is_small,
)
from limner.strips import picture
from limner.types import Sample

SHOWN = 6
"""Samples of each gallery."""
ASKED = 3
"""Questions shown of each, evenly spaced."""
RANKS = (
    *("qa_accuracy", "facts_f1", "cider", "clip_recall_mrr", "ref_clip_score", "clip_score", "itm", "spice"),
    *("meteor", "rouge_l", "colour_coverage"),
)
"""Measures that tell good captions from bad ones, the first that was measured is taken; higher is better."""


def page(evaluation: Evaluation, source: Source) -> Page:
    """The page.

    Args:
        evaluation: what was measured.
        source: where the pictures are.
    """
    rows = {row.id: row for row in evaluation.rows}
    samples = _Samples(source)
    by = next((name for name in RANKS if _known(evaluation.rows, name)), None)
    galleries = [_gallery("Captions", "Evenly spaced samples.", spaced(list(rows), SHOWN), rows, by, samples)]
    if by is not None:
        ranked = sorted(_known(evaluation.rows, by), key=lambda id: -rows[id].measures[by])
        title = labels.measure(by).title
        few = min(SHOWN, len(ranked) // 2)
        galleries += [
            _gallery("Best", f"Highest {title}.", ranked[:few], rows, by, samples),
            _gallery("Worst", f"Lowest {title}.", ranked[::-1][:few], rows, by, samples),
        ]
    tables = [_table(evaluation)] if evaluation.summary else []
    if evaluation.prism is not None:
        tables += prism.tables(PrismResult.of(evaluation.prism))
    words = [len(row.caption.split()) for row in evaluation.rows]
    settings = {"data": evaluation.data, "decoding": evaluation.decoding or {}, **evaluation.settings}
    return Page(
        name=evaluation.model,
        lead=f"{len(rows):,} captions by {evaluation.model} of {evaluation.data}.",
        headline=_headline(evaluation),
        tables=tuple(tables),
        histogram=histogram(words, "words"),
        galleries=tuple(gallery for gallery in galleries if gallery.examples),
        facts=facts(settings),
    )


def _headline(evaluation: Evaluation) -> tuple[str, str] | None:
    for name, title in labels.HEADLINES.items():
        made = evaluation.summary.get(name)
        if made is not None and math.isfinite(made.value):
            return title, labels.measure(name).text(made.value)
    return None


def _table(evaluation: Evaluation) -> Table:
    about = "Small print: 95% intervals, resampling pictures. A bar is the interval, a dot the value."
    bars = []
    for name, made in evaluation.summary.items():
        label = labels.measure(name)
        bars.append(bar(label.title, made, label.text, count=f"{made.n:,}", share=label.form == "share"))
    return Table("Measures", about, "Measure", "Pictures", tuple(bars))


def _known(rows: Sequence[Row], name: str) -> list[str]:
    return [row.id for row in rows if math.isfinite(row.measures.get(name, math.nan))]


def _gallery(
    title: str, about: str, ids: Sequence[str], rows: Mapping[str, Row], by: str | None, samples: _Samples
) -> Gallery:
    return Gallery(title, about, tuple(_example(rows[id], by, samples.read(id)) for id in ids))


def _example(row: Row, by: str | None, sample: Sample | None) -> Example:
    note = ""
    if by is not None and math.isfinite(row.measures.get(by, math.nan)):
        note = f"{labels.measure(by).title} {labels.measure(by).text(row.measures[by])}"
    few = min(ASKED, len(row.questions))
    chosen = [row.questions[place * len(row.questions) // few] for place in range(few)]
    asked = tuple(map(_asked, chosen))
    if sample is None or not sample.media:
        return Example(row.id, None, False, row.caption, note, asked)
    hard = is_small(sample.media[0]) and len(sample.media) == 1
    return Example(row.id, address(picture(sample.media), hard_edges=hard), hard, row.caption, note, asked)


def _asked(one: Mapping[str, Any]) -> Asked:
    """A question as it was asked of this caption."""
    texts = dict(zip(LETTERS, one["options"], strict=False))
    listed = " · ".join(f"{letter} {text}" for letter, text in texts.items())
    right = " or ".join(f"{letter} {texts.get(letter, '')}" for letter in one["right"])
    said = one["said"]
    if not said:
        reply = Said(str(one.get("error", "")), "unscored", "no answer")
    else:
        correct = said in one["right"]
        state, mark = ("true", "right") if correct else ("false", "wrong")
        reply = Said(f"{said} {texts.get(said, '')}", state, mark)
    return Asked(f"{one['question']}\n{listed}", right, (reply,))


class _Samples:
    """Samples by id, read when they are shown."""

    def __init__(self, source: Source):
        self.source = source
        self.places = {id: place for place, id in enumerate(source.ids())}

    def read(self, id: str) -> Sample | None:
        """The sample; None where it can no longer be read, or is a video."""
        try:
            return self.source.read(self.places[id]) if id in self.places else None
        except Reject:
            return None
