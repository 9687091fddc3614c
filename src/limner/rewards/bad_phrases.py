"""Penalty for phrases that describe no image: bad of VLRM (arXiv 2404.01911, section 3.4 and table 6).

Caption and phrases are compared as sequences of words, in lower case, apostrophes made straight, every
punctuation mark a word of its own: "camera," finds "Camera ," and not "camera"; "close-up" finds "close -
up" and not "close up", which is a phrase of its own in the list. "clip" is not found in "eclipse".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from limner.metrics.phrases import Phrases, bad_spans, load_phrases
from limner.rewards import base
from limner.types import Part, Rollouts


@dataclass(frozen=True, kw_only=True)
class Reward(base.Reward):
    """-1 for every token inside a bad phrase ("an image of", "on the left", ...) or a year."""

    phrases: tuple[str, ...] | None = None
    """What to look for instead of the paper's 212 phrases."""
    extra: tuple[str, ...] = ()
    """More phrases to look for."""
    years: bool = True
    """Whether a word of four digits is bad too."""

    per = "token"
    examples = (
        base.Example("a red car", 0.0),
        base.Example("An image of a red car", -3.0),
        base.Example("a red car in 1998", -1.0),
        base.Example("a close up of a camera, on the left", -9.0),
    )

    @cached_property
    def wanted(self) -> Phrases:
        """The phrases that are looked for."""
        own = load_phrases() if self.phrases is None else Phrases.of(self.phrases)
        extra = Phrases.of(self.extra)
        return Phrases(own.entries | extra.entries, max(own.longest, extra.longest))

    def find(self, caption: tuple[str, ...]) -> list[tuple[int, int]]:
        """Where a caption's words are bad: (first word, one past the last) of every phrase and year."""
        return [
            (start, stop)
            for start, stop in bad_spans(caption, self.wanted)
            if self.years or caption[start:stop] in self.wanted.entries
        ]

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N, T) -1 on bad tokens, once each; the details name the phrases."""
        fined, details = [], []
        for caption in rollouts.words:
            spans = self.find(caption.words)
            tokens: set[int] = set()
            for start, stop in spans:
                held = [token for word in caption.tokens[start:stop] for token in word]
                if held:  # to the last from the first: white space inside a phrase is in it too
                    tokens.update(range(min(held), max(held) + 1))
            fined.append(tokens)
            details.append({"phrases": [" ".join(caption.words[start:stop]) for start, stop in spans]})
        return Part(base.penalty(rollouts, fined), tuple(details))
