"""Random numbers of each row's own, for what must not depend on the rows beside it: servers, and ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from limner.answering.draw import number

Watch = Callable[[list[int], list[int], list[bool]], None]
"""Called after every step with the rows that still grow or grew last, their new tokens, and which ended."""


class Stepwise(torch.Generator):
    """Given as `generator`, it draws the tokens of row n from seed n alone, and shows each step to `watch`.

    What a row is given does then not depend on the rows beside it, but for the float rounding of a model
    that computes another batch: a draw falls onto the border between two tokens about once in a million.
    """

    def __new__(cls, seeds: Sequence[int], watch: Watch | None = None) -> Self:
        """A generator of torch, whose own numbers are not used."""
        return super().__new__(cls)

    def __init__(self, seeds: Sequence[int], watch: Watch | None = None):
        """One seed a row. What `watch` raises ends the decoding; None watches nothing."""
        self.seeds, self.watch = seeds, watch

    def draw(self, shares: torch.Tensor, rows: torch.Tensor, place: int) -> torch.Tensor:
        """(lines,) a token a line.

        Args:
            shares: (lines, V) probabilities.
            rows: (lines,) the row of each line.
            place: how many tokens a row has already.
        """
        # 53 bits are what a float holds below 1: a draw of 1 would lie behind the last token.
        numbers = [(number(self.seeds[row], place) >> 11) / 2**53 for row in rows.tolist()]
        near = shares.cpu() if shares.device.type == "mps" else shares  # which has no float64
        return placed(near, torch.tensor(numbers, dtype=torch.float64).to(near.device)).to(shares.device)

    def see(self, rows: torch.Tensor, chosen: torch.Tensor, ended: torch.Tensor) -> None:
        """Show (lines,) rows with their tokens, and whether they have come to their end."""
        if self.watch is not None:
            self.watch(rows.tolist(), chosen.tolist(), ended.tolist())


def drawn(shares: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """(lines,) a token a line, drawn from (lines, V) probabilities by one stream of random numbers."""
    if shares.device.type != "cpu":
        return torch.multinomial(shares, 1, generator=generator)[:, 0]
    # Which draws a number for every token of the vocabulary, one after the other on a CPU.
    return placed(shares, torch.rand(len(shares), dtype=torch.float64, generator=generator))


def placed(shares: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """(lines,) the tokens on which (lines,) float64 numbers from 0 to below 1 fall.

    Args:
        shares: (lines, V) probabilities; what they are short of 1 makes no difference.
        numbers: one a line.
    """
    heaps = shares.cumsum(-1, dtype=torch.float64)
    chosen = torch.searchsorted(heaps, numbers[:, None] * heaps[:, -1:], right=True)[:, 0]
    return chosen.clamp(max=shares.shape[1] - 1)


@dataclass(frozen=True)
class SampleDraws:
    """Random numbers of each sample's own: what is drawn is the same in whatever batch the sample stands."""

    seeds: tuple[int, ...]
    """One a sample."""

    def part(self, samples: slice) -> SampleDraws:
        """Those of some of the samples."""
        return SampleDraws(self.seeds[samples])

    def rows(self, captions: int) -> Stepwise:
        """For the tokens of `captions` captions a sample."""
        return Stepwise([number(seed, caption) for seed in self.seeds for caption in range(captions)])

    def sample(self, place: int) -> torch.Generator:
        """For other draws of one sample."""
        return torch.Generator().manual_seed(self.seeds[place])
