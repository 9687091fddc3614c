"""What every advantage must hold; formulas against numpy written from the paper."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limner import component
from limner.advantages import base
from limner.advantages.base import suffix_sums
from limner.advantages.constant import Advantage as Constant
from limner.advantages.group import zero_spread
from limner.advantages.group_relative import Advantage as GroupRelative
from limner.advantages.leave_one_out import Advantage as LeaveOneOut
from limner.advantages.self_critical import Advantage as SelfCritical
from limner.advantages.token_returns import Advantage as TokenReturns
from limner.rewards.base import NoInputs
from limner.types import Part, Rollouts, Sample, Scores, Words

ON_DISK: dict[str, list[base.Advantage]] = {
    "token_returns": [TokenReturns(), TokenReturns(gamma=0.9, normalise=False)],
    "self_critical": [
        SelfCritical(baseline="greedy"), SelfCritical(baseline="mean"), SelfCritical(baseline="leave_one_out")
    ],
    "constant": [Constant()],
    "group_relative": [
        GroupRelative(), GroupRelative(scale="batch"), GroupRelative(scale="none"),
        GroupRelative(kl=0.1, truncated="penalise"),
    ],
    "leave_one_out": [LeaveOneOut(), LeaveOneOut(normalise=True)],
}  # fmt: skip
ALL = [advantage for group in ON_DISK.values() for advantage in group]
GROUPED = [
    SelfCritical(baseline="mean"), SelfCritical(baseline="leave_one_out"),
    *ON_DISK["group_relative"], *ON_DISK["leave_one_out"],
]  # fmt: skip
"""Advantages against the other captions of the sample."""
GREEDY = [advantage for advantage in ALL if "greedy" in advantage.needs]


def test_every_advantage_on_disk_is_tested() -> None:
    assert set(component.available("advantages")) == set(ON_DISK)
    assert GREEDY


def rollouts(
    lengths: list[int],
    width: int,
    *,
    values: torch.Tensor | None = None,
    captions: int = 1,
    ended: list[bool] | None = None,
) -> Rollouts:
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    n = len(lengths)
    return Rollouts(
        tuple(Sample(str(i), ()) for i in range(n // captions)), NoInputs(n // captions),
        torch.zeros(n, width, dtype=torch.long), mask, torch.zeros(n, width),
        torch.ones(n, dtype=torch.bool) if ended is None else torch.tensor(ended), ("",) * n,
        (Words((), ()),) * n, values=values, reference_logprobs=torch.zeros(n, width),
    )  # fmt: skip


def scores(
    rewards: torch.Tensor, scored: list[bool] | None = None, *, greedy: torch.Tensor | None = None
) -> Scores:
    kept = torch.ones(len(rewards), dtype=torch.bool) if scored is None else torch.tensor(scored)
    return Scores({"x": Part(rewards.sum(1))}, rewards * kept[:, None], kept, greedy)


def batch(lengths: list[int], extra: int = 0) -> tuple[Rollouts, Scores]:
    """Two samples' captions with rewards on their last tokens, `extra` columns of padding after them."""
    width = max(lengths) + extra
    generator = torch.Generator().manual_seed(sum(lengths))
    rewards = torch.zeros(len(lengths), width)
    rewards[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = torch.randn(
        len(lengths), generator=generator
    )
    return rollouts(lengths, width, captions=len(lengths) // 2), scores(rewards, greedy=torch.randn(2))


cases = st.lists(st.integers(1, 6), min_size=2, max_size=5)
groups = st.lists(st.integers(1, 6), min_size=4, max_size=8).filter(lambda lengths: len(lengths) % 2 == 0)


@settings(max_examples=50)
@given(lengths=cases, gamma=st.sampled_from([1.0, 0.9, 0.0]), seed=st.integers(0, 1000))
def test_token_returns_equal_the_papers_formula(lengths: list[int], gamma: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    rewards = torch.randn(len(lengths), width, generator=generator) * mask
    values = torch.randn(len(lengths), width, generator=generator) * mask
    got = TokenReturns(gamma=gamma)(rollouts(lengths, width, values=values), scores(rewards))
    flat, where = [], []
    for n, length in enumerate(lengths):
        for k in range(length):
            ret = sum(gamma ** (s - k) * float(rewards[n, s]) for s in range(k, length))
            flat.append(ret - float(values[n, k]))
            where.append((n, k))
    expected = (np.array(flat) - np.mean(flat)) / (np.std(flat) + 1e-8)
    assert [float(got.advantages[w]) for w in where] == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-4)
    assert not got.advantages[~got.target_mask].any()


@pytest.mark.parametrize("advantage", ALL, ids=str)
@settings(max_examples=20)
@given(lengths=groups, extra=st.integers(1, 4))
def test_padding_columns_change_nothing(advantage: base.Advantage, lengths: list[int], extra: int) -> None:
    narrow_rollouts, narrow_scores = batch(lengths)
    wide_rollouts, wide_scores = batch(lengths, extra)
    narrow = advantage(narrow_rollouts, narrow_scores)
    wide = advantage(wide_rollouts, dataclasses.replace(wide_scores, greedy=narrow_scores.greedy))
    width = max(lengths)
    torch.testing.assert_close(wide.advantages[:, :width], narrow.advantages)
    assert not wide.target_mask[:, width:].any()
    assert not wide.advantages[~wide.target_mask].any()


@pytest.mark.parametrize("advantage", ALL, ids=str)
def test_unscored_captions_change_nothing_for_others_and_earn_nothing(advantage: base.Advantage) -> None:
    rewards = torch.tensor(
        [[0.0, 1.0], [0.0, 3.0], [0.0, 100.0], [0.0, 5.0], [0.0, 2.0], [0.0, float("inf")]]
    )
    greedy = torch.tensor([0.5, 0.25])
    with_them = advantage(
        rollouts([2] * 6, 2, captions=3),
        scores(rewards.nan_to_num(0, 0, 0), [True, True, False] * 2, greedy=greedy),
    )
    kept = torch.tensor([0, 1, 3, 4])
    without = advantage(rollouts([2] * 4, 2, captions=2), scores(rewards[kept], greedy=greedy))
    torch.testing.assert_close(with_them.advantages[kept], without.advantages)
    assert with_them.target_mask.tolist() == [[True] * 2, [True] * 2, [False] * 2] * 2
    assert not with_them.advantages[[2, 5]].any()


@pytest.mark.parametrize("advantage", ALL, ids=str)
@settings(max_examples=20)
@given(lengths=groups, order=st.randoms(use_true_random=False))
def test_permuted_captions_of_a_sample_have_permuted_advantages(
    advantage: base.Advantage, lengths: list[int], order
) -> None:
    plain_rollouts, plain_scores = batch(lengths)
    size = len(lengths) // 2
    within = [list(range(start, start + size)) for start in (0, size)]
    for rows in within:
        order.shuffle(rows)
    rows = torch.tensor([*within[0], *within[1]])
    mixed_rollouts = plain_rollouts.replace(caption_mask=plain_rollouts.caption_mask[rows])
    mixed_scores = dataclasses.replace(
        plain_scores, rewards=plain_scores.rewards[rows], scored=plain_scores.scored[rows]
    )
    plain, mixed = advantage(plain_rollouts, plain_scores), advantage(mixed_rollouts, mixed_scores)
    # sums in another order
    torch.testing.assert_close(mixed.advantages, plain.advantages[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("advantage", GROUPED, ids=str)
@settings(max_examples=30)
@given(rewards=st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=6))
def test_advantages_against_the_group_sum_to_zero(advantage: base.Advantage, rewards: list[float]) -> None:
    n = len(rewards)
    # in double precision: what the mean is off by is divided by a standard deviation that may be 0
    earned = torch.tensor(rewards, dtype=torch.double)[:, None]
    got = advantage(rollouts([1] * n, 1, captions=n), scores(earned))
    assert float(got.advantages.sum()) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("advantage", GREEDY, ids=str)
@given(lengths=groups)
def test_a_sample_as_good_as_the_greedy_caption_earns_zero(
    advantage: base.Advantage, lengths: list[int]
) -> None:
    rolled, scored = batch(lengths)
    firsts = scored.totals.view(2, -1)[:, 0]
    got = advantage(rolled, dataclasses.replace(scored, greedy=firsts)).advantages.view(2, -1, max(lengths))
    assert not got[:, 0].any()
    others = scored.totals.view(2, -1)[:, 1:] - firsts[:, None]
    torch.testing.assert_close(got[:, 1:, 0], others)


def test_self_critical_values_by_hand() -> None:
    """Two samples of three captions, CIDErs .2 .5 .8 and 1 1 .1; greedy captions .4 and 1.2."""
    totals = torch.tensor([0.2, 0.5, 0.8, 1.0, 1.0, 0.1])
    rolled = rollouts([1] * 6, 1, captions=3)
    expected = {
        "greedy": [-0.2, 0.1, 0.4, -0.2, -0.2, -1.1],
        "mean": [-0.3, 0.0, 0.3, 0.3, 0.3, -0.6],
        "leave_one_out": [-0.45, 0.0, 0.45, 0.45, 0.45, -0.9],
    }
    for baseline, values in expected.items():
        got = SelfCritical(baseline=baseline)(  # type: ignore[arg-type]
            rolled, scores(totals[:, None], greedy=torch.tensor([0.4, 1.2]))
        )
        assert got.advantages[:, 0].tolist() == pytest.approx(values, abs=1e-6), baseline


def test_a_caption_without_a_baseline_takes_no_part() -> None:
    rolled = rollouts([1] * 4, 1, captions=2)
    rewards, nan = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), float("nan")
    one_unscored = scores(rewards, [True, False, True, True], greedy=torch.tensor([1.0, nan]))
    taken = {
        "greedy": [True, False, False, False],
        "mean": [True, False, True, True],
        "leave_one_out": [False, False, True, True],
    }
    for baseline, mask in taken.items():
        got = SelfCritical(baseline=baseline)(rolled, one_unscored)  # type: ignore[arg-type]
        assert got.target_mask[:, 0].tolist() == mask, baseline
        assert got.advantages.isfinite().all()


TOTALS = [0.2, 0.5, 0.8, 1.0, 1.0, 1.0]
"""Two samples of three captions; all of the second earned the same."""


def taken(advantage: base.Advantage, totals: list[float], **known: list[bool]) -> list[float | None]:
    """The advantage of each caption of samples of three; None where it takes no part."""
    scored = known.pop("scored", None)
    got = advantage(
        rollouts([1] * len(totals), 1, captions=3, **known),  # type: ignore[arg-type]
        scores(torch.tensor(totals)[:, None], scored),
    )
    pairs = zip(got.advantages[:, 0].tolist(), got.target_mask[:, 0].tolist(), strict=True)
    return [value if part else None for value, part in pairs]


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [
        (GroupRelative(), [-0.3 / 0.3001, 0, 0.3 / 0.3001, 0, 0, 0]),
        (GroupRelative(scale="none"), [-0.3, 0, 0.3, 0, 0, 0]),
        (GroupRelative(scale="batch"), [-0.3 / 0.33327, 0, 0.3 / 0.33327, 0, 0, 0]),
        (LeaveOneOut(), [-0.45, 0, 0.45, 0, 0, 0]),
        (LeaveOneOut(normalise=True), [-0.45 / 0.28470, 0, 0.45 / 0.28470, 0, 0, 0]),
    ],
    ids=str,
)
def test_group_values_by_hand(advantage: base.Advantage, expected: list[float]) -> None:
    assert taken(advantage, TOTALS) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", [GroupRelative, LeaveOneOut])
def test_a_truncated_caption_is_kept_masked_or_penalised(kind) -> None:
    ended = [True, True, False, True, True, True]
    plain = taken(kind(), TOTALS)
    assert taken(kind(), TOTALS, ended=ended) == plain
    assert taken(kind(truncated="mask"), TOTALS, ended=ended) == [*plain[:2], None, *plain[3:]]
    penalised = [*TOTALS[:2], TOTALS[2] - 0.7, *TOTALS[3:]]
    got = taken(kind(truncated="penalise", truncated_penalty=0.7), TOTALS, ended=ended)
    assert got == pytest.approx(taken(kind(), penalised), abs=1e-6)


@pytest.mark.parametrize("kind", [GroupRelative, LeaveOneOut])
def test_a_sample_without_spread_is_kept_or_dropped(kind) -> None:
    plain = taken(kind(), TOTALS)
    assert plain[3:] == [0, 0, 0]
    assert taken(kind(zero_spread="drop"), TOTALS) == [*plain[:3], None, None, None]


@pytest.mark.parametrize("kind", [GroupRelative, LeaveOneOut])
def test_an_unscored_caption_is_left_out_or_takes_its_sample_with_it(kind) -> None:
    scored = [True, False, True, True, True, True]
    left_out = taken(kind(), TOTALS, scored=scored)
    assert left_out[1] is None
    assert left_out[0] == pytest.approx(-left_out[2])
    assert taken(kind(unscored="drop_group"), TOTALS, scored=scored) == [None, None, None, *left_out[3:]]


@pytest.mark.parametrize("kind", [GroupRelative, LeaveOneOut])
@pytest.mark.parametrize("settings", [{}, {"zero_spread": "drop"}])
def test_a_caption_scored_alone_in_its_sample_has_nothing_to_be_compared_with(kind, settings) -> None:
    scored = [False, True, False, True, True, True]
    expected = [None, None, None, *taken(kind(**settings), TOTALS)[3:]]
    assert taken(kind(**settings), TOTALS, scored=scored) == expected
    assert taken(kind(**settings), TOTALS, scored=[False] * 6) == [None] * 6


@pytest.mark.parametrize("kind", [GroupRelative, LeaveOneOut])
def test_the_kl_in_the_reward_is_the_whole_captions_log_ratio(kind) -> None:
    rolled = rollouts([1, 2, 3], 3, captions=3)
    now, start = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(5))
    rolled = rolled.replace(logprobs=now, reference_logprobs=start)
    earned = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 4.0]])
    nats = torch.stack([(now - start)[n, : n + 1].sum() for n in range(3)])
    lost = scores(earned - 0.1 * torch.diag(nats))
    expected = kind()(rolled, lost).advantages
    torch.testing.assert_close(kind(kl=0.1)(rolled, scores(earned)).advantages, expected)
    assert kind(kl=0.1).needs == {"reference_logprobs"}
    assert not kind().needs
    with pytest.raises(ValueError, match="reference_logprobs"):
        kind(kl=0.1)(rolled.replace(reference_logprobs=None), scores(earned))


