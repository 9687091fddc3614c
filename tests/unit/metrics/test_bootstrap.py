"""Bootstrap intervals: against theory, scipy, and what resampling images must keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from limner.metrics.bootstrap import Ratio, intervals, paired


def interval(ratio: Ratio, **settings):
    return intervals({"x": ratio}, **settings)["x"]


def test_mean_against_normal_theory():
    values = np.random.default_rng(0).normal(3, 2, 4000)
    found = interval(Ratio.mean(values))
    error = values.std() / np.sqrt(4000)
    assert found.value == pytest.approx(values.mean(), abs=1e-12)
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert found.n == 4000


def test_pooled_ratio_against_scipy():
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 9, 300).astype(float)
    values = np.where(weights == 0, np.nan, rng.random(300))

    def ratio(w, v):
        return np.nansum(w * v) / np.sum(w)

    theirs = stats.bootstrap(
        (weights, values), ratio, paired=True, vectorized=False, method="percentile", n_resamples=4000, rng=2
    ).confidence_interval
    found = interval(Ratio.pooled(values, weights), resamples=4000)
    assert found.value == pytest.approx(ratio(weights, values))
    width = theirs.high - theirs.low
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.08 * width)


def test_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(300):
        found = interval(Ratio.mean((rng.random(200) < 0.3).astype(float)), seed=trial, resamples=400)
        covered += found.low <= 0.3 <= found.high
    assert 0.91 <= covered / 300 <= 0.985


@pytest.mark.parametrize(("kinds", "least", "most"), [(300, 0.8, 1.3), (3000, 0.65, 0.9)])
def test_the_width_for_a_count_of_distinct_captions_against_new_sets(kinds: int, least: float, most: float):
    # Sets of 400 captions drawn among `kinds`: how far does the number of different ones really vary?
    rng = np.random.default_rng(4)
    counts, widths = [], []
    for trial in range(200):
        _, place, many = np.unique(rng.integers(kinds, size=400), return_inverse=True, return_counts=True)
        found = interval(Ratio.total(1 / many[place]), seed=trial, resamples=200)
        assert found.value == pytest.approx(len(many))
        counts.append(found.value)
        widths.append(found.high - found.low)
    assert least < np.mean(widths) / (2 * 1.96 * np.std(counts)) < most


def test_no_repetition_gives_no_width():
    assert interval(Ratio.total(np.ones(50))).low == pytest.approx(50)


def test_unscored_images_count_for_nothing():
    values = np.array([1.0, np.nan, 3.0, np.nan])
    found = interval(Ratio.mean(values))
    assert (found.value, found.n) == (2, 2)
    assert (found.low, found.high) == (1, 3)
    nothing = interval(Ratio.mean(np.full(3, np.nan)))
    assert nothing.n == 0
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    assert interval(Ratio.mean(np.zeros(0))).n == 0
    assert interval(Ratio.pooled(np.full(3, np.nan), np.zeros(3))).n == 0


def test_values_that_cannot_be_summed_are_refused():
    with pytest.raises(ValueError, match="weight other than 0"):
        Ratio.pooled(np.array([np.nan, 1]), np.array([1.0, 1]))
    with pytest.raises(ValueError, match="every image"):
        Ratio.total(np.array([np.nan, 1]))


def test_an_interval_depends_on_the_seed_and_on_no_other_measure():
    a, b = np.random.default_rng(5).random((2, 100))
    alone = interval(Ratio.mean(a))
    among = intervals({"b": Ratio.mean(b), "x": Ratio.mean(a)})["x"]
    assert (among.low, among.high) == pytest.approx((alone.low, alone.high), abs=1e-12)
    assert interval(Ratio.mean(a)) == alone
    assert interval(Ratio.mean(a), seed=1) != alone


def test_chunks_change_nothing(monkeypatch):
    values = np.random.default_rng(6).random(50)
    whole = interval(Ratio.mean(values), resamples=300)
    monkeypatch.setattr("limner.metrics.bootstrap._CELLS", 50 * 100)
    chunks = interval(Ratio.mean(values), resamples=300)
    assert (chunks.low, chunks.high) == pytest.approx((whole.low, whole.high), abs=0.02)
    assert chunks.value == whole.value


def test_pairs_are_much_narrower_than_two_sets():
    rng = np.random.default_rng(7)
    hard = rng.normal(0, 10, 500)
    before, after = hard + rng.normal(0, 1, 500), hard + 1 + rng.normal(0, 1, 500)
    found = paired({"x": Ratio.mean(before)}, {"x": Ratio.mean(after)})["x"]
    error = (after - before).std() / np.sqrt(500)
    assert found.value == pytest.approx((after - before).mean())
    assert (found.low, found.high) == pytest.approx(
        (found.value - 1.96 * error, found.value + 1.96 * error), abs=0.3 * error
    )


def test_equal_systems_differ_by_exactly_nothing():
    rng = np.random.default_rng(8)
    weights = rng.integers(0, 3, 77).astype(float)
    system = {
        "mean": Ratio.mean(rng.random(77)),
        "pooled": Ratio.pooled(rng.random(77), weights),
        "total": Ratio.total(rng.random(77)),
    }
    for found in paired(system, dict(system)).values():
        assert (found.value, found.low, found.high) == (0, 0, 0)


def test_an_image_unscored_in_one_system_is_left_out_of_both():
    first = {"x": Ratio.mean(np.array([1.0, np.nan, 5.0])), "only_first": Ratio.mean(np.ones(3))}
    second = {"x": Ratio.mean(np.array([2.0, 100.0, np.nan]))}
    found = paired(first, second)
    assert list(found) == ["x"]
    assert (found["x"].value, found["x"].n) == (1, 1)


def test_pairs_of_pooled_ratios_keep_images_where_one_system_states_nothing():
    first = {"x": Ratio.pooled(np.array([np.nan, 1.0]), np.array([0.0, 2.0]))}
    second = {"x": Ratio.pooled(np.array([0.0, 1.0]), np.array([2.0, 2.0]))}
    found = paired(first, second)["x"]
    assert (found.value, found.n) == (-0.5, 2)


@settings(max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6) | st.just(np.nan), min_size=1, max_size=30), st.integers(0, 5))
def test_intervals_lie_within_the_values(values: list[float], seed: int):
    found = interval(Ratio.mean(np.array(values)), seed=seed, resamples=100)
    kept = [value for value in values if not np.isnan(value)]
    assert found.n == len(kept)
    if kept:
        slack = 1e-9 * (1 + max(map(abs, kept)))
        assert min(kept) - slack <= found.low <= found.high <= max(kept) + slack


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(0, 100))
def test_swapping_the_systems_swaps_the_sign(images: int, seed: int):
    a, b = np.random.default_rng(seed).random((2, images))
    there = paired({"x": Ratio.mean(a)}, {"x": Ratio.mean(b)}, resamples=50)["x"]
    back = paired({"x": Ratio.mean(b)}, {"x": Ratio.mean(a)}, resamples=50)["x"]
    assert there.value == -back.value
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
