"""Which option a model says is right: by letter, by letter and text, or by text alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from limner.curate import marks
from limner.data.qa_rows import same_text
from limner.questions import LETTERS

_LEADING = re.compile(
    r"(?:the\s+)?(?:correct\s+|right\s+)?(?:answer|option|choice|letter)\s*(?:is\b)?\s*[:\uff1a]?\s+(?=\S)",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    r"(?:both\s+)?[(\[]?([A-Z])[)\].]?\s*(?:,|&|\+|/|;|\s(?:and|or|und|et|y|e)\s|\u548c|\u3001)+\s*(?:and\s+|or\s+)?"
    r"[(\[]?([A-Z])[)\].]?(?:[\s,&/].*)?",
    re.DOTALL,
)
_LETTERED = re.compile(
    r"[(\[\uff08]?(\w)\s*(?:[)\].:,\uff09\uff1a\u3001]+|\s[-\u2013\u2014]+|\s+(?=\()|$)\s*(.*)", re.DOTALL
)
_NUMBERED = re.compile(r"[(\[]?(\d{1,2})\s*[)\].:]*\s*(.*)", re.DOTALL)
_BEHIND = re.compile(
    r"\s*(?:because|since|as|explanation|the|this|in|it|rationale|reason|note)\b", re.IGNORECASE
)


class Unclear(Exception):
    """The answer names no option, or more than one; `reason` is one of `limner.curate.parse.REASONS`."""

    def __init__(self, reason: str):
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


def place(said: str, options: Sequence[str], letters: Sequence[str], *, numbered: bool = False) -> int:
    """Place of the option that an answer means.

    Args:
        said: what stands behind "Answer:".
        options: their texts.
        letters: their letters, as they were given.
        numbered: whether they were given numbers instead.

    Raises:
        Unclear: none, several, or one by its letter and another by its text.
    """
    said = marks.plain(said).strip("\"'\u201c\u201d ")
    said = _LEADING.sub("", said, count=1) if _LEADING.match(said) else said
    texts = [same_text(text) for text in options]
    whole = {texts.index(text) for text in texts if text == same_text(said)}
    several = _SEVERAL.fullmatch(said)
    if several and several[1] in letters and several[2] in letters and several[1] != several[2] and not whole:
        raise Unclear("several answers")
    if numbered and (number := _NUMBERED.fullmatch(said)) and not whole:
        return _lettered(
            LETTERS[int(number[1]) - 1 : int(number[1])], number[2], texts, list(LETTERS[: len(texts)])
        )
    match = _LETTERED.fullmatch(said)
    letter = marks.latin(match[1]) if match else ""
    if match and letter and (len(said.strip("()[]. ")) == 1 or not whole):
        if letter not in letters and len(whole) == 1:
            return whole.pop()
        return _lettered(letter, match[2], texts, letters)
    if whole:
        return whole.pop()
    bare = re.fullmatch(r"([A-Z])\s+(.+)", said, re.DOTALL)
    if bare and bare[1] in letters and same_text(bare[2]) == texts[letters.index(bare[1])]:
        return letters.index(bare[1])
    raise Unclear("answer is no option")


def _lettered(letter: str, rest: str, texts: Sequence[str], letters: Sequence[str]) -> int:
    """The option of a letter, unless the text behind it is another's."""
    if letter not in letters:
        raise Unclear("answer outside the options")
    if letters.count(letter) > 1:
        raise Unclear("several answers")
    chosen = letters.index(letter)
    text = same_text(rest.strip("\"'()[]\u201c\u201d -\u2013\u2014"))
    if text and text in texts and texts[chosen] != text:
        raise Unclear("answer contradicts itself")
    return chosen
