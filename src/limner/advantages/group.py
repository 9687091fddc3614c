"""What the advantages against the other captions of a sample share: baselines, and which captions count."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge

from limner.advantages import base
from limner.types import Rollouts, Scores, Targets

SAME = 1e-6
"""Rewards no further apart than this are the same."""
EPSILON = 1e-4
"""Added to every standard deviation that is divided by, as in TRL."""


@dataclass(frozen=True)
class Group(base.Advantage):
    """Rewards of the captions of one sample against each other."""

    truncated: Literal["keep", "mask", "penalise"] = "keep"
    """A caption cut by the length limit counts as any other, takes no part in the loss (its reward stays in
    the baseline of the others), or loses `truncated_penalty` of its reward."""
    truncated_penalty: Annotated[float, Ge(0)] = 1.0
    """What a truncated caption loses with `penalise`."""
    zero_spread: Literal["keep", "drop"] = "keep"
    """Captions of a sample that all earned the same have advantage 0 and count in the mean over captions, or
    take no part in the loss."""
    unscored: Literal["leave_out", "drop_group"] = "leave_out"
    """An unscored caption takes no part and is in no baseline; or nor do the others of its sample."""
    kl: Annotated[float, Ge(0)] = 0.0
    """What a caption loses for every nat by which it is likelier than as the run started: the KL in the
    reward, as in TRL's RLOO. The objective `clipped_ratio` can have it in the loss instead."""

    @property
    def needs(self) -> frozenset[str]:
        """The log-probabilities as the run started, where the KL is in the reward."""
        return frozenset({"reference_logprobs"}) if self.kl else frozenset()

    @property
    def least_captions(self) -> int:
        """2: captions of one sample are compared with each other."""
        return 2

    @abc.abstractmethod
    def compared(self, totals: torch.Tensor) -> torch.Tensor:
        """(B, G) advantages of rewards (B, G); NaN where there is no reward or nothing to compare it with."""

    def __call__(self, rollouts: Rollouts, scores: Scores) -> Targets:
        """(N, T) the same advantage on every token of a caption that takes part."""
        totals = self._totals(rollouts, scores).view(-1, rollouts.captions)
        out = torch.zeros_like(totals, dtype=torch.bool)
        if self.truncated == "mask":
            out |= ~rollouts.ended.view_as(totals)
        if self.zero_spread == "drop":
            out |= (zero_spread(totals) == 1)[:, None]
        if self.unscored == "drop_group":
            out |= totals.isnan().any(1, keepdim=True)
        return base.over_captions(rollouts, self.compared(totals).masked_fill(out, float("nan")).flatten())

    def _totals(self, rollouts: Rollouts, scores: Scores) -> torch.Tensor:
        """(N,) rewards less penalties; NaN where unscored."""
        totals = scores.totals
        if self.truncated == "penalise":
            totals = totals - self.truncated_penalty * ~rollouts.ended
        if self.kl:
            if rollouts.reference_logprobs is None:
                raise ValueError('the KL is to roll-outs that carry "reference_logprobs"')
            nats = (rollouts.logprobs - rollouts.reference_logprobs).masked_fill(~rollouts.caption_mask, 0.0)
            totals = totals - self.kl * nats.sum(1)
        return totals


def zero_spread(totals: torch.Tensor) -> torch.Tensor:
    """(B,) 1 where all scored captions of a sample earned the same, else 0; NaN with fewer than two of them.

    Args:
        totals: (B, G), NaN where unscored.
    """
    unscored, infinity = totals.isnan(), float("inf")
    spread = totals.masked_fill(unscored, -infinity).amax(1) - totals.masked_fill(unscored, infinity).amin(1)
    return (spread <= SAME).float().masked_fill((~unscored).sum(1) < 2, float("nan"))


def mean_of_others(totals: torch.Tensor) -> torch.Tensor:
    """(B, G) mean over the other scored captions of the sample; NaN where there are none.

    Args:
        totals: (B, G), NaN where unscored.
    """
    others = (~totals.isnan()).sum(1, keepdim=True) - 1
    return (totals.nansum(1, keepdim=True) - totals) / others


def deviation(values: torch.Tensor, *, groups: bool) -> torch.Tensor:
    """Standard deviation of what is not NaN, with Bessel's correction: (B, 1) of each row, or () of all.

    NaN of fewer than two values.
    """
    rows = values if groups else values.reshape(1, -1)
    squares = (rows - rows.nanmean(1, keepdim=True)).square().nansum(1, keepdim=True)
    counts = (~rows.isnan()).sum(1, keepdim=True)
    found = (squares / (counts - 1)).sqrt().masked_fill(counts < 2, float("nan"))
    return found if groups else found[0, 0]
