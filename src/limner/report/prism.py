"""The page of a Prism evaluation: every set with its intervals, and questions with what was answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from limner.data.media import open_image
from limner.errors import Reject
from limner.prism.result import MACRO, PrismResult, Scored
from limner.report.gallery import spaced
from limner.report.single import (
    Asked,
    Bar,
    Example,
    Gallery,
    Page,
    Said,
    Table,
    address,
    bar,
    facts,
    is_small,
    percent,
)
from limner.strips import SIDE, picture

if TYPE_CHECKING:
    from limner.prism.items import Item
    from limner.prism.stages import Found

EXAMPLES = 6
"""Questions shown of each kind."""


def page(found: Found) -> Page:
    """The page of a whole evaluation."""
    result = found.result
    items = {item.id: item for made in found.sets for item in made.items}
    mean = result.macro["mean"]
    lead = (
        f"{result.model} captioned {result.counts.get('images', 0):,} images {result.captions} times; "
        f"{result.answerer} answered {sum(len(made.questions) for made in result.sets):,} questions "
        "from the captions alone."
    )
    asked = [question for made in result.sets for question in made.questions]
    kinds = (
        ("Answered from every caption", "Every caption held what was asked.", lambda q: q.mean == 1),
        ("Answered from some", "One caption held it, another did not.", lambda q: 0 < q.mean < 1),
        ("Answered from none", "No caption held it, or the answerer did not see it.", lambda q: q.mean == 0),
    )
    galleries = [
        Gallery(title, about, _examples(found, items, [q for q in asked if chosen(q)]))
        for title, about, chosen in kinds
    ]
    return Page(
        name=f"Prism of {result.model}",
        lead=lead,
        headline=("Answered from captions", percent(mean.value)) if math.isfinite(mean.value) else None,
        tables=tables(result),
        histogram=None,
        galleries=tuple(gallery for gallery in galleries if gallery.examples),
        facts=facts(result.settings),
    )


def tables(result: PrismResult) -> tuple[Table, ...]:
    """Mean and best of n of every set, and over sets."""
    titles = {"mean": "Mean over captions", "best": f"Best of {result.captions} captions"}
    titles |= {"published_mean": "Mean, as published", "published_best": "Best, as published"}
    about = (
        "Share of right answers (ANLS: mean similarity); small print: 95% intervals, resampling questions."
    )
    notes = tuple(f"{note[:1].upper()}{note[1:]}." for note in result.notes())
    made: list[Table] = []
    for name, title in titles.items():
        if name in result.macro and not (name.endswith("best") and result.captions == 1):
            bars = _bars(result, name)
            made.append(Table(f"Prism: {title}", about, "Set", "Questions", bars, notes if not made else ()))
    return tuple(made)


def _bars(result: PrismResult, name: str) -> tuple[Bar, ...]:
    bars = [
        bar(made.title, made.summary[name], percent, count=f"{made.summary[name].n:,}", share=True)
        for made in result.sets
    ]
    if len(result.sets) > 1:
        bars.append(bar(MACRO.capitalize(), result.macro[name], percent, count="", share=True))
    return tuple(bars)


def _examples(found: Found, items: dict[str, Item], chosen: Sequence[Scored]) -> tuple[Example, ...]:
    scored = {question.id: question for question in chosen}
    return tuple(_example(found, items[id], scored[id]) for id in spaced(list(scored), EXAMPLES))


def _example(found: Found, item: Item, question: Scored) -> Example:
    captions = found.captions.of(item)
    shown = next((caption for caption in captions if caption is not None), "")
    said: list[Said] = []
    for answer, text, score in zip(found.answers[item.id], question.answers, question.scores, strict=True):
        if math.isnan(score):
            said.append(Said(answer.error, "unscored", "unscored"))
        else:
            state = "true" if score == 1 else "false"
            mark = {1.0: "right", 0.0: "wrong"}.get(score, percent(score))
            said.append(Said(text if text is not None else _cut(answer.reply or ""), state, mark))
    right = " or ".join(item.gold.answers)
    note = f"the first of {len(captions)} captions" if len(captions) > 1 else ""
    address_, hard = _picture(item.images[0])
    return Example(item.id, address_, hard, shown, note, (Asked(item.question, right, tuple(said)),))


def _cut(reply: str) -> str:
    return f"no answer found in: {reply[:200]}"


def _picture(path: Path) -> tuple[str | None, bool]:
    try:
        image = open_image(path, max_side=SIDE)
    except Reject:
        return None, False
    hard = is_small(image)
    return address(picture((image,)), hard_edges=hard), hard
