"""Scoring: every reward on every caption, weighted and summed; what could not be scored is only counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from limner.captioners.base import Policy
from limner.data.base import Source
from limner.rewards.base import AnyReward
from limner.types import Part, Rollouts, Scores


@dataclass(frozen=True)
class Judge:
    """The rewards of a recipe, loaded."""

    rewards: Mapping[str, AnyReward]
    """Settings by name."""
    loaded: Mapping[str, Callable[[Rollouts], Part]]
    """What scores, by name."""

    @classmethod
    def load(cls, rewards: Mapping[str, AnyReward], policy: Policy, *, data: Source | None = None) -> Judge:
        """Load every reward for this policy and the data that it is trained on."""
        return cls(rewards, {name: reward.load(policy, data) for name, reward in rewards.items()})

    @property
    def needs(self) -> frozenset[str]:
        """What roll-outs must carry."""
        return frozenset().union(*(reward.needs for reward in self.rewards.values()))

    @torch.no_grad()
    def __call__(self, rollouts: Rollouts) -> Scores:
        """Score N captions, and the greedy captions where there are some."""
        scores = self._scores(rollouts)
        if rollouts.greedy is None:
            return scores
        greedy = self._scores(rollouts.greedy)
        seconds = {name: taken + greedy.seconds[name] for name, taken in scores.seconds.items()}
        return replace(scores, greedy=greedy.totals, seconds=seconds)

    def _scores(self, rollouts: Rollouts) -> Scores:
        parts: dict[str, Part] = {}
        seconds: dict[str, float] = {}
        for name, reward in self.loaded.items():
            start = time.perf_counter()
            parts[name] = reward(rollouts)
            seconds[name] = time.perf_counter() - start
        return combine(rollouts, parts, {name: r.weight for name, r in self.rewards.items()}, seconds)


def combine(
    rollouts: Rollouts, parts: Mapping[str, Part], weights: Mapping[str, float], seconds: Mapping[str, float]
) -> Scores:
    """Weighted sum of rewards, a token at a time.

    A reward of the whole caption stands on the last token: with gamma 1 its return is the same at every token
    (VLRM, arXiv 2404.01911, equation 1). A caption with any NaN part is unscored as a whole, and so is one
    without a token, of which there is nothing to learn.
    """
    mask = rollouts.caption_mask
    total = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    scored = mask.any(1)
    last = (rollouts.lengths - 1).clamp(min=0)
    for name, part in parts.items():
        values = part.values.to(mask.device, torch.float32)
        weight = weights[name]
        if values.dim() == 1:
            scored &= values.isfinite()
            total.scatter_add_(1, last[:, None], weight * values.nan_to_num(0.0, 0.0, 0.0)[:, None])
        else:
            scored &= (values.isfinite() | ~mask).all(1)
            total += weight * values.nan_to_num(0.0, 0.0, 0.0) * mask
    return Scores(parts, total * scored[:, None], scored, seconds=seconds)
