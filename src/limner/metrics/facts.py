"""How true and how complete captions of the miniature world are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from limner.metrics.phrases import is_mark, words
from limner.world.scenes import Scene
from limner.world.truth import check

Floats = npt.NDArray[np.float64]


def fact_measures(captions: Sequence[str], scenes: Sequence[Scene]) -> dict[str, Floats]:
    """Hold N captions against the scenes they describe; case and punctuation do not matter.

    Args:
        captions: the texts.
        scenes: what each shows.

    Returns:
        (N,) values by name:

        * "facts_stated", "relations_stated": claims made, true or false.
        * "facts_true", "relations_true": share of these that hold; NaN where none is made.
        * "coverage": share of the scene's facts that are stated.
        * "facts_f1": harmonic mean of facts_true and coverage; 0 where either is 0 or nothing is stated.
    """
    rows = [_row(caption, scene) for caption, scene in zip(captions, scenes, strict=True)]
    names = ("facts_stated", "facts_true", "relations_stated", "relations_true", "coverage", "facts_f1")
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), len(names)).T
    return dict(zip(names, columns, strict=True))


def _row(caption: str, scene: Scene) -> tuple[float, ...]:
    truth = check(scene, " ".join(word for word in words(caption) if not is_mark(word)))
    stated, relations = len(truth.stated), truth.relations_stated
    relations_true = truth.relations_true / relations if relations else np.nan
    precise = truth.share_true if stated else 0.0
    total = precise + truth.coverage
    f1 = 2 * precise * truth.coverage / total if total else 0.0
    return stated, truth.share_true, relations, relations_true, truth.coverage, f1
