"""How likely counts are by chance: the chi-square test without scipy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

LEAST = 5.0
"""Fewest expected in every cell for the test to mean anything."""


@dataclass(frozen=True)
class ChiSquare:
    """Counts against what is expected of them."""

    statistic: float
    """Sum of (count - expected)^2 / expected."""
    freedom: int
    """Cells less one."""
    p: float
    """Probability of a statistic as large by chance; NaN where less than `LEAST` are expected somewhere."""


def chi_square(counts: Mapping[str, int], expected: Mapping[str, float]) -> ChiSquare:
    """The test over the cells in which anything is expected."""
    cells = [(counts.get(key, 0), value) for key, value in expected.items() if value > 0]
    statistic = sum((count - value) ** 2 / value for count, value in cells)
    freedom = max(len(cells) - 1, 0)
    enough = freedom > 0 and min(value for _, value in cells) >= LEAST
    return ChiSquare(statistic, freedom, above(statistic, freedom) if enough else math.nan)


def above(statistic: float, freedom: int) -> float:
    """Probability that a chi-square variable is above a value.

    Closed forms for whole degrees of freedom: Abramowitz and Stegun 26.4.4 and 26.4.5.
    """
    half = statistic / 2
    if freedom % 2 == 0:
        total = term = math.exp(-half)
        for k in range(1, freedom // 2):
            term *= half / k
            total += term
        return min(total, 1.0)
    total = math.erfc(math.sqrt(half))
    term = math.exp(-half) * math.sqrt(half) / math.gamma(1.5)
    for k in range(1, (freedom + 1) // 2):
        total += term
        term *= half / (k + 0.5)
    return min(total, 1.0)
