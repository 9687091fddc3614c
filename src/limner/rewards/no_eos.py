"""Penalty for a caption that was cut: noeos of VLRM (arXiv 2404.01911, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

from limner.rewards import base
from limner.types import Part, Rollouts


@dataclass(frozen=True, kw_only=True)
class Reward(base.Reward):
    """-1 for a caption that the length limit cut before its end-of-sequence token."""

    examples = (
        base.Example("a red car", 0.0),
        base.Example("a red car and a", -1.0, ended=False),
    )

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N,) -1 where the last token is not the end-of-sequence token, else 0."""
        return Part(-(~rollouts.ended).float())
