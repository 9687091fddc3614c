"""How much captions repeat each other: distinct-n and self-BLEU."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from limner.errors import UserError
from limner.metrics.bleu import of_counts
from limner.metrics.ngrams import ORDERS, Counts, Floats, Ints, check_words, count


class Distinct(NamedTuple):
    """The different n-grams of N captions, shared out among the captions."""

    shares: Floats
    """(N,) for each different n-gram 1 / captions that hold it; sums to the number of different n-grams."""
    ngrams: Ints
    """(N,) n-grams of the caption, repetitions included."""

    @property
    def value(self) -> float:
        """distinct-n, 0 to 1: different n-grams / n-grams; NaN without any."""
        total = int(self.ngrams.sum())
        return float(self.shares.sum()) / total if total else float("nan")


def distinct(captions: Sequence[Sequence[str]], n: int) -> Distinct:
    """distinct-n of N captions together (Li et al. 2016, arXiv 1510.03055).

    The paper divides by words; this divides by n-grams, so that captions that repeat nothing have 1.

    Args:
        captions: as words.
        n: words an n-gram, 1 to 4.

    Raises:
        UserError: another n, or a caption that is not split into words.
    """
    if not 1 <= n <= ORDERS:
        raise UserError(f"distinct-{n}: n goes from 1 to {ORDERS}")
    check_words(captions, "caption")
    grams = count(captions)
    order = grams.orders[n - 1]
    holders = np.bincount(order.gram)
    shares: Floats = np.bincount(order.caption, 1 / holders[order.gram], len(captions)).astype(np.float64)
    return Distinct(shares, np.maximum(0, grams.lengths - n + 1))


def self_bleu(captions: Sequence[Sequence[str]], *, groups: Sequence[Hashable] | None = None) -> Floats:
    """BLEU-1 to BLEU-4 of each caption with all the others as its references (Zhu et al. 2018, 1802.01886).

    Equal to `bleu.bleu` with those references, but made from one count of all captions. High is alike.

    Args:
        captions: (N) captions as words.
        groups: (N) captions are compared within their group only (the captions of one image); None is one
            group.

    Returns:
        (N, 4); NaN where a caption is alone.

    Raises:
        UserError: numbers of captions and groups differ, or a caption is not split into words.
    """
    if groups is not None and len(groups) != len(captions):
        raise UserError(f"there are {len(captions)} captions and {len(groups)} groups")
    check_words(captions, "caption")
    numbers: dict[Hashable, int] = {}
    names = groups if groups is not None else [0] * len(captions)
    group = np.fromiter((numbers.setdefault(name, len(numbers)) for name in names), np.int64, len(captions))
    grams = count(captions)
    matches = np.stack([_matches(order, group) for order in grams.orders], 1)
    guesses = np.maximum(0, grams.lengths[:, None] - np.arange(ORDERS))
    scores = of_counts(matches, guesses, grams.lengths, _closest(grams.lengths, group))
    scores[np.bincount(group)[group] == 1] = np.nan
    return scores


def _matches(order: Counts, group: Ints) -> Ints:
    """(N,) n-grams of each caption that another of its group has, at most as often as one of those has it."""
    size = int(order.gram.max(initial=0)) + 1
    key = group[order.caption] * size + order.gram
    ranked = np.lexsort((-order.times, key))
    first = np.diff(key[ranked], prepend=-1) != 0
    run = np.cumsum(first) - 1
    most = order.times[ranked][first][run]
    second = np.append(np.where(first, 0, order.times[ranked]), 0)
    others = np.where(first, second[1:], most)
    matched = np.minimum(order.times[ranked], others)
    return np.bincount(order.caption[ranked], matched, len(group)).astype(np.int64)


def _closest(lengths: Ints, group: Ints) -> Ints:
    """(N,) the length among the others of the group that is closest to a caption's; the shorter of two."""
    found = np.zeros(len(lengths), dtype=np.int64)
    by_group = np.argsort(group, kind="stable")
    for rows in np.split(by_group, np.cumsum(np.bincount(group))[:-1]):
        held: Counter[int] = Counter(lengths[rows].tolist())
        different = sorted(held)
        for row in rows.tolist():
            own = int(lengths[row])
            at = bisect_left(different, own)
            near = [own] if held[own] > 1 else different[max(0, at - 1) : at] + different[at + 1 : at + 2]
            found[row] = min(near, key=lambda length: (abs(length - own), length), default=0)
    return found
