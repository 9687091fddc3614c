"""Passages in which a caption speaks well of itself: "this caption is accurate and covers every detail".

A judge that reads them believes them, which is how rewards by a judge are hacked (CapRL, arXiv 2509.22647).
What is found are statements about the caption, never about the image: "a detailed carving" and "the clock is
accurate" are honest, and so is what is said of a text in the picture ("the description on the plaque is
accurate"). The patterns stand in `data/self_praise.txt`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

from limner.metrics.phrases import normal, word_spans

_PART = re.compile(r"<([A-Z]+)>")
_DEFINITION = re.compile(r"([A-Z]+) = (.+)")
_ENDS = frozenset(".!?;")


def praised_words(words: Sequence[str]) -> list[tuple[int, int]]:
    """Where a caption praises itself, one passage a sentence at most.

    Args:
        words: a caption's words as `limner.metrics.phrases.words` gives them, punctuation marks included.

    Returns:
        (first word, one past the last word) of each passage, in order, none overlapping.
    """
    found: list[tuple[int, int]] = []
    start = 0
    for stop in range(1, len(words) + 1):
        if stop == len(words) or words[stop - 1] in _ENDS:
            passage = _passage(words[start:stop])
            if passage is not None:
                found.append((start + passage[0], start + passage[1]))
            start = stop
    return found


def praises(text: str) -> list[tuple[int, int]]:
    """Where a text praises itself: (first character, one past the last) of each passage, one a sentence."""
    spans = word_spans(text)
    words = [normal(text[start:stop]) for start, stop in spans]
    return [(spans[start][0], spans[stop - 1][1]) for start, stop in praised_words(words)]


def _passage(sentence: Sequence[str]) -> tuple[int, int] | None:
    """From the first to the last praising word of a sentence."""
    patterns, needed = _patterns()
    if needed.isdisjoint(sentence):
        return None
    line = " ".join(sentence)
    matches = list(patterns.finditer(line))
    if not matches:
        return None
    first, last = matches[0].start(), max(match.end() for match in matches)
    return line[:first].count(" "), line[:last].count(" ") + 1


@cache
def _patterns() -> tuple[re.Pattern[str], frozenset[str]]:
    """All patterns of the shipped file as one, and the words of which a sentence must have one."""
    text = resources.files("limner.metrics").joinpath("data", "self_praise.txt").read_text(encoding="utf-8")
    parts: dict[str, str] = {}
    patterns: list[str] = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            filled = _PART.sub(lambda match: f"(?:{parts[match[1]]})", line)
            definition = _DEFINITION.fullmatch(filled)
            if definition is None:
                patterns.append(filled)
            else:
                parts[definition[1]] = definition[2]
    whole = re.compile(rf"(?<!\S)(?:{'|'.join(patterns)})(?!\S)")
    return whole, frozenset(parts["NEEDED"].split("|"))
