"""Penalty for captions that praise themselves, which judges fall for (CapRL, arXiv 2509.22647).

A passage costs 1 however long it is, shared out among its tokens: so a method that pushes tokens knows which
ones to push, and one that only sees the sum over the caption sees the number of passages.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from limner.metrics.self_praise import praised_words
from limner.rewards import base
from limner.types import Part, Rollouts


@dataclass(frozen=True, kw_only=True)
class Reward(base.Reward):
    """-1 for every sentence in which a caption praises itself: "this caption is accurate and complete"."""

    per = "token"
    examples = (
        base.Example("a detailed carving beside an accurate clock", 0.0),
        base.Example("The description on the plaque is accurate.", 0.0),
        base.Example("A red car. This caption is accurate.", -1.0, tolerance=1e-6),
        base.Example("This caption is detailed, accurate and complete.", -1.0, tolerance=1e-6),
        base.Example("Here is a detailed description: a car. It misses nothing.", -1.0, tolerance=1e-6),
        base.Example(
            "This description covers every detail. I am sure this caption is right.", -2.0, tolerance=1e-6
        ),
    )

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N, T) shares of -1 on the tokens of self-praise; the details name the passages."""
        values = torch.zeros(rollouts.caption_mask.shape)
        details: list[dict[str, object]] = []
        for row, caption in enumerate(rollouts.words):
            passages = praised_words(caption.words)
            for start, stop in passages:
                tokens = sorted({token for word in caption.tokens[start:stop] for token in word})
                values[row, tokens] -= 1 / len(tokens)
            details.append({"praise": [" ".join(caption.words[start:stop]) for start, stop in passages]})
        return Part(values, tuple(details))
