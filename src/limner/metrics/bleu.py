"""BLEU-1 to BLEU-4 of captions, as pycocoevalcap 1.2 computes them.

Papineni et al. 2002 (ACL P02-1040), with what pycocoevalcap's scorer adds: the reference length is the
closest one (the shorter of two equally close), 1e-15 is added to matches and 1e-9 to guesses, so that an
order without matches makes a caption's BLEU nearly but not exactly 0. The corpus value is made from the
summed counts; it is not the mean of the captions' values.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from limner.metrics.ngrams import ORDERS, Counts, Empty, Floats, Ints, check, count, find

_TINY = 1e-15
_SMALL = 1e-9


class BleuScores(NamedTuple):
    """BLEU of N captions, with the counts it is made of."""

    corpus: tuple[float, float, float, float]
    """BLEU-1, -2, -3, -4 of all captions together, 0 to 1."""
    images: Floats
    """(N, 4) BLEU-1, -2, -3, -4 of each caption alone."""
    matches: Ints
    """(N, 4) n-grams of the candidate that its references have, at most as often as one of them has it."""
    guesses: Ints
    """(N, 4) n-grams of the candidate."""
    lengths: Ints
    """(N,) words of the candidate."""
    reference_lengths: Ints
    """(N,) words of the reference whose length is closest."""


def bleu(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    *,
    empty: Empty = "score",
) -> BleuScores:
    """BLEU-1 to BLEU-4.

    Args:
        candidates: (N) captions as words, one for each image.
        references: (N, R_i) captions as words, one or more for each image.
        empty: "score" gives a candidate of no words 0, and lets a reference of no words take part in the
            choice of the closest length, as pycocoevalcap does; "refuse" refuses both.

    Raises:
        UserError: see `ngrams.check`.
    """
    check(candidates, references, empty=empty)
    images = len(candidates)
    sizes = np.fromiter(map(len, references), np.int64, images)
    grams = count([*candidates, *chain.from_iterable(references)])
    image = np.concatenate([np.arange(images), np.repeat(np.arange(images), sizes)])
    matches = np.stack([_matches(order, image, images) for order in grams.orders], 1)
    lengths = grams.lengths[:images]
    guesses = np.maximum(0, lengths[:, None] - np.arange(ORDERS))
    closest = _closest(lengths, grams.lengths[images:], sizes)
    corpus = of_counts(matches.sum(0), guesses.sum(0), lengths.sum(), closest.sum()).tolist()
    each = of_counts(matches, guesses, lengths, closest)
    return BleuScores(tuple(corpus), each, matches, guesses, lengths, closest)


def of_counts(
    matches: Ints | Floats,
    guesses: Ints | Floats,
    lengths: Ints | Floats | np.int64,
    reference_lengths: Ints | Floats | np.int64,
) -> Floats:
    """BLEU-1 to BLEU-4 from counts of one caption, or summed over captions.

    Args:
        matches: (..., 4).
        guesses: (..., 4).
        lengths: (...).
        reference_lengths: (...).

    Returns:
        (..., 4).
    """
    precisions = np.cumprod((matches + _TINY) / (guesses + _SMALL), axis=-1)
    ratio = np.asarray((lengths + _TINY) / (reference_lengths + _SMALL))
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return precisions ** (1 / np.arange(1, ORDERS + 1)) * brevity[..., None]


def _matches(order: Counts, image: Ints, images: int) -> Ints:
    """(N,) clipped matches of one order; captions below `images` are the candidates."""
    size = int(order.gram.max(initial=0)) + 1
    pair = image[order.caption] * size + order.gram
    candidates = int(np.searchsorted(order.caption, images))
    guessed, counts = pair[:candidates], order.times[:candidates]
    at = find(guessed, pair[candidates:])
    most = np.zeros(candidates, np.int64)
    np.maximum.at(most, at[at >= 0], order.times[candidates:][at >= 0])
    matched = np.minimum(most, counts)
    return np.bincount(order.caption[:candidates], matched, images).astype(np.int64)


def _closest(lengths: Ints, references: Ints, sizes: Ints) -> Ints:
    """(N,) of each image's reference lengths the one closest to its candidate's; the shorter of two."""
    far = np.abs(references - np.repeat(lengths, sizes))
    base = int(references.max(initial=0)) + 1
    return np.minimum.reduceat(far * base + references, np.cumsum(sizes) - sizes) % base
