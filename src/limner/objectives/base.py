"""What every objective is."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch

from limner.types import Mean, Rollouts, Targets


@dataclass(frozen=True)
class Objective(abc.ABC):
    """Settings and formula of one policy loss. A file holds one subclass with this name.

    The loss of a step is sum(weights * losses) with weights made once over the whole batch, so that any
    split into micro-batches gives the same gradient.
    """

    @property
    def needs(self) -> frozenset[str]:
        """What roll-outs must carry beside the captions: "reference_logprobs"."""
        return frozenset()

    @property
    def smoothing(self) -> float:
        """Label smoothing of the log-probabilities that `losses` is given."""
        return 0.0

    def weights(self, target_mask: torch.Tensor) -> torch.Tensor:
        """(N, T) share of each token in the loss: mean over a caption's tokens (1/n), then over captions."""
        lengths = target_mask.sum(1, keepdim=True).clamp(min=1)
        return target_mask.float() / lengths / taking_part(target_mask)

    @abc.abstractmethod
    def losses(self, logprobs: torch.Tensor, rollouts: Rollouts, targets: Targets) -> torch.Tensor:
        """(N, T) loss of each token.

        Args:
            logprobs: (N, T) under the policy now, with gradient.
            rollouts: the same rows; their `logprobs` are those of the policy before the step's first update,
                which are `logprobs` themselves, without gradient, in the first pass over the roll-outs.
            targets: advantages of the same rows.
        """

    def measures(self, logprobs: torch.Tensor, rollouts: Rollouts, targets: Targets) -> dict[str, Mean]:
        """What is logged about these rows beside the loss; arguments as of `losses`, without gradient."""
        return {}


def taking_part(target_mask: torch.Tensor) -> torch.Tensor:
    """() captions with a token in the loss, at least 1."""
    return target_mask.any(1).sum().clamp(min=1)


def over_tokens(target_mask: torch.Tensor) -> torch.Tensor:
    """(N, T) share of each token in a mean over all tokens of the batch: a long caption weighs more."""
    return target_mask.float() / target_mask.sum().clamp(min=1)
