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
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Ge

from limner.answering.base import Asker
from limner.answering.draw import Drawn, draw, number
from limner.answering.exam import Answer, Exam
from limner.answering.settings import Asking
from limner.errors import Reject, UserError
from limner.questions import questions_of
from limner.rewards import base
from limner.types import Mean, Part, Rollouts, Sample

if TYPE_CHECKING:
    from limner.captioners.base import Policy
    from limner.data.base import Source

LOOKED_AT = 32
"""Samples of the data that are read at the start to see whether there are questions at all."""


@dataclass(frozen=True, kw_only=True)
class Reward(Asking, base.LoadedReward):
    """Share of questions about the image that a text-only model answers right from the caption (CapRL)."""

    questions: Annotated[int, Ge(1)] = 8
    """Questions drawn a sample and step, with replacement."""

    def load(self, captioner: Policy, data: Source | None = None) -> Callable[[Rollouts], Part]:
        """Load the answerer, in the number format of the run, or find its key.

        Raises:
            UserError: it can't be loaded, or the data has no questions.
        """
        if data is not None and not _has_questions(data):
            raise UserError(
                f"qa_accuracy: {data}: no sample has questions; `limner data questions` writes some"
            )
        exam = Exam.load(self, device=captioner.device, dtype=captioner.dtype)
        return Accuracy(self, exam.answerer)


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
        asked = [drawn[row // rollouts.captions] for row in range(len(rollouts.texts))]
        exam = Exam(self.settings, self.answerer)
        seed = number(self.settings.seed, rollouts.step) % 2**31
        answers = exam.answers(rollouts.texts, asked, seed=seed)
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
