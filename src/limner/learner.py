"""The policy update: loss over micro-batches, then one guarded step of policy and value function."""

from __future__ import annotations

import math
from collections.abc import Mapping

from limner.captioners.base import Policy
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

    def backward(self, rollouts: Rollouts, targets: Targets) -> dict[str, Mean]:
        """Add the gradient of the policy loss over N captions; returns what is logged about it.

        A loss of nothing, because no caption takes part, is NaN, which refuses the step.
        """
        weights = self.objective.weights(targets.target_mask)
        smoothing = self.objective.smoothing
        loss = Mean() if targets.target_mask.any() else Mean(float("nan"))
        tokens, entropy = Mean(), Mean()
        self.optimiser.zero_grad()
        for rows, part in micro_batches(rollouts, self.micro_batch):
            width = part.tokens.shape[1]
            logprobs = self.policy.logprobs(part.inputs, part.tokens, part.caption_mask, smoothing=smoothing)
            chosen = Targets(targets.advantages[rows, :width], targets.target_mask[rows, :width])
            part_loss = (self.objective.losses(logprobs, part.logprobs, chosen) * weights[rows, :width]).sum()
            part_loss.backward()
            loss += Mean(float(part_loss.detach()), 0.0)
            kept = logprobs.detach()[chosen.target_mask]
            if not smoothing:  # a smoothed likelihood is no probability
                tokens += Mean.of(kept.exp())
            entropy += Mean.of(-kept)
        return {"loss/policy": Mean(loss.sum, 1.0), "policy/probability": tokens, "policy/surprisal": entropy}


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
