"""Reward of a caption minus what the policy earns anyway: self-critical sequence training.

Sources: Rennie et al., arXiv 1612.00563, equation 8 (`greedy`); "Pretrained Image-Text Models are Secretly
Video Captioners", arXiv 2502.13363 (`mean`, over the 5 beams of a video); Kool et al., "Buy 4 REINFORCE
samples, get a baseline for free!" (`leave_one_out`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from limner.advantages import base
from limner.advantages.group import mean_of_others
from limner.types import Rollouts, Scores, Targets


@dataclass(frozen=True)
class Advantage(base.Advantage):
    """Reward of a caption minus a baseline of the same sample (SCST)."""

    baseline: Literal["greedy", "mean", "leave_one_out"] = "greedy"
    """What is subtracted: the reward of the sample's greedy caption, the mean over its captions, or the mean
    over its other captions. The mean holds the caption itself, so it shrinks the gradient by (G - 1) / G."""

    @property
    def needs(self) -> frozenset[str]:
        """A greedy caption a sample, where it is the baseline."""
        return frozenset({"greedy"}) if self.baseline == "greedy" else frozenset()

    @property
    def least_captions(self) -> int:
        """2, where captions of one sample are compared with each other."""
        return 1 if self.baseline == "greedy" else 2

    def __call__(self, rollouts: Rollouts, scores: Scores) -> Targets:
        """(N, T) reward minus baseline on every token of a caption.

        Unscored captions are in no baseline. A caption without baseline (its greedy caption unscored, no
        other caption of the sample scored) takes no part in the loss.
        """
        totals = scores.totals.view(-1, rollouts.captions)
        return base.over_captions(rollouts, (totals - self._baseline(totals, scores)).flatten())

    def _baseline(self, totals: torch.Tensor, scores: Scores) -> torch.Tensor:
        """(B, 1) or (B, G), NaN where there is none."""
        if self.baseline == "greedy":
            if scores.greedy is None:
                raise ValueError("the greedy captions were not scored")
            return scores.greedy[:, None]
        if self.baseline == "mean":
            return totals.nanmean(1, keepdim=True)
        return mean_of_others(totals)
