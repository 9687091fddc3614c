"""The measures of an evaluation: how rows make the number of a set, and how people read it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from limner.component import did_you_mean
from limner.errors import UserError
from limner.metrics.bootstrap import Interval, Ratio, Summed
from limner.metrics.coco import BLEU, BLEU_COUNTS, METEOR_BEYOND, PARTS, corpus_bleu

Floats = npt.NDArray[np.float64]

SAME = 1e-9
"""Differences below this are rounding."""


@dataclass(frozen=True)
class Measure:
    """How one measure is summed up and written."""

    title: str
    """A few words for tables."""
    sums: Literal["mean", "total", "bleu", "meteor"] = "mean"
    """Is the set's number the mean of the rows, their sum, corpus BLEU of their counts, or METEOR's own?"""
    weight: str | None = None
    """The mean is weighted by this other measure, or by a count that is none."""
    percent: bool = False
    """Written as a percentage; differences in points."""


MEASURES: Mapping[str, Measure] = {
    **{name: Measure(name.upper().replace("_", "-"), sums="bleu") for name in BLEU},
    "rouge_l": Measure("ROUGE-L"),
    "cider": Measure("CIDEr"),
    "cider_d": Measure("CIDEr-D"),
    "meteor": Measure("METEOR", sums="meteor"),
    "spice": Measure("SPICE"),
    "colour_coverage": Measure("colours of references", percent=True),
    "clip_score": Measure("CLIPScore"),
    "ref_clip_score": Measure("RefCLIPScore"),
    "clip_recall_mrr": Measure("CLIP recall MRR"),
    "clip_recall_r1": Measure("CLIP recall R@1", percent=True),
    "clip_recall_r5": Measure("CLIP recall R@5", percent=True),
    "clip_recall_r10": Measure("CLIP recall R@10", percent=True),
    "words": Measure("words a caption"),
    "distinct_captions": Measure("distinct captions", sums="total"),
    "vocabulary": Measure("distinct words", sums="total"),
    "colours": Measure("colours"),
    "repetition": Measure("repeated words", percent=True),
    "bad_phrases": Measure("bad phrases", percent=True),
    "distinct_1": Measure("distinct-1", weight="ngrams_1"),
    "distinct_2": Measure("distinct-2", weight="ngrams_2"),
    "self_bleu": Measure("self-BLEU"),
    "lm_logprob": Measure("log-likelihood"),
    "itm": Measure("ITM match logit"),
    "qa_accuracy": Measure("questions answered right", percent=True),
    "qa_cannot_answer": Measure("questions it cannot answer", percent=True),
    "qa_answered": Measure("questions answered at all", percent=True),
    "facts_stated": Measure("facts stated"),
    "facts_true": Measure("facts true", weight="facts_stated", percent=True),
    "relations_stated": Measure("relations stated"),
    "relations_true": Measure("relations true", weight="relations_stated", percent=True),
    "coverage": Measure("scene covered", percent=True),
    "facts_f1": Measure("facts F1", percent=True),
}
"""Every measure by its name in files, in the order of tables. docs/metrics.md defines them."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "coco": (*BLEU, "rouge_l", "cider", "cider_d"),
    "java": ("meteor", "spice"),
    "colour_coverage": ("colour_coverage",),
    "clip_score": ("clip_score", "ref_clip_score"),
    "clip_recall": ("clip_recall_mrr", "clip_recall_r1", "clip_recall_r5", "clip_recall_r10"),
    "captions": ("words", "distinct_captions", "vocabulary", "colours", "repetition", "bad_phrases"),
    "diversity": ("distinct_1", "distinct_2", "self_bleu"),
    "language_model": ("lm_logprob",),
    "itm": ("itm",),
    "qa": ("qa_accuracy", "qa_cannot_answer", "qa_answered"),
    "facts": (
        *("facts_stated", "facts_true", "relations_stated", "relations_true"),
        *("coverage", "facts_f1"),
    ),
}
"""What is computed together, by the name to ask for it."""


def chosen(asked: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The measures of each group that a list of groups and measures means; a weight comes with its measure.

    Raises:
        UserError: a name is neither.
    """
    names: set[str] = set()
    for name in asked:
        if name not in GROUPS and name not in MEASURES:
            known = {*GROUPS, *MEASURES}
            raise UserError(f"metrics: {did_you_mean(name, known)}; groups of measures: {', '.join(GROUPS)}")
        names |= set(GROUPS.get(name, (name,)))
    names |= {weight for name in names if (weight := MEASURES[name].weight) in MEASURES and weight}
    kept = {group: tuple(name for name in members if name in names) for group, members in GROUPS.items()}
    return {group: members for group, members in kept.items() if members}


def columns_of(names: Collection[str]) -> list[str]:
    """What must be known of each image to sum up these measures: they themselves, and some counts."""
    kept = [name for name in MEASURES if name in names]
    parts = [weight for name in kept if (weight := MEASURES[name].weight) and weight not in MEASURES]
    if any(name in names for name in BLEU):
        parts += BLEU_COUNTS
    return [*kept, *parts, *([METEOR_BEYOND] if "meteor" in names else [])]


def ratios(rows: Mapping[str, Floats]) -> dict[str, Summed]:
    """The measures of N images in the form that `limner.metrics.bootstrap` sums up.

    Args:
        rows: (N,) values by `columns_of` the measures; NaN is unscored.

    Raises:
        KeyError: a name that is no measure, or what a measure is summed up from is missing.
    """
    counts = {*PARTS, *(measure.weight for measure in MEASURES.values() if measure.weight not in MEASURES)}
    return {name: _summed(name, rows) for name in rows if name not in counts}


def _summed(name: str, rows: Mapping[str, Floats]) -> Summed:
    measure = MEASURES[name]
    if measure.sums == "bleu":
        return corpus_bleu(rows, BLEU.index(name) + 1)
    if measure.sums == "meteor":
        return Ratio.mean(rows[name] + rows[METEOR_BEYOND])
    if measure.weight is not None:
        return Ratio.pooled(rows[name], rows[measure.weight])
    return Ratio.total(rows[name]) if measure.sums == "total" else Ratio.mean(rows[name])


def written(name: str, value: float) -> str:
    """A value of a measure as tables show it; a dash where there is none."""
    return f"{_number(name, value)}{'%' if MEASURES[name].percent else ''}" if value == value else "-"


def written_interval(name: str, interval: Interval) -> str:
    """The 95% interval of a measure as tables show it, in the unit of `written`."""
    return f"[{_number(name, interval.low)}, {_number(name, interval.high)}]" if interval.n else "-"


def written_change(name: str, change: Interval) -> str:
    """A difference between two systems in words, clear where its 95% interval leaves out 0."""
    if change.n == 0:
        return "no image is scored in both"
    if change.low > SAME:
        verdict = "clearly higher"
    elif change.high < -SAME:
        verdict = "clearly lower"
    elif max(abs(change.value), abs(change.low), abs(change.high)) <= SAME:
        return "no difference"
    else:
        verdict = "no clear difference"
    unit = " points" if MEASURES[name].percent else ""
    return f"{verdict}: {_number(name, change.value, sign='+')}{unit} {written_interval(name, change)}"


def _number(name: str, value: float, *, sign: str = "-") -> str:
    """In the unit of tables; `z` writes no minus before a zero."""
    measure = MEASURES[name]
    digits = 1 if measure.percent else 0 if measure.sums == "total" else 3
    return f"{100 * value if measure.percent else value:{sign}z.{digits}f}"
