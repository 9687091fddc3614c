"""Reward of a caption minus the mean of the others of its sample: RLOO (arXiv 2402.14740).

The baseline of a caption does not hold the caption, so the gradient is unbiased. It is G / (G - 1) times the
difference to the mean of all. The baseline is `self_critical`'s of the same name, without the settings here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from limner.advantages.group import EPSILON, Group, deviation, mean_of_others


@dataclass(frozen=True)
class Advantage(Group):
    """Reward of a caption minus the mean of the other captions of its sample (RLOO)."""

    normalise: bool = False
    """Subtract the mean over the batch and divide by its standard deviation (plus 1e-4)."""

    def compared(self, totals: torch.Tensor) -> torch.Tensor:
        """(B, G) R - mean of the others; NaN where unscored, or scored alone in its sample."""
        above = totals - mean_of_others(totals)
        if self.normalise:
            return (above - above.nanmean()) / (deviation(above, groups=False) + EPSILON)
        return above
