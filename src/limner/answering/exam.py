"""Asks a language model multiple-choice questions about captions and marks its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from weakref import WeakValueDictionary

import torch

from limner.answering.base import Asker, Conversation
from limner.answering.draw import Drawn
from limner.answering.letters import read_letter
from limner.answering.local import LocalModel
from limner.answering.prompt import Prompt
from limner.answering.settings import PUBLISHED_TEMPERATURE, Asking
from limner.client import Client

_LOADED: WeakValueDictionary[tuple[str, str, torch.dtype, int], LocalModel] = WeakValueDictionary()
"""Models in use, so that the reward and the measure of one run hold one copy."""


@dataclass(frozen=True)
class Answer:
    """What was answered to one question."""

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
            **({"kind": drawn.question.kind} if drawn.question.kind else {}),
            "options": list(drawn.options),
            "right": "".join(sorted(drawn.right)),
            "said": self.letter,
            "correct": None if self.right != self.right else self.right,
            **({"error": self.error} if self.error else {}),
        }


@dataclass(frozen=True)
class Exam:
    """A loaded answerer, and how it is asked."""

    settings: Asking
    """How to ask."""
    answerer: Asker
    """Who answers."""

    @classmethod
    def load(cls, settings: Asking, *, device: torch.device, dtype: torch.dtype) -> Self:
        """Load the answerer, or find its key. A model that is in use already is not loaded again.

        Raises:
            UserError: it can't be loaded.
        """
        if settings.endpoint is not None:
            return cls(settings, Client(settings.endpoint))
        assert settings.path is not None
        key = settings.path, str(device), dtype, settings.max_tokens
        model = _LOADED.get(key)
        if model is None:
            model = LocalModel.load(settings.path, device=device, dtype=dtype, max_tokens=settings.max_tokens)
            _LOADED[key] = model
        return cls(settings, model)

    def answers(
        self, captions: Sequence[str], asked: Sequence[Sequence[Drawn]], *, seed: int
    ) -> list[list[Answer]]:
        """What is answered from each caption to each of its questions.

        Args:
            captions: N captions.
            asked: the questions of each.
            seed: of written answers.
        """
        prompt = Prompt(self.settings.prompt, self.settings.option)
        prompts = [
            [prompt.conversation(text, each) for each in draws]
            for text, draws in zip(captions, asked, strict=True)
        ]
        if isinstance(self.answerer, LocalModel) and not self.settings.written:
            return self._letters(self.answerer, prompts, asked)
        return self._written(prompts, asked, seed)

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
