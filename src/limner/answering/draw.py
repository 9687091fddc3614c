"""A question as it is asked once: which one, and its options in a drawn order.

CapRL (arXiv 2509.22647) draws Q questions of an image uniformly WITH replacement and shuffles the options at
every draw. Right is whatever says the same as the right option: where two options read alike nobody could
tell them apart, so both letters count.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from limner.errors import Reject
from limner.questions import LETTERS, Question

CANNOT_ANSWER = "Can not answer based on the caption"
"""The published text of the last option."""


@dataclass(frozen=True)
class Drawn:
    """A question with its options in the order in which they are shown."""

    question: Question
    """What is asked."""
    options: tuple[str, ...]
    """Texts in the order shown, one line each; the last may be "cannot answer". Option k has letter k."""
    right: frozenset[str]
    """Letters that are right: one, or several where options say the same."""
    cannot: str = ""
    """Letter of "cannot answer"; empty where it is not offered."""

    @property
    def letters(self) -> str:
        """Letters of the options."""
        return LETTERS[: len(self.options)]


def one_line(text: str) -> str:
    """A text without line breaks: an option over several lines would look like several options."""
    return " ".join(text.split())


def same(text: str) -> str:
    """What two options that say the same have in common: not case, spaces or a full stop."""
    return one_line(text).casefold().removesuffix(".")


def shuffled(question: Question, rng: random.Random, cannot_answer: str | None = CANNOT_ANSWER) -> Drawn:
    """The question with its options in a random order.

    Args:
        question: What is asked.
        rng: Where the order comes from.
        cannot_answer: Text of one more option, which is always the last; None for none.

    Raises:
        Reject: there are more options than letters.
    """
    if len(question.options) + (cannot_answer is not None) > len(LETTERS):
        raise Reject(
            f"question {question.text!r}: {len(question.options)} options; there are no more letters"
        )
    # Only random() is promised to give the same numbers in every version of Python.
    order = sorted(range(len(question.options)), key=lambda _: rng.random())
    options = [one_line(question.options[place]) for place in order]
    cannot = ""
    if cannot_answer is not None:
        cannot = LETTERS[len(options)]
        options.append(one_line(cannot_answer))
    wanted = same(question.options[question.answer])
    right = frozenset(LETTERS[k] for k, option in enumerate(options) if same(option) == wanted)
    return Drawn(question, tuple(options), right, cannot)


def draw(
    questions: Sequence[Question],
    count: int,
    *,
    seed: int,
    sample_id: str,
    step: int,
    cannot_answer: str | None = CANNOT_ANSWER,
) -> tuple[Drawn, ...]:
    """`count` questions, uniformly with replacement, the options shuffled at every draw.

    The same seed, sample and step give the same draw, on every machine and in every batch.

    Args:
        questions: Those of one sample; of none nothing is drawn.
        count: How many to draw.
        seed: Of the run.
        sample_id: The sample's.
        step: The step of the run.
        cannot_answer: Text of one more option, the last; None for none.
    """
    if not questions:
        return ()
    rng = random.Random(number(seed, sample_id, step))
    return tuple(
        shuffled(questions[int(rng.random() * len(questions))], rng, cannot_answer) for _ in range(count)
    )


def number(*parts: object) -> int:
    """A number of 64 bits made of the parts, the same on every machine; for seeds."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf8", "surrogatepass")).digest()[:8], "big")
