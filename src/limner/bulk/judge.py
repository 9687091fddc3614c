"""Limner's rewards as judges of candidates."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Annotated, Any, cast

import torch

from limner import rollout
from limner.captioners.base import Policy
from limner.config_build import Builder, Component
from limner.config_read import put
from limner.devices import torch_device
from limner.errors import UserError
from limner.rewards.base import AnyReward, plain
from limner.score import Judge
from limner.types import Rollouts, Sample

AT_ONCE = 64
"""Captions in one pass of the language model without the image."""


@dataclass(frozen=True)
class _Recipe:
    rewards: Mapping[str, Annotated[Any, Component("rewards")]] = field(default_factory=dict[str, Any])


def rewards_of(settings: Sequence[str]) -> Mapping[str, AnyReward]:
    """The rewards of "itm path=world:itm", "length weight=0.1", ..., with the settings of a recipe.

    Raises:
        UserError: everything that is wrong with them; or one needs what captions in bulk do not have.
    """
    if not settings:
        return {}
    written: list[str] = []
    for text in settings:
        name, *given = shlex.split(text) or [""]
        written += [f"rewards.{name}.{setting}" for setting in given] or [f"rewards.{name}={{}}"]
    tree, origins, typed = put({}, {}, written)
    builder = Builder(origins, typed, complete=True)
    found: Mapping[str, AnyReward] = builder.build(_Recipe, tree).rewards
    if builder.errors:
        raise UserError(
            "\n".join([f"--reward {'; '.join(settings)}: {len(builder.errors)} to mend:", *builder.errors])
        )
    for name, reward in found.items():
        lacking = reward.needs - {"lm_logprobs"}
        if lacking:
            raise UserError(f"--reward {name} needs {', '.join(sorted(lacking))}, which no new image has")
    return found


@dataclass(frozen=True)
class PolicyJudge:
    """Rewards of a captioner's own roll-outs."""

    judge: Judge
    """The rewards."""
    policy: Policy
    """The captioner."""

    @classmethod
    def load(cls, rewards: Mapping[str, AnyReward], policy: Policy) -> PolicyJudge:
        """Load what they need."""
        return cls(Judge.load(rewards, policy), policy)

    def __call__(self, rollouts: Rollouts) -> list[float]:
        """N totals; NaN where a caption could not be scored."""
        if "lm_logprobs" in self.judge.needs:
            rollouts = rollout.with_lm_logprobs(self.policy, rollouts, AT_ONCE)
        return self.judge(rollouts).totals.tolist()


@dataclass(frozen=True)
class TextJudge:
    """Rewards of captions that somebody else wrote, of images that are at hand."""

    judge: Judge
    """The rewards."""

    @classmethod
    def load(cls, rewards: Mapping[str, AnyReward], *, device: str) -> TextJudge:
        """Load what they need; there is no captioner that could share its vision tower.

        Raises:
            UserError: one of them asks the captioner itself.
        """
        where = torch_device(device)
        nobody = SimpleNamespace(vision=None, processor=None, device=where, dtype=torch.float32)
        judge = Judge.load(rewards, cast(Any, nobody))
        if judge.needs:
            raise UserError("rewards that ask the captioner for log-probabilities need it in this process")
        return cls(judge)

    @torch.no_grad()
    def __call__(self, samples: Sequence[Sample], texts: Sequence[str]) -> list[float]:
        """As many totals as texts; of each sample as many texts in a row."""
        return self.judge(plain(list(texts), samples=list(samples))).totals.tolist()
