"""Reading the chosen option out of what a language model wrote.

The published code took the first capital letter that is an option's: "Can not answer" was read as C, and "A
red car" as A. Here a letter counts where it stands as an answer, and what is ambiguous is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from limner.answering.draw import same
from limner.questions import LETTERS

_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\s*\{)?\s*\(?([A-Za-z])\)?[.:]?\s*\}")
_ALONE = re.compile(r"(?:option\s+)?[(\[]?([A-Za-z])[)\]]?[.:,;!]?", re.IGNORECASE)
"""Nothing but a letter: "C", "(c)", "C.", "Option C"."""
_FIRST = re.compile(
    r"(?:option\s+)?(?:\(([A-Z])\)|\[([A-Z])\]|([A-Z])\s?[).:,;]|([A-Z])\s+[-\u2013\u2014]|([A-Z])\n)\s*",
    re.IGNORECASE,
)
"""A letter set off from the text behind it: "C) red", "(C) red", "C. red", "C - red"."""
_NAMED = re.compile(
    r"\b(?:[Aa]nswer|ANSWER)\b(?:\s+(?:is|would be|must be|should be))?\s*[:=]?\s*(?:[Oo]ption\s+)?"
    r"([(\[]?)([A-Z])\b(?!['\u2019-])([)\]]?)"
    r"|\b(?:option|choice)\s+(?:is|would be|must be|should be)\s*:?\s*([(\[]?)([A-Z])\b(?!['\u2019-])([)\]]?)"
)
"""A letter named as the answer: "Answer: C", "The correct answer is (C) red", "the best option is C"."""
_WORDS_AFTER = re.compile(r"\s*(?:$|[).\]:,;!?\"\n]|(?:because|since|as|based|from|according)\b)")
_MARKED = re.compile(r"(?<![A-Za-z])\(?([A-Z])\)(?![A-Za-z])")
_ARTICLES = "AI"
"""Letters that are words too: "A red car", "I think"."""


def read_letter(text: str, options: Sequence[str]) -> str | None:
    """The letter of the option that a text chooses.

    Args:
        text: What was written. Thoughts in <think> tags are left out.
        options: Texts of the options in the order shown; option k has letter k.

    Returns:
        One letter of the options, or None where none or more than one is chosen.
    """
    plain = re.sub(r"[*`_\"\u201c\u201d]+", "", _THOUGHT.sub("", text.replace("\r\n", "\n"))).strip()
    boxed = {letter.upper() for letter in _BOXED.findall(_THOUGHT.sub("", text))}
    if boxed:
        return _known(boxed, options)
    alone = _ALONE.fullmatch(plain)
    if alone:
        return _known({alone[1].upper()}, options)
    named = {found for match in _NAMED.finditer(plain) if (found := _named(match, plain, options))}
    if named:
        return _known(named, options)
    first = _FIRST.match(plain)
    if first:
        return _first(first, plain, options)
    return _by_text(plain, options)


def _known(letters: set[str], options: Sequence[str]) -> str | None:
    """The one letter, if it is an option's."""
    letter = letters.pop() if len(letters) == 1 else ""
    return letter if letter and letter in LETTERS[: len(options)] else None


def _named(match: re.Match[str], plain: str, options: Sequence[str]) -> str:
    """The letter of "the answer is C", unless it is the article of "the answer is A red car"."""
    letter, closed, rest = match[2] or match[5], match[3] or match[6], plain[match.end() :]
    if letter not in _ARTICLES or closed or _WORDS_AFTER.match(rest):
        return letter
    place = LETTERS.index(letter)
    return letter if place < len(options) and same(rest) == same(options[place]) else ""


def _first(match: re.Match[str], plain: str, options: Sequence[str]) -> str | None:
    """The letter in front of a text, unless other letters stand there too or the text is another option's."""
    letter = next(filter(None, match.groups())).upper()
    rest = plain[match.end() :]
    said = {LETTERS[k] for k, option in enumerate(options) if same(option) == same(rest)}
    if said:
        return _known({letter}, options) if letter in said else None
    others = {found for found in _MARKED.findall(rest) if found in LETTERS[: len(options)]}
    # "A, B" and "A: red B: blue": several letters, no choice
    others |= set(re.findall(r"(?:^|\s|and |or )([B-HJ-Z])(?=\s*(?:[.,:)]|$))", rest)) & set(
        LETTERS[: len(options)]
    )
    return None if others - {letter} else _known({letter}, options)


def _by_text(plain: str, options: Sequence[str]) -> str | None:
    """The option whose text was written, whole, cut short, or behind its letter without a mark."""
    for place, option in enumerate(options):
        if plain[:1] == LETTERS[place] and plain[1:2] == " " and same(plain[2:]) == same(option):
            return LETTERS[place]
    said = _spelled(plain)
    whole = [k for k, option in enumerate(options) if _spelled(option) == said]
    if whole:
        return LETTERS[whole[0]]  # options that say the same are right or wrong together
    # an answer of a few tokens may be cut in the middle of an option
    cut = {
        _spelled(option) for option in options if len(said.split()) > 1 and _spelled(option).startswith(said)
    }
    if len(cut) != 1:
        return None
    return LETTERS[next(k for k, option in enumerate(options) if _spelled(option) in cut)]


def _spelled(text: str) -> str:
    return re.sub(r"\bcannot\b|\bcan't\b", "can not", same(text))
