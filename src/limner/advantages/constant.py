"""Every token of every scored caption is pushed alike: cross-entropy on captions that people wrote."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from limner.advantages import base
from limner.types import Rollouts, Scores, Targets


@dataclass(frozen=True)
class Advantage(base.Advantage):
    """1 on every token, whatever the rewards say (cross-entropy)."""

    def __call__(self, rollouts: Rollouts, scores: Scores) -> Targets:
        """(N, T) 1 on the tokens of scored captions."""
        ones = torch.ones(len(scores.scored), device=scores.scored.device)
        return base.over_captions(rollouts, ones.masked_fill(~scores.scored, float("nan")))
