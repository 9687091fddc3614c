"""Reward for captions of a required form: patterns they must or must not hold, and a length in bounds.

The default form is plain text: no Markdown, and no sentence about the answer before the caption.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import torch
from annotated_types import Ge

from limner.metrics.phrases import is_mark, words
from limner.rewards import base
from limner.types import Part, Rollouts

MARKDOWN = r"(?m)^\s*(?:#{1,6} |[-*+] |\d+[.)] |>|```|\|.*\|)|\*\*|__\S"
"""Headings, lists, quotes, code, tables, bold text."""
PREAMBLE = (
    r"(?i)\A\W*(?:(?:sure|certainly|of course|absolutely|okay|ok|great|yes)\b\s*[,!.:]"
    r"|here(?:'s|\u2019s| is| are) (?:the|a|an|my|your)\b[^.\n]*\b(?:caption|description|summary)\b"
    r"|(?:caption|description|answer)\s*:|as an ai\b|i(?:'m| am) sorry\b|i can(?:not|'t)\b)"
)
"""The beginning of an answer to somebody instead of a caption."""
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, kw_only=True)
class Reward(base.Reward):
    """1 for a caption of the required form, 0 for any other; the details say what is wrong."""

    must: tuple[str, ...] = ()
    """Regular expressions that must each be found in the caption."""
    must_not: tuple[str, ...] | None = None
    """Regular expressions none of which may be found; null: Markdown, and preambles ("Sure, here is")."""
    min_words: Annotated[int, Ge(0)] = 1
    """Fewer words are too few."""
    max_words: Annotated[int, Ge(1)] | None = None
    """More words are too many; null sets no limit."""
    min_sentences: Annotated[int, Ge(0)] = 0
    """Fewer sentences are too few; text without a full stop at its end counts as one."""
    max_sentences: Annotated[int, Ge(1)] | None = None
    """More sentences are too many; null sets no limit."""

    examples = (
        base.Example("A red car. It is sunny.", 1.0),
        base.Example("", 0.0),
        base.Example("Sure, here is a caption: a red car", 0.0),
        base.Example("Certainly! A red car.", 0.0),
        base.Example("Here is a cat beside a dog.", 1.0),
        base.Example("**Scene**: a red car", 0.0),
        base.Example("# Scene\na red car", 0.0),
        base.Example("a red car\n- a wheel\n- a door", 0.0),
        base.Example("a red-brown car - an old one - for 3 * 4 people", 1.0),
    )

    def __post_init__(self) -> None:
        """Refuse what no caption can meet.

        Raises:
            ValueError: a pattern is no regular expression, or a least number is above the most.
        """
        for name in ("must", "must_not"):
            for pattern in getattr(self, name) or ():
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{name}: {pattern!r} is no regular expression: {error}") from None
        for least, most, what in (
            (self.min_words, self.max_words, "words"),
            (self.min_sentences, self.max_sentences, "sentences"),
        ):
            if most is not None and least > most:
                raise ValueError(f"min_{what} is {least}: must not be above max_{what}, which is {most}")

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N,) 1 or 0; the details say what is wrong with a caption."""
        wrong = [self.wrong(text) for text in rollouts.texts]
        values = torch.tensor([float(not reasons) for reasons in wrong])
        return Part(values, tuple({"wrong": reasons} for reasons in wrong))

    def wrong(self, text: str) -> list[str]:
        """All that a caption does not meet."""
        must, must_not = self._patterns
        found = [f"lacks {each.pattern}" for each in must if not each.search(text)]
        for each in must_not:
            match = each.search(text)
            if match is not None:
                found.append(f"has {match[0].strip()!r}")
        counts = {
            "words": sum(not is_mark(word) for word in words(text)),
            "sentences": sum(not is_mark(part) for part in _BETWEEN_SENTENCES.split(text)),
        }
        for what, count in counts.items():
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if count < least:
                found.append(f"{count} {what}, at least {least} are needed")
            if most is not None and count > most:
                found.append(f"{count} {what}, at most {most} are allowed")
        return found

    @cached_property
    def _patterns(self) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
        must_not = (MARKDOWN, PREAMBLE) if self.must_not is None else self.must_not
        return [re.compile(each) for each in self.must], [re.compile(each) for each in must_not]
