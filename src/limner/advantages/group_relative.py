"""Reward of a caption minus the mean of its sample's captions, over their spread: GRPO (arXiv 2402.03300).

Without the division (`scale: none`) it is Dr. GRPO's advantage (arXiv 2503.20783).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from limner.advantages.group import EPSILON, Group, deviation


@dataclass(frozen=True)
class Advantage(Group):
    """Reward of a caption minus the mean of its sample's captions, over their standard deviation (GRPO)."""

    scale: Literal["group", "batch", "none"] = "group"
    """What the difference is divided by: the standard deviation (with Bessel's correction, plus 1e-4) of the
    rewards of the sample's captions or of the whole batch; or nothing."""

    def compared(self, totals: torch.Tensor) -> torch.Tensor:
        """(B, G) (R - mean R) / (std R + 1e-4); NaN where unscored, or scored alone in its sample."""
        above = totals - totals.nanmean(1, keepdim=True)
        alone = (~totals.isnan()).sum(1, keepdim=True) < 2
        if self.scale != "none":
            above = above / (deviation(totals, groups=self.scale == "group") + EPSILON)
        return above.masked_fill(alone, float("nan"))
