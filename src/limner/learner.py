"""The policy update: loss over micro-batches, then one guarded step of policy and value function a pass."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from limner import distributed
from limner.captioners.base import Policy
from limner.critic import Critic
from limner.objectives.base import Objective
from limner.rollout import micro_batches
from limner.types import Mean, Rollouts, Scores, Targets
from limner.update import Optimiser


class Learner:
    """Trains the policy's chosen parts with one objective."""

    def __init__(self, policy: Policy, objective: Objective, optimiser: Optimiser, *, micro_batch: int):
        """Keep the parts; `micro_batch` rows go through the model at once."""
        self.policy, self.objective = policy, objective
        self.optimiser, self.micro_batch = optimiser, micro_batch

    def backward(
        self, rollouts: Rollouts, targets: Targets, *, first: bool = True
    ) -> tuple[Rollouts, dict[str, Mean]]:
        """Add the gradient of the policy loss over N captions.

        A loss of nothing, because no caption takes part, is NaN, which refuses the step.

        Args:
            rollouts: N captions.
            targets: what they are pushed by.
            first: whether the policy is still the one that made the captions. Then its log-probabilities
                here stand for those of generation, from which they may differ in the last bits.

        Returns:
            The roll-outs with `logprobs` as found here, and what is logged about the loss.
        """
        weights = targets.weights
        if weights is None:
            weights = self.objective.weights(targets.target_mask)
        smoothing = self.objective.smoothing
        loss = Mean()
        made = {"policy/probability": Mean(), "policy/surprisal": Mean()}
        found = torch.zeros_like(rollouts.logprobs)
        self.optimiser.zero_grad()
        for rows, part in micro_batches(rollouts, self.micro_batch):
            width = part.tokens.shape[1]
            logprobs = self.policy.logprobs(part.inputs, part.tokens, part.caption_mask, smoothing=smoothing)
            now = logprobs.detach()
            found[rows, :width] = now
            chosen = Targets(targets.advantages[rows, :width], targets.target_mask[rows, :width])
            seen = part.replace(logprobs=now) if first else part
            part_loss = (self.objective.losses(logprobs, seen, chosen) * weights[rows, :width]).sum()
            part_loss.backward()
            loss += Mean(float(part_loss.detach()), 0.0)
            made = added(made, self._logged(now, seen, chosen))
        taken = Mean.of(targets.target_mask.any(1).float())
        logged = distributed.summed({"loss/policy": loss, "policy/taking_part": taken, **made})
        nothing = not logged["policy/taking_part"].sum
        logged["loss/policy"] = Mean(float("nan") if nothing else logged["loss/policy"].sum, 1.0)
        return rollouts.replace(logprobs=found), logged

    def _logged(self, logprobs: torch.Tensor, rollouts: Rollouts, targets: Targets) -> dict[str, Mean]:
        kept = logprobs[targets.target_mask]
        made = {"policy/surprisal": Mean.of(-kept)}
        if not self.objective.smoothing:  # a smoothed likelihood is no probability
            made["policy/probability"] = Mean.of(kept.exp())
        return made | self.objective.measures(logprobs, rollouts, targets)


class Updates:
    """All updates of one step: so many passes over its captions, each a guarded step of all optimisers."""

    def __init__(self, learner: Learner, critic: Critic, optimisers: Mapping[str, Optimiser], *, passes: int):
        """Keep the parts; the optimisers are those of learner and critic, by name."""
        self.learner, self.critic, self.optimisers, self.passes = learner, critic, optimisers, passes

    def __call__(
        self, step: int, rollouts: Rollouts, scores: Scores, targets: Targets, valued: Mapping[str, Mean],
        *, whole: Scores | None = None,
    ) -> tuple[dict[str, Mean], str]:  # fmt: skip
        """Update policy and value function.

        Args:
            step: counted from 0, for the learning rate.
            rollouts: N captions.
            scores: their rewards.
            targets: what they are pushed by, the same in all passes.
            valued: the metrics of the value function, whose gradient for the first pass is there already.
            whole: the rewards of all ranks, where these are not all.

        Returns:
            Metrics, means over the passes; and an empty string, or what was not finite. The passes after a
            refused one are left out.
        """
        logged: dict[str, Mean] = {}
        for number in range(self.passes):
            first = number == 0
            if not first:
                _, valued = self.critic.backward(rollouts, scores)
            found, losses = self.learner.backward(rollouts, targets, first=first)
            rollouts = found if first else rollouts
            losses = {**valued, **losses}
            norms, refused = guarded_step(step, self.optimisers, losses, scores if whole is None else whole)
            logged = added(logged, losses | norms)
            if refused:
                return logged, refused
        return logged, ""


def added(metrics: Mapping[str, Mean], more: Mapping[str, Mean]) -> dict[str, Mean]:
    """The means over both."""
    return {**metrics, **{name: metrics.get(name, Mean()) + mean for name, mean in more.items()}}


def guarded_step(
    step: int, optimisers: Mapping[str, Optimiser], losses: Mapping[str, Mean], scores: Scores
) -> tuple[dict[str, Mean], str]:
    """Update every optimiser, or none: a reward, loss or gradient that is not finite refuses the whole step.

    Args:
        step: counted from 0, for the learning rate.
        optimisers: by name.
        losses: the metrics of this step; its `loss/` entries are checked.
        scores: of this step. A NaN is an unscored caption and allowed, unless nothing was scored; infinity
            never is.

    Returns:
        The gradient norms, and an empty string or the names of what was not finite.
    """
    bad = [f"reward {name}" for name, part in scores.parts.items() if part.values.isinf().any()]
    if not scores.scored.any():
        unscored = [name for name, part in scores.parts.items() if part.values.isnan().any()]
        bad += [f"reward {name} of every caption" for name in unscored]
    bad += [
        name for name, mean in losses.items() if name.startswith("loss/") and not math.isfinite(mean.value)
    ]
    norms = {f"gradient/{name}": Mean(optimiser.clip(), 1.0) for name, optimiser in optimisers.items()}
    bad += [name for name, norm in norms.items() if not math.isfinite(norm.value)]
    if not bad:
        for optimiser in optimisers.values():
            optimiser.step(step)
    return norms, ", ".join(bad)
