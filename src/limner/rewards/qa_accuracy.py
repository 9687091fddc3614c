"""How many questions about the image a text-only model answers from the caption: CapRL (arXiv 2509.22647).

R(caption) = the share of right answers to Q questions, drawn uniformly with replacement from those of the
image, options shuffled at every draw, with one more option "cannot answer". The policy never sees a question.

Deviations from the published code:

1. All captions of a sample are asked the same draw, so that they are compared on equal questions (the
   published code draws for every caption).
2. In process the answer is the most probable option letter, read from the next-token probabilities after the
   prompt; `answer: generate` writes it out at temperature .6 in at most 10 tokens, as published.
3. An answer that could not be had or read is no answer: it is asked again, then left out and counted, and a
   caption of which no question was answered is not scored. Published: 0.
4. The prompt has no example; options that say the same as the right one are right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from annotated_types import Ge

from limner.answering.base import Asker, Conversation
from limner.answering.draw import CANNOT_ANSWER, Drawn, draw, number
from limner.answering.letters import read_letter
from limner.answering.local import MAX_TOKENS, LocalModel
from limner.answering.prompt import OPTION, PROMPT, Prompt
from limner.client import Client, Endpoint
from limner.errors import Reject, UserError
from limner.questions import questions_of
from limner.rewards import base
from limner.types import Mean, Part, Rollouts, Sample

if TYPE_CHECKING:
    from limner.captioners.base import Policy
    from limner.data.base import Source

PUBLISHED_TEMPERATURE = 0.6
LOOKED_AT = 32
"""Samples of the data that are read at the start to see whether there are questions at all."""


@dataclass(frozen=True, kw_only=True)
class Reward(base.LoadedReward):
    """Share of questions about the image that a text-only model answers right from the caption (CapRL)."""

    path: str | None = None
    """The answerer in this process: any causal language model of Hugging Face, by hub id or folder. Or:"""
    endpoint: Endpoint | None = None
    """The answerer behind an OpenAI-compatible API."""
    questions: Annotated[int, Ge(1)] = 8
    """Questions drawn a sample and step, with replacement."""
    seed: int = 0
    """Of the draws; with the sample's id and the step it decides what is asked and in which order."""
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
    """Tokens in one pass in process, padding included: memory is bounded by it, not by `questions`."""

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

    def load(self, captioner: Policy, data: Source | None = None) -> Callable[[Rollouts], Part]:
        """Load the answerer, in the number format of the captioner's frozen weights, or find its key.

        Raises:
            UserError: it can't be loaded, or the data has no questions.
        """
        if data is not None and not _has_questions(data):
            raise UserError(
                f"qa_accuracy: {data}: no sample has questions; `limner data questions` writes some"
            )
        if self.endpoint is not None:
            return Accuracy(self, Client(self.endpoint))
        assert self.path is not None
        dtype = base.frozen_dtype(captioner)
        model = LocalModel.load(self.path, device=captioner.device, dtype=dtype, max_tokens=self.max_tokens)
        return Accuracy(self, model)


@dataclass(frozen=True)
class Answer:
    """What was answered to one drawn question."""

    right: float = float("nan")
    """1 right, 0 wrong, between where it is a probability; NaN where there is no answer."""
    letter: str = ""
    """The letter chosen; empty where there is no answer."""
    error: str = ""
    """Why there is none."""
    tokens: int = 0
    """Tokens read and written for it; without an answer too."""
    mass: float = float("nan")
    """Probability of all option letters together as the next token; of letters only."""

    def shown(self, drawn: Drawn) -> dict[str, object]:
        """For the report."""
        return {
            "question": drawn.question.text,
            "options": list(drawn.options),
            "right": "".join(sorted(drawn.right)),
            "said": self.letter,
            "correct": None if self.right != self.right else self.right,
            **({"error": self.error} if self.error else {}),
        }


