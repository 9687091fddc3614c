"""Return of every token minus its value, normalised over the batch: A2C (VLRM, arXiv 2404.01911, 3.5)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from limner.advantages import base
from limner.advantages.base import Value, suffix_sums
from limner.types import Rollouts, Scores, Targets

EPSILON = 1e-8


@dataclass(frozen=True)
class Advantage(base.Advantage):
    """Return of every token minus its value, normalised over the whole batch (VLRM)."""

    gamma: float = 1.0
    """Discount of later rewards."""
    normalise: bool = True
    """Subtract the mean and divide by the standard deviation of all tokens of the batch (equation 3)."""
    value: Value | None = field(default_factory=Value)
    """The value function; null uses returns as advantages."""

    @property
    def value_function(self) -> Value | None:
        """The value function of the settings."""
        return self.value

    def returns(self, rollouts: Rollouts, scores: Scores) -> torch.Tensor:
        """(N, T) discounted sum of rewards from each token on; 0 on padding."""
        return suffix_sums(scores.rewards, self.gamma) * rollouts.caption_mask

    def __call__(self, rollouts: Rollouts, scores: Scores) -> Targets:
        """M = (A - mean A) / std A over every token of scored captions, A = R - V (std of the population)."""
        returns = self.returns(rollouts, scores)
        mask = rollouts.caption_mask & scored_rows(scores)
        advantages = returns if rollouts.values is None else returns - rollouts.values
        if self.normalise and mask.any():
            tokens = advantages[mask].double()
            mean, std = tokens.mean(), tokens.std(correction=0)
            advantages = ((advantages - mean) / (std + EPSILON)).float()
        return Targets(torch.where(mask, advantages, torch.zeros_like(advantages)).detach(), mask, returns)


def scored_rows(scores: Scores) -> torch.Tensor:
    """(N, 1) True where the caption was scored."""
    return scores.scored[:, None]
