"""The clipped ratio of PPO (arXiv 1707.06347, 3) as GRPO uses it (arXiv 2402.03300, equation 3).

r = p now / p before the step's first update, so with one pass a step r is 1 and only its gradient counts.
The two clips may differ (DAPO, arXiv 2503.14476, 3.1); `constant_length` is Dr. GRPO's (arXiv 2503.20783).

TRL divides by all captions, also those without a token in the loss; here it is by those that take part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le

from limner.objectives import base
from limner.types import Mean, Rollouts, Targets


@dataclass(frozen=True)
class Objective(base.Objective):
    """Clipped ratio of probabilities, with a pull to where the run started if wanted (PPO, GRPO, RLOO)."""

    clip_low: Annotated[float, Ge(0), Le(1)] = 0.2
    """A ratio below 1 minus this pushes down no further."""
    clip_high: Annotated[float, Ge(0)] = 0.2
    """A ratio above 1 plus this pushes up no further."""
    ratio: Literal["token", "caption", "caption_mean"] = "token"
    """What a ratio is of: each token (GRPO), the whole caption (RLOO, a product that leaves 1 fast), or the
    caption as a geometric mean over its tokens (GSPO, arXiv 2507.18071)."""
    normalise: Literal["token_mean", "sequence_mean", "constant_length"] = "sequence_mean"
    """The mean over all tokens of the batch (DAPO), over a caption's tokens and then over captions (GRPO), or
    a caption's sum over `length`, then over captions (Dr. GRPO)."""
    length: Annotated[int, Ge(1)] | None = None
    """Tokens that a caption's sum is divided by with `constant_length`: the longest caption, most often."""
    kl: Annotated[float, Ge(0)] = 0.0
    """Weight of the KL to the policy as the run started, nats a token, in the loss."""
    estimator: Literal["k1", "k3"] = "k3"
    """How a token's KL is estimated: k1 is log(now / start), k3 is start / now - 1 - log(start / now)."""
    kl_by_ratio: bool = True
    """The estimate is multiplied by the ratio (DeepSeek-V3.2, TRL), which makes it one of the policy as it is
    now, with the gradient of its KL. False is GRPO's own, whose gradient is that of the KL the other way."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            ValueError: the sentence to show.
        """
        if (self.normalise == "constant_length") != (self.length is not None):
            raise ValueError(
                "normalise: constant_length and length: TOKENS go together: give both or neither"
            )
        if self.kl and self.estimator == "k1" and not self.kl_by_ratio:
            raise ValueError(
                "the gradient of k1 without the ratio is 0 in expectation: set kl_by_ratio to true"
            )

    @property
    def needs(self) -> frozenset[str]:
        """The log-probabilities as the run started, where there is a pull to them."""
        return frozenset({"reference_logprobs"}) if self.kl else frozenset()

    def weights(self, target_mask: torch.Tensor) -> torch.Tensor:
        """(N, T) share of each token in the loss, see `normalise`."""
        if self.normalise == "sequence_mean":
            return super().weights(target_mask)
        if self.length is None:
            return base.over_tokens(target_mask)
        return target_mask.float() / self.length / base.taking_part(target_mask)

    def losses(self, logprobs: torch.Tensor, rollouts: Rollouts, targets: Targets) -> torch.Tensor:
        """-min(r A, clip(r) A) + kl KL."""
        ratio = self._ratio(logprobs, rollouts, targets.target_mask)
        clipped = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        losses = -torch.minimum(ratio * targets.advantages, clipped * targets.advantages)
        if self.kl:
            losses = losses + self.kl * self._divergence(logprobs, rollouts, targets.target_mask, ratio)
        return losses

    def measures(self, logprobs: torch.Tensor, rollouts: Rollouts, targets: Targets) -> dict[str, Mean]:
        """Mean ratio, the share of tokens that the clip holds back, and the KL where it is in the loss."""
        mask, up = targets.target_mask, targets.advantages > 0
        ratio = self._ratio(logprobs, rollouts, mask)
        clipped = torch.where(
            up, ratio > 1 + self.clip_high, (ratio < 1 - self.clip_low) & (targets.advantages < 0)
        )
        made = {"policy/ratio": Mean.of(ratio[mask]), "policy/clip_fraction": Mean.of(clipped[mask].float())}
        if self.kl:
            made["policy/kl_reference"] = Mean.of(self._divergence(logprobs, rollouts, mask, ratio)[mask])
        return made

    def _ratio(self, logprobs: torch.Tensor, rollouts: Rollouts, mask: torch.Tensor) -> torch.Tensor:
        """(N, T); 1 where the mask is False, so that nothing overflows there."""
        difference = (logprobs - rollouts.logprobs).masked_fill(~mask, 0.0)
        if self.ratio != "token":
            whole = difference.sum(1, keepdim=True)
            if self.ratio == "caption_mean":
                whole = whole / mask.sum(1, keepdim=True).clamp(min=1)
            difference = whole.expand_as(difference)
        return difference.exp()

    def _divergence(
        self, logprobs: torch.Tensor, rollouts: Rollouts, mask: torch.Tensor, ratio: torch.Tensor
    ) -> torch.Tensor:
        """(N, T) estimate of the KL of each token; 0 where the mask is False."""
        if rollouts.reference_logprobs is None:
            raise ValueError('the KL is to roll-outs that carry "reference_logprobs"')
        log_ratio = (rollouts.reference_logprobs - logprobs).masked_fill(~mask, 0.0)
        estimate = log_ratio.exp() - 1 - log_ratio if self.estimator == "k3" else -log_ratio
        return estimate * ratio if self.kl_by_ratio else estimate
