"""How natural a caption is to the frozen language model: ref of VLRM (arXiv 2404.01911, section 3.4).

The reference is the captioner's own language model without the image and without adapters (section 4.3).
Later words of a sentence are easier to foresee, so this term rewards length as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from limner.rewards import base
from limner.types import Part, Rollouts


@dataclass(frozen=True, kw_only=True)
class Reward(base.Reward):
    """Mean log-probability of the tokens under the frozen language model, which sees no image."""

    needs = frozenset({"lm_logprobs"})

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N,) mean natural log over the caption's tokens, the end-of-sequence token included."""
        if rollouts.lm_logprobs is None:
            raise ValueError('fluency scores roll-outs that carry "lm_logprobs"')
        kept = rollouts.lm_logprobs.masked_fill(~rollouts.caption_mask, 0.0)
        return Part(base.unscored(kept.sum(1) / rollouts.lengths))
