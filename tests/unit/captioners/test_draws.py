"""Tokens are drawn by their probabilities, whatever the numbers that choose them."""

from __future__ import annotations

import torch

from limner.captioners.stepwise import Stepwise, drawn, placed

SHARES = torch.tensor([0.0, 0.5, 0.0, 0.25, 0.125, 0.125, 0.0])


def test_every_token_has_its_share_of_the_numbers() -> None:
    numbers = torch.arange(800, dtype=torch.float64) / 800
    for scale in (1.0, 0.3):  # banned tokens leave less than 1 in all
        chosen = placed((scale * SHARES).expand(800, -1), numbers)
        assert torch.bincount(chosen, minlength=7).tolist() == (800 * SHARES).tolist()


def test_the_last_number_below_1_chooses_a_token_that_can_be() -> None:
    shares = torch.rand(2000, 50, generator=torch.Generator().manual_seed(0)).softmax(-1)
    shares[:, -1] = 0
    last = torch.full((2000,), 1 - 2**-53, dtype=torch.float64)
    for numbers in (last, torch.zeros(2000, dtype=torch.float64)):
        assert (shares.gather(1, placed(shares, numbers)[:, None]) > 0).all()


def test_one_stream_draws_by_probability_and_by_its_seed() -> None:
    lines = SHARES.expand(20000, -1)
    chosen = drawn(lines, torch.Generator().manual_seed(3))
    assert chosen.equal(drawn(lines, torch.Generator().manual_seed(3)))
    assert not chosen.equal(drawn(lines, torch.Generator().manual_seed(4)))
    counts = torch.bincount(chosen, minlength=7) / 20000
    # Five standard deviations of a share of one half.
    torch.testing.assert_close(counts, SHARES, rtol=0, atol=5 * 0.5 / 20000**0.5)


def test_a_row_draws_by_its_seed_whatever_stands_beside_it() -> None:
    together = Stepwise([5, 6, 7]).draw(SHARES.expand(3, -1), torch.arange(3), 2)
    alone = Stepwise([5, 6, 7]).draw(SHARES.expand(1, -1), torch.tensor([1]), 2)
    assert together[1] == alone[0]
