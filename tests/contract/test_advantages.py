"""What every advantage must hold; formulas against numpy written from the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limner import component
from limner.advantages.base import suffix_sums
from limner.advantages.token_returns import Advantage as TokenReturns
from limner.rewards.base import NoInputs
from limner.types import Part, Rollouts, Sample, Scores, Words

TESTED = {"token_returns"}


def test_every_advantage_on_disk_is_tested() -> None:
    assert set(component.available("advantages")) == TESTED


def rollouts(lengths: list[int], width: int, *, values: torch.Tensor | None = None) -> Rollouts:
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    n = len(lengths)
    return Rollouts(
        tuple(Sample(str(i), ()) for i in range(n)), NoInputs(n),
        torch.zeros(n, width, dtype=torch.long), mask, torch.zeros(n, width),
        torch.ones(n, dtype=torch.bool), ("",) * n, (Words((), ()),) * n, values=values,
    )  # fmt: skip


def scores(rewards: torch.Tensor, scored: list[bool] | None = None) -> Scores:
    kept = torch.ones(len(rewards), dtype=torch.bool) if scored is None else torch.tensor(scored)
    return Scores({"x": Part(rewards.sum(1))}, rewards * kept[:, None], kept)


cases = st.lists(st.integers(1, 6), min_size=2, max_size=5)


@settings(deadline=None, max_examples=50)
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


@settings(deadline=None, max_examples=30)
@given(lengths=cases, extra=st.integers(1, 4), seed=st.integers(0, 1000))
def test_padding_columns_change_nothing(lengths: list[int], extra: int, seed: int) -> None:
    width = max(lengths)
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    rewards = torch.randn(len(lengths), width, generator=torch.Generator().manual_seed(seed)) * mask
    narrow = TokenReturns()(rollouts(lengths, width), scores(rewards))
    wide = TokenReturns()(
        rollouts(lengths, width + extra), scores(torch.nn.functional.pad(rewards, (0, extra)))
    )
    torch.testing.assert_close(wide.advantages[:, :width], narrow.advantages)
    assert not wide.target_mask[:, width:].any()


def test_a_terminal_reward_gives_constant_returns() -> None:
    rewards = torch.zeros(2, 4)
    rewards[0, 3], rewards[1, 1] = 2.5, -1.0
    got = TokenReturns(normalise=False)(rollouts([4, 2], 4), scores(rewards))
    assert got.advantages.tolist() == [[2.5] * 4, [-1.0, -1.0, 0.0, 0.0]]


def test_unscored_captions_take_no_part() -> None:
    rewards = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 100.0]])
    with_it = TokenReturns()(rollouts([2, 2, 2], 2), scores(rewards, [True, True, False]))
    without = TokenReturns()(rollouts([2, 2], 2), scores(rewards[:2]))
    torch.testing.assert_close(with_it.advantages[:2], without.advantages)
    assert not with_it.target_mask[2].any()
    assert not with_it.advantages[2].any()


@given(gamma=st.floats(0, 1), seed=st.integers(0, 1000))
def test_suffix_sums_follow_the_bellman_equation(gamma: float, seed: int) -> None:
    rewards = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
    sums = suffix_sums(rewards, gamma)
    torch.testing.assert_close(sums[:, :-1], rewards[:, :-1] + gamma * sums[:, 1:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums[:, -1], rewards[:, -1])