@dataclass(frozen=True)
class Accuracy:
    """A loaded answerer that scores roll-outs."""

    settings: Reward
    """How to ask."""
    answerer: Asker
    """Who answers."""

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N,) share of right answers; NaN for a sample without questions or a caption without an answer."""
        drawn = [self._drawn(sample, rollouts.step) for sample in rollouts.samples]
        prompt = Prompt(self.settings.prompt, self.settings.option)
        asked = [drawn[row // rollouts.captions] for row in range(len(rollouts.texts))]
        prompts = [
            [prompt.conversation(text, each) for each in draws]
            for text, draws in zip(rollouts.texts, asked, strict=True)
        ]
        if isinstance(self.answerer, LocalModel) and self.settings.answer != "generate":
            answers = self._letters(self.answerer, prompts, asked)
        else:
            answers = self._written(prompts, asked, number(self.settings.seed, rollouts.step) % 2**31)
        values = torch.tensor([Mean.of([answer.right for answer in row]).value for row in answers])
        details = tuple(
            {"questions": [answer.shown(each) for answer, each in zip(row, draws, strict=True)]}
            for row, draws in zip(answers, asked, strict=True)
        )
        return Part(values.float(), details, _metrics(answers, asked))

    def _drawn(self, sample: Sample, step: int) -> tuple[Drawn, ...]:
        settings = self.settings
        return draw(
            questions_of(sample), settings.questions,
            seed=settings.seed, sample_id=sample.id, step=step, cannot_answer=settings.cannot_answer,
        )  # fmt: skip

    def _letters(
        self,
        model: LocalModel,
        prompts: Sequence[Sequence[Conversation]],
        asked: Sequence[Sequence[Drawn]],
    ) -> list[list[Answer]]:
        """Answers by the probabilities of the letters."""
        groups = [
            [(prompt, len(each.letters)) for prompt, each in zip(row, draws, strict=True)]
            for row, draws in zip(prompts, asked, strict=True)
        ]
        temperature = self.settings.temperature or 0.0
        return [
            [
                Answer(error=score.error, tokens=score.tokens)
                if score.logprobs is None
                else _chosen(score.logprobs, each, tokens=score.tokens, temperature=temperature)
                for score, each in zip(row, draws, strict=True)
            ]
            for row, draws in zip(model.letters(groups), asked, strict=True)
        ]

    def _written(
        self, prompts: Sequence[Sequence[Conversation]], asked: Sequence[Sequence[Drawn]], seed: int
    ) -> list[list[Answer]]:
        """Answers read from what was written; an unreadable one is asked for again."""
        settings = self.settings
        temperature = PUBLISHED_TEMPERATURE if settings.temperature is None else settings.temperature
        answers: dict[tuple[int, int], Answer] = {}
        left = [(row, k) for row, draws in enumerate(asked) for k in range(len(draws))]
        # written greedily, the same would come again
        for attempt in range(settings.tries if temperature > 0 else 1):
            replies = self.answerer.ask(
                [prompts[row][k] for row, k in left],
                max_new_tokens=settings.max_new_tokens, temperature=temperature, seed=seed + attempt,
            )  # fmt: skip
            again: list[tuple[int, int]] = []
            for (row, k), reply in zip(left, replies, strict=True):
                before = answers.get((row, k), Answer()).tokens
                tokens = before + reply.prompt_tokens + reply.completion_tokens
                if reply.text is None:  # whoever was asked has tried again already
                    answers[row, k] = Answer(error=reply.error, tokens=tokens)
                    continue
                letter = read_letter(reply.text, asked[row][k].options)
                if letter is None:
                    again.append((row, k))
                    answers[row, k] = Answer(error=f"no letter in {reply.text[:80]!r}", tokens=tokens)
                else:
                    answers[row, k] = Answer(float(letter in asked[row][k].right), letter, tokens=tokens)
            left = again
            if not left:
                break
        return [[answers[row, k] for k in range(len(draws))] for row, draws in enumerate(asked)]


def _chosen(logprobs: torch.Tensor, drawn: Drawn, *, tokens: int, temperature: float) -> Answer:
    """The likeliest letter, and how right it is at a temperature."""
    letter = drawn.letters[int(logprobs.argmax())]
    right = float(letter in drawn.right)
    if temperature > 0:
        shares = (logprobs / temperature).softmax(0)
        right = float(sum(shares[drawn.letters.index(each)] for each in drawn.right))
    return Answer(right, letter, tokens=tokens, mass=float(logprobs.exp().sum()))


def _metrics(answers: Sequence[Sequence[Answer]], asked: Sequence[Sequence[Drawn]]) -> Mapping[str, Mean]:
    """What is logged beside the accuracy; the same keys whatever was answered."""
    both: list[tuple[Answer, Drawn]] = [
        pair for row, draws in zip(answers, asked, strict=True) for pair in zip(row, draws, strict=True)
    ]
    said = [(answer, drawn) for answer, drawn in both if answer.letter]
    metrics = {
        "answered": Mean(float(len(said)), float(len(both))),
        "cannot_answer": Mean.of([float(answer.letter == drawn.cannot) for answer, drawn in said]),
        "tokens": Mean(float(sum(answer.tokens for answer, _ in both)), float(len(answers))),
    }
    masses: list[Any] = [answer.mass for answer, _ in said]
    return metrics | {"letter_mass": Mean.of(masses)}


def _has_questions(data: Source) -> bool:
    """Whether one of some samples, spread over the data, has questions."""
    for index in range(0, len(data), max(1, len(data) // LOOKED_AT)):
        try:
            if questions_of(data.read(index)):
                return True
        except Reject:
            continue
    return False
