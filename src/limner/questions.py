"""Multiple-choice questions about a sample: what CapRL's reward, curation and Prism ask a language model.

Options are held by their place, never by their letter or text: letters belong to the order in which a
question is asked once, and two options may say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limner.errors import Reject

if TYPE_CHECKING:
    from limner.types import Sample

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Names of options in the order in which they are shown."""
KEY = "questions"
"""Where a sample holds its questions: `extra["questions"]`, a sequence of `Question`."""


@dataclass(frozen=True)
class Question:
    """One question, its options, and which of them is right."""

    text: str
    """The question."""
    options: tuple[str, ...]
    """Two options or more, without letters in front."""
    answer: int
    """Place of the right option, from 0."""
    kind: str = ""
    """What it asks for, where that is known: existence, colour, count, ..."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked.

        Raises:
            Reject: no text, fewer than two options, more than there are letters, an empty option, or no such
                answer.
        """
        if not self.text.strip():
            raise Reject("a question without text")
        if len(self.options) < 2:
            raise Reject(f"question {self.text!r}: {len(self.options)} options; at least two are needed")
        # the last letter is left for "cannot answer"
        if len(self.options) >= len(LETTERS):
            raise Reject(f"question {self.text!r}: {len(self.options)} options; there are letters for 25")
        if any(not option.strip() for option in self.options):
            raise Reject(f"question {self.text!r}: an option without text")
        if not 0 <= self.answer < len(self.options):
            raise Reject(f"question {self.text!r}: no option {self.answer}; there are {len(self.options)}")

    def plain(self) -> dict[str, Any]:
        """As JSON; see `of`."""
        return {
            "question": self.text, "options": list(self.options), "answer": self.answer, "kind": self.kind
        }  # fmt: skip

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Question:
        """From `plain()`.

        Raises:
            Reject: something is missing or of another type, or the question cannot be asked.
        """
        text, options, answer = row.get("question"), row.get("options"), row.get("answer")
        if not isinstance(text, str):
            raise Reject(f"a question must have text in `question`: {text!r}")
        if not isinstance(options, Sequence) or isinstance(options, str):
            raise Reject(f"question {text!r}: `options` must be a list of texts")
        if not all(isinstance(option, str) for option in options):
            raise Reject(f"question {text!r}: `options` must be a list of texts")
        if isinstance(answer, bool) or not isinstance(answer, int):
            raise Reject(f"question {text!r}: `answer` must be the place of an option from 0: {answer!r}")
        return cls(text, tuple(options), answer, str(row.get("kind", "")))


def questions_of(sample: Sample) -> tuple[Question, ...]:
    """The questions of a sample; none where it has none."""
    held = sample.extra.get(KEY, ())
    return tuple(held) if isinstance(held, Sequence) else ()
