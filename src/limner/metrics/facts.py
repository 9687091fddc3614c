"""How true and how complete captions of the miniature world are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from limner.metrics.phrases import is_mark, normal, word_spans
from limner.world.scenes import Scene
from limner.world.truth import Truth, check

Floats = npt.NDArray[np.float64]


def truth_of(caption: str, scene: Scene) -> Truth:
    """What a caption says of a scene; case and punctuation at words' ends do not matter.

    The places of its facts count the words of `caption.split()`.
    """
    return check(scene, " ".join(_bare(word) for word in caption.split()))


def fact_measures(truths: Sequence[Truth]) -> dict[str, Floats]:
    """Measures of N captions that were held against the scenes they describe.

    Args:
        truths: of each caption, from `truth_of`.

    Returns:
        (N,) values by name:

        * "facts_stated", "relations_stated": claims made, true or false.
        * "facts_true", "relations_true": share of these that hold; NaN where none is made.
        * "coverage": share of the scene's facts that are stated.
        * "facts_f1": harmonic mean of facts_true and coverage; 0 where either is 0 or nothing is stated.
    """
    names = ("facts_stated", "facts_true", "relations_stated", "relations_true", "coverage", "facts_f1")
    columns = np.array([_row(truth) for truth in truths], dtype=np.float64).reshape(-1, len(names)).T
    return dict(zip(names, columns, strict=True))


def _row(truth: Truth) -> tuple[float, ...]:
    stated, relations = len(truth.stated), truth.relations_stated
    relations_true = truth.relations_true / relations if relations else np.nan
    precise = truth.share_true if stated else 0.0
    total = precise + truth.coverage
    f1 = 2 * precise * truth.coverage / total if total else 0.0
    return stated, truth.share_true, relations, relations_true, truth.coverage, f1


def _bare(word: str) -> str:
    """A word without marks before and after it; marks alone stay, so that the words keep their number."""
    inner = [span for span in word_spans(word) if not is_mark(word[slice(*span)])]
    return normal(word[inner[0][0] : inner[-1][1]]) if inner else word
