"""What every objective is."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch

from limner.types import Targets


@dataclass(frozen=True)
class Objective(abc.ABC):
    """Settings and formula of one policy loss. A file holds one subclass with this name.

    The loss of a step is sum(weights * losses) with weights made once over the whole batch, so that any
    split into micro-batches gives the same gradient.
    """

    @property
    def smoothing(self) -> float:
        """Label smoothing of the log-probabilities that `losses` is given."""
        return 0.0

    def weights(self, target_mask: torch.Tensor) -> torch.Tensor:
        """(N, T) share of each token in the loss: mean over a caption's tokens (1/n), then over captions."""
        lengths = target_mask.sum(1, keepdim=True).clamp(min=1)
        captions = target_mask.any(1).sum().clamp(min=1)
        return target_mask.float() / lengths / captions

    @abc.abstractmethod
    def losses(self, logprobs: torch.Tensor, old_logprobs: torch.Tensor, targets: Targets) -> torch.Tensor:
        """(N, T) loss of each token.

        Args:
            logprobs: (N, T) under the policy now, with gradient.
            old_logprobs: (N, T) under the policy that generated the captions.
            targets: advantages of the same rows.
        """
