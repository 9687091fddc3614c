"""ROUGE-L of captions, as pycocoevalcap 1.2 computes it.

Lin 2004 (ACL W04-1013): the longest common subsequence of words, as a share of the candidate (precision) and
of a reference (recall). pycocoevalcap takes the best precision and the best recall over the references, each
from the reference that gives it, and joins them with beta = 1.2. A corpus has the mean of its captions.

The length of the subsequence is counted with one integer as a row of bits (Hyyro 2004, "Bit-parallel
LCS-length computation revisited"), so that a reference costs a few operations a word instead of a table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from limner.metrics.ngrams import Empty, Floats, check

_BETA_SQUARED = 1.2**2


def rouge_l(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    *,
    empty: Empty = "score",
) -> Floats:
    """ROUGE-L of each caption, 0 to 1.

    Args:
        candidates: (N) captions as words, one for each image.
        references: (N, R_i) captions as words, one or more for each image.
        empty: "score" takes a caption of no words for one empty word, as pycocoevalcap does: an empty
            candidate gets 0, but 1 where a reference is empty too; "refuse" refuses both.

    Returns:
        (N,).

    Raises:
        UserError: see `ngrams.check`.
    """
    check(candidates, references, empty=empty)
    return np.array([_score(*each) for each in zip(candidates, references, strict=True)], dtype=np.float64)


def _score(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """F of the best precision and the best recall."""
    words = " ".join(candidate).split(" ")
    places: dict[str, int] = {}
    for number, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << number
    longest, recall = 0, 0.0
    for reference in references:
        others = " ".join(reference).split(" ")
        common = _common(places, len(words), others)
        longest = max(longest, common)
        recall = max(recall, common / len(others))
    if not longest:
        return 0.0
    precision = longest / len(words)
    return (1 + _BETA_SQUARED) * precision * recall / (recall + _BETA_SQUARED * precision)


def _common(places: dict[str, int], length: int, others: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    Args:
        places: for each word of the candidate the bits of its positions.
        length: words of the candidate.
        others: words of the reference.
    """
    full = (1 << length) - 1
    row = full
    for word in others:
        if here := places.get(word, 0) & row:
            row = (row + here) | (row - here)
    return length - (row & full).bit_count()
