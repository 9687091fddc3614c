"""From what a model wrote to questions; what cannot be used is counted by reason, never guessed.

Models are asked for one plain form and give many: Markdown, numbers, bullets, letters left out, options in
one line, the answer as a letter, a text, or both, JSON, prose around it. All of them are read here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from limner.curate import answers, json_output
from limner.curate.drafts import Draft, Reader
from limner.data.qa_rows import same_text
from limner.errors import Reject
from limner.questions import Question

REASONS = {
    "nothing found": "no question in the text",
    "cut off": "the text ends within a question",
    "no question": "options without a question in front",
    "no options": "a question without options",
    "one option": "fewer than two different options",
    "empty option": "an option without text",
    "too many options": "more options than letters",
    "no answer": "nothing says which option is right",
    "several answers": "more than one option is called right",
    "answer outside the options": "the letter of the answer is no option's",
    "answer is no option": "the text of the answer is no option's",
    "answer contradicts itself": "the letter of one option with the text of another",
    "repeated": "the same question stood before in the same text",
}
"""Why a question is rejected, by the word that is counted."""
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w-]*[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Refused:
    """A question that cannot be used."""

    reason: str
    """One of `REASONS`."""
    text: str
    """What was written, as far as it was understood."""


@dataclass(frozen=True)
class Parsed:
    """What one text gave."""

    questions: tuple[Question, ...]
    """In order."""
    refused: tuple[Refused, ...]
    """The others."""
    mended: Counter[str] = field(default_factory=Counter[str])
    """What was put right: "duplicate options" (one of two that say the same is dropped)."""


def parse(text: str) -> Parsed:
    """The questions in a text, and those that cannot be used.

    Args:
        text: as the model wrote it; anything is allowed.
    """
    text = _FENCE.sub("", _THOUGHT.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))).strip(
        "\ufeff \n\t"
    )
    drafts = json_output.drafts(text)
    if drafts is None:
        drafts = Reader().read(text)
    questions: list[Question] = []
    refused: list[Refused] = []
    mended: Counter[str] = Counter()
    seen: set[Any] = set()
    for number, draft in enumerate(drafts):
        try:
            question = _question(draft, mended)
            key = (same_text(question.text), frozenset(map(same_text, question.options)))
            if key in seen:
                raise answers.Unclear("repeated")
            seen.add(key)
            questions.append(question)
        except answers.Unclear as unclear:
            last = number == len(drafts) - 1 and not draft.said and not _ended(text)
            cut = last and unclear.reason in ("no answer", "no options", "one option", "empty option")
            refused.append(Refused("cut off" if cut else unclear.reason, draft.shown))
    if not drafts:
        refused.append(Refused("nothing found", text[:500]))
    return Parsed(tuple(questions), tuple(refused), mended)


def _ended(text: str) -> bool:
    """Whether a text ends where a sentence does, so that its last question was meant to be so."""
    return text.rstrip("*_` \n")[-1:] in tuple(".?!)]}\u3002\uff1f")


def _question(draft: Draft, mended: Counter[str]) -> Question:
    """A question that can be asked.

    Raises:
        Unclear: the reason.
    """
    draft = draft.settled()
    if not draft.text:
        raise answers.Unclear("no question")
    if not draft.options:
        raise answers.Unclear("no options")
    if any(not option.text for option in draft.options):
        raise answers.Unclear("empty option")
    right = _right(draft)
    options, right, dropped = _different([option.text for option in draft.options], right)
    if len(options) < 2:
        raise answers.Unclear("one option")
    try:
        question = Question(draft.text, tuple(options), right, draft.kind)
    except Reject:
        raise answers.Unclear("too many options") from None
    mended["duplicate options"] += dropped
    return question


def _right(draft: Draft) -> int:
    texts, letters = [option.text for option in draft.options], [option.letter for option in draft.options]
    if draft.said:
        places = {answers.place(said, texts, letters, numbered=draft.numbered) for said in draft.said}
    else:
        places = {place for place, option in enumerate(draft.options) if option.right}
        bold = [place for place, option in enumerate(draft.options) if option.bold]
        if not places and len(bold) == 1 and len(texts) > 2:
            places = set(bold)
    if not places:
        raise answers.Unclear("no answer")
    if len({same_text(texts[place]) for place in places}) > 1:
        raise answers.Unclear("several answers")
    return min(places)


def _different(options: Sequence[str], right: int) -> tuple[list[str], int, int]:
    """Options without those that say what one before them says, and the place of the right one there."""
    kept: dict[str, str] = {}
    for option in options:
        kept.setdefault(same_text(option), option)
    return list(kept.values()), list(kept).index(same_text(options[right])), len(options) - len(kept)
