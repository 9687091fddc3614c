"""Rewards of a recipe on captions of the page: each is scored alone, so that one that cannot be says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from limner import config
from limner.advantages.base import suffix_sums
from limner.captioners.base import Policy
from limner.errors import Reject, UserError
from limner.page.results import Earned
from limner.page.settings import WORLD_RECIPE
from limner.paths import WORLD, is_run
from limner.rewards.base import AnyReward
from limner.score import Judge, combine
from limner.types import Part, Rollouts

NONE = "none"


@dataclass(frozen=True)
class Scored:
    """What N captions earn."""

    parts: tuple[tuple[Earned, ...], ...]
    """N rows of one entry a reward."""
    totals: tuple[float, ...]
    """N weighted sums; NaN where nothing was scored."""
    returns: torch.Tensor
    """(N, T) what each token and those after it earn, undiscounted; NaN where nothing was scored."""


@dataclass(frozen=True)
class Scorer:
    """Loaded rewards."""

    rewards: Mapping[str, AnyReward]
    """Settings by name."""
    loaded: Mapping[str, Callable[[Rollouts], Part]]
    """What scores, by name."""

    @classmethod
    def of(cls, name: str | None, model: str, policy: Policy) -> Scorer:
        """The rewards that a recipe or run names.

        Args:
            name: a recipe, a run's folder or "none"; None for those of the model.
            model: what is served, as it was named.
            policy: the captioner, whose image features rewards may share.

        Raises:
            UserError: there is no such recipe, or a reward cannot be loaded.
        """
        if name is None:
            name = model if is_run(model) else WORLD_RECIPE if model.startswith(WORLD) else NONE
        if name == NONE:
            return cls({}, {})
        recipe = (
            config.load_resolved(Path(name) / "resolved.json")
            if is_run(name)
            else config.load(name, complete=False)
        )
        try:
            judge = Judge.load(recipe.rewards, policy)
        except UserError as error:
            raise UserError(f"{error}\n--rewards {NONE} shows none, --rewards RECIPE others") from None
        return cls(judge.rewards, judge.loaded)

    @property
    def needs(self) -> frozenset[str]:
        """What roll-outs must carry."""
        return frozenset().union(*(reward.needs for reward in self.rewards.values()))

    def __call__(self, rollouts: Rollouts) -> Scored:
        """Score the N captions of one sample."""
        parts: dict[str, Part] = {}
        whys: dict[str, str] = {}
        for name, reward in self.rewards.items():
            if "references" in reward.needs and not rollouts.samples[0].references:
                whys[name] = "needs captions written by people"
                continue
            try:
                part = self.loaded[name](rollouts)
            except (UserError, Reject) as error:
                whys[name] = str(error)
                continue
            if part.values.isnan().all():
                whys[name] = "could not be scored"
            else:
                parts[name] = part
        weights = {name: self.rewards[name].weight for name in parts}
        scores = combine(rollouts, parts, weights, {})
        known = scores.scored[:, None] & rollouts.caption_mask & bool(parts)
        returns = suffix_sums(scores.rewards, 1.0).masked_fill(~known, float("nan"))
        totals = scores.totals if parts else torch.full((len(rollouts.tokens),), float("nan"))
        rows = tuple(
            tuple(_earned(name, parts.get(name), row, whys.get(name, "")) for name in self.rewards)
            for row in range(len(rollouts.texts))
        )
        return Scored(rows, tuple(totals.tolist()), returns)


def _earned(name: str, part: Part | None, row: int, why: str) -> Earned:
    if part is None:
        return Earned(name, float("nan"), why)
    values = part.values[row]
    found = part.details[row] if part.details else {}
    note = "; ".join(", ".join(map(str, said)) for said in found.values() if isinstance(said, list))
    return Earned(name, float(values.sum()), note)