def test_zero_spread_is_known_of_two_scored_captions() -> None:
    nan = float("nan")
    totals = torch.tensor([[0.3, 0.1 + 0.2, 0.3], [1, nan, 1], [1, nan, 2], [nan, 5, nan], [nan] * 3])
    assert zero_spread(totals).tolist() == pytest.approx([1, 1, 0, nan, nan], nan_ok=True)


def test_constant_is_one_on_every_token() -> None:
    got = Constant()(rollouts([1, 3], 3), scores(torch.zeros(2, 3)))
    assert got.advantages.tolist() == [[1, 0, 0], [1, 1, 1]]


def test_a_terminal_reward_gives_constant_returns() -> None:
    rewards = torch.zeros(2, 4)
    rewards[0, 3], rewards[1, 1] = 2.5, -1.0
    got = TokenReturns(normalise=False)(rollouts([4, 2], 4), scores(rewards))
    assert got.advantages.tolist() == [[2.5] * 4, [-1.0, -1.0, 0.0, 0.0]]


@given(gamma=st.floats(0, 1), seed=st.integers(0, 1000))
def test_suffix_sums_follow_the_bellman_equation(gamma: float, seed: int) -> None:
    rewards = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
    sums = suffix_sums(rewards, gamma)
    torch.testing.assert_close(sums[:, :-1], rewards[:, :-1] + gamma * sums[:, 1:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums[:, -1], rewards[:, -1])
