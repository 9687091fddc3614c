"""Several candidates an image: which may stand, which one does, or what a language model makes of them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from limner.answering.base import Asker
from limner.bulk.engine import Author, Text
from limner.errors import Reject, UserError
from limner.metrics.phrases import is_mark, words
from limner.types import Sample

LONGEST_REPEAT = 20
"""Words of the longest sequence whose repetitions are counted."""
TRIES = 3
"""Times that candidates are drawn for an image until one of them keeps the rules."""
MERGE = """Different people described one image. Each of them may be wrong in places, and each may have seen
what the others missed. Write one description of the image, in a single sentence, that holds what most of
them agree on and the details that do not contradict the rest. Say where something is uncertain. Write the
description only.

Descriptions:
{captions}"""
"""What a language model is asked that merges candidates; {captions} stands for them, one a line."""


@dataclass(frozen=True)
class Rules:
    """What a caption has to keep to stand in the output."""

    include: tuple[str, ...] = ()
    """Phrases that must be in it, as whole words in any case."""
    forbid: tuple[str, ...] = ()
    """Phrases that must not be in it."""
    min_words: int = 0
    """Fewer words than this are too few; punctuation is not counted."""
    max_words: int | None = None
    """More words than this are too many."""
    max_repeats: int | None = None
    """The same words may stand so many times in a row: language models get stuck."""

    def __post_init__(self) -> None:
        """Refuse rules that nothing can keep.

        Raises:
            UserError: there are such.
        """
        if self.max_words is not None and self.max_words < max(1, self.min_words):
            raise UserError(f"--max-words {self.max_words} is below --min-words {max(1, self.min_words)}")
        for phrase in (*self.include, *self.forbid):
            if not words(phrase):
                raise UserError(f"--include and --forbid want words, not {phrase!r}")

    def broken_by(self, caption: str) -> str:
        """Why a caption cannot stand; empty if it can."""
        said = words(caption)
        count = sum(not is_mark(word) for word in said)
        for phrase in self.include:
            if not _holds(said, words(phrase)):
                return f"{phrase!r} is not in it"
        for phrase in self.forbid:
            if _holds(said, words(phrase)):
                return f"{phrase!r} is in it"
        if count < self.min_words:
            return f"{count} words, fewer than {self.min_words}"
        if self.max_words is not None and count > self.max_words:
            return f"{count} words, more than {self.max_words}"
        if self.max_repeats is not None and (times := repeats(said)) > self.max_repeats:
            return f"the same words {times} times in a row"
        return ""


def repeats(said: Sequence[str]) -> int:
    """How many times in a row the same word, or the same sequence of words, stands at most."""
    most = 1 if said else 0
    for length in range(1, min(LONGEST_REPEAT, len(said) // 2) + 1):
        same = 0
        for place in range(len(said) - length):
            same = same + 1 if said[place] == said[place + length] else 0
            most = max(most, 1 + same // length)
    return most


def _holds(said: Sequence[str], phrase: Sequence[str]) -> bool:
    return any(list(said[place : place + len(phrase)]) == list(phrase) for place in range(len(said)))


@dataclass(frozen=True)
class Draft:
    """One candidate."""

    text: str
    """The caption."""
    score: float
    """How good it is: a reward, or its mean log-probability; NaN where nobody can tell."""


class Drafter(Author, Protocol):
    """An author that can write several captions an image."""

    def drafts(
        self, samples: Sequence[Sample], prompt: str | None, *, count: int, seed: int
    ) -> Sequence[Sequence[Draft] | Reject]:
        """`count` candidates of each sample, or why there is none."""
        ...


@dataclass(frozen=True)
class Chooser:
    """Writes the best candidate that keeps the rules, or a merger of all that do."""

    drafter: Drafter
    """Who writes the candidates."""
    count: int = 1
    """Candidates an image, each time."""
    rules: Rules = field(default_factory=Rules)
    """What may stand."""
    merger: Callable[[], Asker] | None = None
    """Makes the language model that merges; None chooses."""
    merge_prompt: str = MERGE
    """What it is asked."""
    merge_tokens: int = 200
    """Its longest answer."""

    @property
    def shaped(self) -> bool:
        """As the author."""
        return self.drafter.shaped

    @property
    def mixes(self) -> bool:
        """As the author."""
        return self.drafter.mixes

    def tokens(self) -> tuple[int, int]:
        """As the author; those of the merger are not counted."""
        return self.drafter.tokens()

    def write(self, samples: Sequence[Sample], prompt: str | None) -> Sequence[Text | Reject]:
        """Images of which no candidate keeps the rules are drawn again, `TRIES` times in all."""
        results: list[Text | Reject] = [Reject("not tried") for _ in samples]
        open_places = list(range(len(samples)))
        for attempt in range(TRIES):
            tried = [samples[place] for place in open_places]
            # a job that was killed draws for a batch what it would have drawn
            seed = zlib.crc32("\n".join([str(attempt), *(sample.id for sample in tried)]).encode())
            made = self.drafter.drafts(tried, prompt, count=self.count, seed=seed)
            chosen = self._chosen(made, seed)
            for place, result in zip(open_places, chosen, strict=True):
                results[place] = result
            again = zip(open_places, made, chosen, strict=True)
            open_places = [
                place
                for place, drafts, result in again
                if isinstance(result, Reject) and not isinstance(drafts, Reject)
            ]
            if not open_places:
                break
        return results

    def _chosen(self, made: Sequence[Sequence[Draft] | Reject], seed: int) -> list[Text | Reject]:
        if self.merger is not None:
            return self._merged(made, seed)
        return [drafts if isinstance(drafts, Reject) else self._best(drafts) for drafts in made]

    def _best(self, drafts: Sequence[Draft]) -> Text | Reject:
        broken = [self.rules.broken_by(draft.text) for draft in drafts]
        kept = [draft for draft, why in zip(drafts, broken, strict=True) if not why]
        if not kept:
            return Reject(f"no caption keeps the rules: {broken[0]}: {drafts[0].text[:200]}")
        best = max(kept, key=lambda draft: -math.inf if math.isnan(draft.score) else draft.score)
        if self.count == 1:
            return Text(best.text)
        score = {} if math.isnan(best.score) else {"score": best.score}
        return Text(best.text, {"candidates": [draft.text for draft in drafts], **score})

    def _merged(self, made: Sequence[Sequence[Draft] | Reject], seed: int) -> list[Text | Reject]:
        """Rules are those of the merger: candidates may lack what another one has."""
        assert self.merger is not None
        sets = [drafts for drafts in made if not isinstance(drafts, Reject)]
        asked = [
            self.merge_prompt.replace("{captions}", "\n".join(f"- {draft.text}" for draft in drafts))
            for drafts in sets
        ]
        replies = self.merger().ask(
            [[{"role": "user", "content": text}] for text in asked],
            max_new_tokens=self.merge_tokens, temperature=0.0, seed=seed,
        )  # fmt: skip
        merged: list[Text | Reject] = []
        for drafts, reply in zip(sets, replies, strict=True):
            text = " ".join((reply.text or "").split())
            why = reply.error if reply.text is None else self.rules.broken_by(text)
            candidates = {"candidates": [draft.text for draft in drafts]}
            merged.append(Reject(f"no merged caption: {why}") if why else Text(text, candidates))
        rest = iter(merged)
        return [drafts if isinstance(drafts, Reject) else next(rest) for drafts in made]
