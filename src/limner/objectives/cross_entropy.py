"""Cross-entropy on given captions, the stage before SCST (arXiv 2502.13363), as transformers computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Lt

from limner.objectives import base
from limner.types import Rollouts, Targets


@dataclass(frozen=True)
class Objective(base.Objective):
    """Cross-entropy, mean over all tokens of the batch."""

    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the target that is spread evenly over the vocabulary."""

    @property
    def smoothing(self) -> float:
        """The label smoothing."""
        return self.label_smoothing

    def weights(self, target_mask: torch.Tensor) -> torch.Tensor:
        """(N, T) share of each token in the loss: the same for all, so a long caption weighs more."""
        return base.over_tokens(target_mask)

    def losses(self, logprobs: torch.Tensor, rollouts: Rollouts, targets: Targets) -> torch.Tensor:
        """-log p A, where A is 1 for plain cross-entropy."""
        return -logprobs * targets.advantages
