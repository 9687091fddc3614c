"""Penalty for words that come again: repeat of VLRM (arXiv 2404.01911, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from limner.metrics.phrases import exempt_words, normal, repeated
from limner.rewards import base
from limner.types import Part, Rollouts


@dataclass(frozen=True, kw_only=True)
class Reward(base.Reward):
    """-1 for every token of a word that occurred before; colours, prepositions and articles may."""

    also: tuple[str, ...] = ()
    """More words that may occur again."""

    per = "token"
    examples = (
        base.Example("a red car and a red bus", 0.0),
        base.Example("a red car and a red car", -1.0),
        base.Example("Car, bus, car, car", -2.0),
    )

    @cached_property
    def exempt(self) -> frozenset[str]:
        """The words that may occur again."""
        return exempt_words() | {normal(word) for word in self.also}

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N, T) -1 on the tokens of repeated words; the details name the words. Punctuation is no word."""
        fined, details = [], []
        for caption in rollouts.words:
            again = [index for index, flag in enumerate(repeated(caption.words, self.exempt)) if flag]
            fined.append({token for index in again for token in caption.tokens[index]})
            details.append({"repeated": [caption.words[index] for index in again]})
        return Part(base.penalty(rollouts, fined), tuple(details))
