"""Who answers questions about captions, and how: the settings that reward and measure share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from limner.answering.draw import CANNOT_ANSWER
from limner.answering.prompt import OPTION, PROMPT, Prompt
from limner.client import Endpoint
from limner.errors import UserError

PUBLISHED_TEMPERATURE = 0.6
MAX_TOKENS = 8192
"""Tokens in one pass where nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """A language model that sees only the caption, and how it is asked multiple-choice questions."""

    path: str | None = None
    """The answerer in this process: any causal language model of Hugging Face, by hub id or folder. Or:"""
    endpoint: Endpoint | None = None
    """The answerer behind an OpenAI-compatible API."""
    seed: int = 0
    """Of the draws; with the sample's id (and, in training, the step) it decides what is asked and in which
    order."""
    cannot_answer: str | None = CANNOT_ANSWER
    """Text of one more option, always the last, and wrong unless a question has it too; null: none."""
    answer: Literal["letters", "generate"] | None = None
    """`letters` takes the option letter that is the likeliest next token, all questions of a caption in one
    pass; `generate` writes an answer and reads it. By default letters in process, generate at an endpoint."""
    temperature: Annotated[float, Ge(0)] | None = None
    """Of written answers; by default .6, as published. For `letters` by default 0, the likeliest letter; with
    a temperature a question earns the probability that a letter drawn at it is right."""
    max_new_tokens: Annotated[int, Ge(1)] = 10
    """The longest written answer."""
    tries: Annotated[int, Ge(1)] = 2
    """How often a written answer is asked for that no letter can be read from."""
    prompt: str = PROMPT
    """What is asked: a text with {caption}, {question} and {options}, the caption first."""
    option: str = OPTION
    """How one option is shown: a text with {letter} and {text}."""
    max_tokens: Annotated[int, Ge(1)] = MAX_TOKENS
    """Tokens in one pass in process, padding included: memory is bounded by it, not by the questions."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            UserError: not exactly one answerer, letters asked of an endpoint, or a prompt without its places.
        """
        if (self.path is None) == (self.endpoint is None):
            raise UserError("give one answerer: `path` of a language model, or an `endpoint`")
        if self.endpoint is not None and self.answer == "letters":
            raise UserError("answer: an endpoint shows no probabilities of letters: use generate")
        Prompt(self.prompt, self.option)

    @property
    def written(self) -> bool:
        """Whether answers are written out."""
        return self.endpoint is not None or self.answer == "generate"

    def plain(self) -> dict[str, object]:
        """What decides the answers, for files and comparisons: who, and how it is asked."""
        who = self.path if self.endpoint is None else f"{self.endpoint.model} at {self.endpoint.base_url}"
        temperature = self.temperature
        if temperature is None:
            temperature = PUBLISHED_TEMPERATURE if self.written else 0.0
        how = {"max_new_tokens": self.max_new_tokens, "tries": self.tries} if self.written else {}
        return {
            "answerer": who, "answer": "generate" if self.written else "letters", "temperature": temperature,
            **how, "seed": self.seed, "cannot_answer": self.cannot_answer,
            "prompt": self.prompt, "option": self.option,
        }  # fmt: skip
