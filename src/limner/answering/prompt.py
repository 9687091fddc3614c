"""How a question about a caption is put to a language model.

Nothing in the prompt names a letter but the options themselves: the published prompt's example answered with
another letter than the one that "can not answer" has in the question below it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from limner.answering.base import Conversation
from limner.answering.draw import Drawn
from limner.errors import UserError

PROMPT = """Here is a caption of an image:
{caption}

Answer the question from the caption alone, with the letter of one option and nothing else.

Question: {question}
{options}
Answer:"""
"""The caption stands before everything that differs between its questions, so it is read once for all."""
OPTION = "{letter}) {text}"
_PLACES = re.compile(r"\{(caption|question|options)\}")
_PARTS = re.compile(r"\{(letter|text)\}")


@dataclass(frozen=True)
class Prompt:
    """A template of questions, and one of their options."""

    template: str = PROMPT
    """Text with {caption}, {question} and {options}, the caption first."""
    option: str = OPTION
    """One option with {letter} and {text}; options stand one a line."""

    def __post_init__(self) -> None:
        """Refuse a template that leaves something out.

        Raises:
            UserError: a placeholder is missing or stands twice, or the caption is not the first.
        """
        places = _PLACES.findall(self.template)
        if sorted(places) != ["caption", "options", "question"] or places[0] != "caption":
            raise UserError(
                "prompt: must hold {caption}, {question} and {options} once each, the caption first: "
                f"{self.template!r}"
            )
        if self.option.count("{letter}") != 1 or self.option.count("{text}") != 1:
            raise UserError(f"option: must hold {{letter}} and {{text}} once each: {self.option!r}")

    def conversation(self, caption: str, drawn: Drawn) -> Conversation:
        """One message of the user. What looks like a placeholder within a caption or option stays text."""
        parts = {
            "caption": caption,
            "question": drawn.question.text.strip(),
            "options": _shown(self.option, drawn.letters, drawn.options),
        }
        return [{"role": "user", "content": _filled(_PLACES, self.template, parts)}]


@lru_cache(maxsize=4096)
def _shown(option: str, letters: str, texts: tuple[str, ...]) -> str:
    """Options one a line; those of a drawn question are shown with every caption of its sample."""
    return "\n".join(
        _filled(_PARTS, option, {"letter": letter, "text": text})
        for letter, text in zip(letters, texts, strict=True)
    )


def _filled(places: re.Pattern[str], template: str, parts: dict[str, str]) -> str:
    return places.sub(lambda match: parts[match[1]], template)
