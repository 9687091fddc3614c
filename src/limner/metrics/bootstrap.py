"""Intervals of measures by resampling images: the percentile bootstrap, plain and paired.

Every measure of a set is a ratio of two sums over its images, so that one form serves all:

    mean    sum of values / images scored          how long are captions
    pooled  sum of weight * value / sum of weights  which share of all stated facts is true
    total   sum of values                           how many captions differ

A count of distinct things is made a sum by giving each of the m images that share a thing 1 / m of it; the
shares stay as they are while images are resampled. (Counting anew in each resample would be biased: it
holds about 63% of the images, so that even captions without a repetition would seem to repeat.) Against new
sets this interval has about the right width when repetitions are common, and .7 of it when they are rare.

The generator is seeded and draws the same images for every measure, so that an interval depends neither on
which other measures were asked for nor on when it is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
_CELLS = 1 << 22
"""Counts held at once: 32 MB."""


@dataclass(frozen=True)
class Interval:
    """A measure of a set with its 95% interval."""

    value: float
    """Over all scored images; NaN where there are none."""
    low: float
    """2.5% percentile over resamples."""
    high: float
    """97.5% percentile over resamples."""
    n: int
    """Images scored; 0 where they leave nothing to divide by."""


@dataclass(frozen=True)
class Ratio:
    """A measure as the ratio of two sums over N images."""

    numerator: Floats
    """(N,), 0 where unscored."""
    denominator: Floats
    """(N,), 0 where unscored."""
    scored: npt.NDArray[np.bool_]
    """(N,), True where the image counts."""

    @classmethod
    def mean(cls, values: Floats) -> Self:
        """The mean of (N,) values; NaN is unscored."""
        scored = ~np.isnan(values)
        return cls(np.where(scored, values, 0.0), scored.astype(float), scored)

    @classmethod
    def pooled(cls, values: Floats, weights: Floats) -> Self:
        """The mean of (N,) values, each with its weight.

        A NaN weight is unscored. A NaN value must have weight 0 (nothing was stated, so nothing is true).

        Raises:
            ValueError: a value is NaN though it has weight.
        """
        scored = ~np.isnan(weights)
        weights = np.where(scored, weights, 0.0)
        if np.any(np.isnan(values) & (weights != 0)):
            raise ValueError("a value without a number has a weight other than 0")
        return cls(np.where(weights == 0, 0.0, values) * weights, weights, scored)

    @classmethod
    def total(cls, values: Floats) -> Self:
        """The sum of (N,) values.

        Raises:
            ValueError: a value is NaN: a sum of some of the images says nothing.
        """
        if np.any(np.isnan(values)):
            raise ValueError("a total needs a value of every image")
        return cls(values, np.full(len(values), 1 / max(1, len(values))), np.ones(len(values), dtype=bool))

    def only(self, chosen: npt.NDArray[np.bool_]) -> Self:
        """The same over the chosen images."""
        numerator, denominator = (np.where(chosen, sums, 0.0) for sums in (self.numerator, self.denominator))
        return type(self)(numerator, denominator, self.scored & chosen)


def intervals(
    measures: Mapping[str, Ratio], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """The value and percentile interval of every measure of one set.

    Args:
        measures: by name, all over the same N images.
        seed: of the generator.
        resamples: how often N images are drawn with replacement; draws without a scored image are left out.

    Returns:
        By name; NaN with n = 0 where nothing is scored.
    """
    numerator, denominator = _stacked(measures)
    values = _divide(numerator.sum(0), denominator.sum(0))
    drawn = [_divide(c @ numerator, c @ denominator) for c in _counts(len(numerator), seed, resamples)]
    scored = [int(ratio.scored.sum()) for ratio in measures.values()]
    return dict(zip(measures, _summaries(values, drawn, scored), strict=True))


def paired(
    first: Mapping[str, Ratio], second: Mapping[str, Ratio], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """`second` minus `first` for every measure that both have, resampling images, not systems.

    The same images are drawn for both systems. An image that is unscored in one is left out of both.

    Args:
        first: measures of one system over N images.
        second: measures of the other over the same images, in the same order.
        seed: of the generator.
        resamples: how often N images are drawn.

    Raises:
        ValueError: the two have different numbers of images.
    """
    names = [name for name in first if name in second]
    both = {name: first[name].scored & second[name].scored for name in names}
    a, a_weight = _stacked({name: first[name].only(both[name]) for name in names})
    b, b_weight = _stacked({name: second[name].only(both[name]) for name in names})
    values = _divide(b.sum(0), b_weight.sum(0)) - _divide(a.sum(0), a_weight.sum(0))
    # Two products of one shape: equal columns give equal bits, so that no difference is exactly 0.
    drawn = [
        _divide(c @ b, c @ b_weight) - _divide(c @ a, c @ a_weight) for c in _counts(len(a), seed, resamples)
    ]
    scored = [int(both[name].sum()) for name in names]
    return dict(zip(names, _summaries(values, drawn, scored), strict=True))


def _stacked(measures: Mapping[str, Ratio]) -> tuple[Floats, Floats]:
    """(N, M) numerators and denominators of M measures."""
    numerators = [ratio.numerator for ratio in measures.values()]
    denominators = [ratio.denominator for ratio in measures.values()]
    if not numerators:
        return np.zeros((0, 0)), np.zeros((0, 0))
    return np.stack(numerators, 1), np.stack(denominators, 1)


def _counts(images: int, seed: int, resamples: int) -> Iterator[Floats]:
    """Chunks (r, N) of how often each image was drawn in each resample."""
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // max(1, images))
    for start in range(0, resamples if images else 0, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(float)


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _summaries(values: Floats, drawn: list[Floats], scored: list[int]) -> list[Interval]:
    stacked = np.concatenate(drawn) if drawn else np.full((0, len(values)), np.nan)
    tail = (1 - LEVEL) / 2
    summaries: list[Interval] = []
    for value, column, n in zip(values.tolist(), stacked.T, scored, strict=True):
        kept = column[~np.isnan(column)]
        low, high = np.quantile(kept, [tail, 1 - tail]).tolist() if len(kept) else (np.nan, np.nan)
        summaries.append(Interval(value, low, high, n if value == value else 0))
    return summaries
