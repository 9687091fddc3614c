"""What every advantage is."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch

from limner.errors import UserError
from limner.types import Rollouts, Scores, Targets


@dataclass(frozen=True)
class Value:
    """The value function: LoRA inside the policy's language model and a deep head on top.

    The published sizes are 275M for the head and about 6M for LoRA; their shapes are a reconstruction
    (docs/methods/vlrm.md).
    """

    lora_rank: int = 4
    """Rank of the adapter on every linear layer of the language model's blocks."""
    lora_alpha: float = 4.0
    """The adapter is scaled by alpha / rank."""
    head: tuple[int, ...] = (2, 4, 8)
    """Widths of the hidden layers in units of the hidden size; () is one linear layer."""
    lr: float | None = None
    """Learning rate; the policy's where null."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.lora_rank < 0 or any(width <= 0 for width in self.head):
            raise UserError(
                "advantage.value: lora_rank must not be negative and head widths must be positive"
            )


@dataclass(frozen=True)
class Advantage(abc.ABC):
    """Settings and formula of one advantage. A file holds one subclass with this name."""

    @property
    def needs(self) -> frozenset[str]:
        """What roll-outs must carry beside the captions: "greedy"."""
        return frozenset()

    @property
    def least_captions(self) -> int:
        """The fewest captions a sample with which it works."""
        return 1

    @property
    def value_function(self) -> Value | None:
        """The value function to train beside the policy, where this advantage has one."""
        return None

    def returns(self, rollouts: Rollouts, scores: Scores) -> torch.Tensor:
        """(N, T) what a value function is trained on."""
        raise TypeError(f"{type(self).__module__} has no returns for a value function")

    @abc.abstractmethod
    def __call__(self, rollouts: Rollouts, scores: Scores) -> Targets:
        """Advantages of N captions, over the whole batch."""


def over_captions(rollouts: Rollouts, advantages: torch.Tensor) -> Targets:
    """The same advantage on every token of a caption.

    Args:
        rollouts: N captions.
        advantages: (N,), NaN where a caption takes no part in the loss.
    """
    mask = rollouts.caption_mask & advantages.isfinite()[:, None]
    spread = advantages.float()[:, None].expand(mask.shape)
    return Targets(torch.where(mask, spread, torch.zeros_like(spread)).detach(), mask)


def suffix_sums(rewards: torch.Tensor, gamma: float) -> torch.Tensor:
    """(N, T) discounted sums of the rewards (N, T) from each token on."""
    if gamma == 1.0:
        return rewards.flip(1).cumsum(1).flip(1)
    out = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        running = rewards[:, t] + gamma * running
        out[:, t] = running
    return out
