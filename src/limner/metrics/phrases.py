"""Words of a caption, and which of them are bad phrases, years, repetitions or colours.

The rules are those of VLRM (arXiv 2404.01911, section 3.4 and table 6). Everything works on whole words: the
bad phrase "clip" is not in "an eclipse".
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, Self

_MARKS = r"!-/:-@\[-`{-~\u00a1-\u00bf\u2010-\u205e\u3000-\u303f\uff01-\uff0f"
"""Ranges of punctuation, ASCII and beyond. Named rather than "not a letter": vowel signs of Indic scripts
are no letters to Python, and words must not break there."""
_WORD = re.compile(rf"[^\s{_MARKS}]+(?:['\u2019][^\s{_MARKS}]+)*|[^\s]")
_YEAR = re.compile(r"[0-9]{4}")

WordList = Literal["articles", "colours", "objects", "prepositions"]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words of a text lie: (first character, one past the last) each, in order.

    A word is a run of characters without white space and punctuation; an apostrophe inside joins ("dog's").
    Every punctuation mark is a word of its own, the hyphen too: "close-up," has four.
    """
    return [match.span() for match in _WORD.finditer(text)]


def words(text: str) -> list[str]:
    """The words of a text by `word_spans`, in lower case, with straight apostrophes."""
    return [normal(text[start:stop]) for start, stop in word_spans(text)]


def normal(word: str) -> str:
    """A word as it is compared: lower case, straight apostrophes."""
    return word.lower().replace("\u2019", "'")


def is_mark(word: str) -> bool:
    """Is it punctuation alone? Such a word counts in no length and is never a repetition."""
    return not any(character.isalnum() for character in word)


@dataclass(frozen=True)
class Phrases:
    """A list of phrases to look for, made once and used for many captions."""

    entries: frozenset[tuple[str, ...]]
    """The phrases, each as its words."""
    longest: int
    """Words of the longest phrase."""

    @classmethod
    def of(cls, phrases: Iterable[str]) -> Self:
        """From texts; those without any word are left out."""
        entries = frozenset(entry for phrase in phrases if (entry := tuple(words(phrase))))
        return cls(entries, max(map(len, entries), default=0))

    def __len__(self) -> int:
        """How many there are."""
        return len(self.entries)


@cache
def load_phrases() -> Phrases:
    """The 212 bad phrases of VLRM, table 6."""
    return Phrases.of(_lines("bad_phrases"))


@cache
def load_words(name: WordList) -> frozenset[str]:
    """One of the shipped word lists."""
    return frozenset(_lines(name))


@cache
def exempt_words() -> frozenset[str]:
    """Words that may occur again without being a repetition: colours, prepositions and articles."""
    return load_words("colours") | load_words("prepositions") | load_words("articles")


def _lines(name: str) -> list[str]:
    text = resources.files("limner.metrics").joinpath("data", f"{name}.txt").read_text(encoding="utf-8")
    return text.splitlines()


def bad_spans(words: Sequence[str], phrases: Phrases) -> list[tuple[int, int]]:
    """Every occurrence of a bad phrase or of a year (four digits), by place and length; they may overlap.

    Args:
        words: a caption's words as `words` gives them.
        phrases: what to look for.

    Returns:
        (first word, one past the last word) of each occurrence.
    """
    return list(_bad_spans(words, phrases))


def _bad_spans(words: Sequence[str], phrases: Phrases) -> Iterator[tuple[int, int]]:
    for start, word in enumerate(words):
        if _YEAR.fullmatch(word):
            yield start, start + 1
        for stop in range(start + 1, min(start + phrases.longest, len(words)) + 1):
            if tuple(words[start:stop]) in phrases.entries:
                yield start, stop


def repeated(words: Sequence[str], exempt: frozenset[str]) -> list[bool]:
    """Which words occurred earlier in the caption; exempt words and punctuation never count."""
    seen: set[str] = set()
    flags: list[bool] = []
    for word in words:
        flags.append(word in seen and word not in exempt and not is_mark(word))
        seen.add(word)
    return flags


def colours(words: Sequence[str]) -> list[str]:
    """The words that name a colour, in order, repetitions kept."""
    named = load_words("colours")
    return [word for word in words if word in named]


def objects(words: Sequence[str]) -> list[str]:
    """The words that name a thing that can be seen, in the singular or the plural, in order."""
    named = _objects_and_plurals()
    return [word for word in words if word in named]


@cache
def _objects_and_plurals() -> frozenset[str]:
    named = load_words("objects")
    return named | {_plural(word) for word in named}


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")
