"""Intervals of measures by resampling images: the percentile bootstrap, plain and paired.

Every measure of a set is a function of sums over its images, nearly always the ratio of two:

    mean    sum of values / images scored          how long are captions
    pooled  sum of weight * value / sum of weights  which share of all stated facts is true
    total   sum of values                           how many captions differ

Corpus BLEU is a function of more sums (`Compound`): n-gram matches, n-grams and lengths.

A count of distinct things is made a sum by giving each of the m images that share a thing 1 / m of it; the
shares stay as they are while images are resampled. (Counting anew in each resample would be biased: it
holds about 63% of the images, so that even captions without a repetition would seem to repeat.) Against new
sets this interval has about the right width when repetitions are common, and .7 of it when they are rare.

The generator is seeded and draws the same images for every measure, so that an interval depends neither on
which other measures were asked for nor on when it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

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


class Summed(Protocol):
    """A measure of N images that is a function of K sums over them."""

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """(N,), True where the image counts."""
        ...

    @property
    def sums(self) -> Floats:
        """(N, K) what is summed over images, 0 where unscored."""
        ...

    def value(self, sums: Floats) -> Floats:
        """(R, K) sums over R sets of images -> (R,) values; NaN where a set has no scored image."""
        ...

    def only(self, chosen: npt.NDArray[np.bool_]) -> Self:
        """The same over the chosen images."""
        ...


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

    @property
    def sums(self) -> Floats:
        """(N, 2) numerators and denominators."""
        return np.stack([self.numerator, self.denominator], 1)

    def value(self, sums: Floats) -> Floats:
        """(R, 2) sums -> (R,) ratios; NaN where there is nothing to divide by."""
        return _divide(sums[:, 0], sums[:, 1])

    def only(self, chosen: npt.NDArray[np.bool_]) -> Self:
        """The same over the chosen images."""
        numerator, denominator = (np.where(chosen, sums, 0.0) for sums in (self.numerator, self.denominator))
        return type(self)(numerator, denominator, self.scored & chosen)


@dataclass(frozen=True)
class Compound:
    """A measure as any function of sums over N images."""

    counts: Floats
    """(N, K) what is summed; NaN in a row: the image is unscored."""
    function: Callable[[Floats], Floats]
    """(R, K) sums over R sets, each with a scored image -> (R,) values."""

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """(N,), True where the image counts."""
        return ~np.isnan(self.counts.sum(1))

    @property
    def sums(self) -> Floats:
        """(N, K + 1): the counts, and 1 where scored."""
        scored = self.scored[:, None]
        return np.concatenate([np.where(scored, self.counts, 0.0), scored], 1, dtype=np.float64)

    def value(self, sums: Floats) -> Floats:
        """(R, K + 1) sums -> (R,) values; NaN where a set has no scored image."""
        some = sums[:, -1] > 0
        values = np.full(len(sums), np.nan)
        values[some] = self.function(sums[some, :-1])
        return values

    def only(self, chosen: npt.NDArray[np.bool_]) -> Self:
        """The same over the chosen images."""
        return type(self)(np.where(chosen[:, None], self.counts, np.nan), self.function)


def intervals(
    measures: Mapping[str, Summed], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """The value and percentile interval of every measure of one set.

    Args:
        measures: by name, all over the same N images.
        seed: of the generator.
        resamples: how often N images are drawn with replacement; draws without a scored image are left out.

    Returns:
        By name; NaN with n = 0 where nothing is scored.
    """
    set_ = _Stacked(list(measures.values()))
    drawn = [set_.values(counts @ set_.sums) for counts in _counts(len(set_.sums), seed, resamples)]
    scored = [int(measure.scored.sum()) for measure in measures.values()]
    return dict(zip(measures, _summaries(set_.whole(), drawn, scored), strict=True))


def paired(
    first: Mapping[str, Summed], second: Mapping[str, Summed], *, seed: int = 0, resamples: int = RESAMPLES
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
    a = _Stacked([first[name].only(both[name]) for name in names])
    b = _Stacked([second[name].only(both[name]) for name in names])
    # Two products of one shape: equal columns give equal bits, so that no difference is exactly 0.
    drawn = [
        b.values(counts @ b.sums) - a.values(counts @ a.sums)
        for counts in _counts(len(a.sums), seed, resamples)
    ]
    scored = [int(both[name].sum()) for name in names]
    return dict(zip(names, _summaries(b.whole() - a.whole(), drawn, scored), strict=True))


class _Stacked:
    """M measures of the same N images side by side, so that one product resamples them all."""

    def __init__(self, measures: list[Summed]):
        self.measures = measures
        parts = [measure.sums for measure in measures]
        self.ends = np.cumsum([part.shape[1] for part in parts], dtype=np.int64)
        self.sums: Floats = np.concatenate(parts, 1) if parts else np.zeros((0, 0))

    def values(self, sums: Floats) -> Floats:
        """(R, all K) sums -> (R, M) values."""
        if not self.measures:
            return np.zeros((len(sums), 0))
        parts = np.split(sums, self.ends[:-1], axis=1)
        return np.stack([m.value(part) for m, part in zip(self.measures, parts, strict=True)], 1)

    def whole(self) -> Floats:
        """(M,) values of the set itself."""
        return self.values(self.sums.sum(0, keepdims=True))[0]


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
