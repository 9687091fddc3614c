"""Reading the likeliest letter and writing an answer are two ways to the same accuracy."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

import tiny_answerers
from limner.answering.draw import Drawn, shuffled
from limner.answering.exam import Answer, Exam
from limner.answering.settings import Asking
from limner.data import world
from limner.questions import questions_of
from limner.world.captions import varied

CPU, SCENES = torch.device("cpu"), 40


@pytest.fixture(scope="module")
def asked() -> tuple[list[str], list[list[Drawn]]]:
    """Captions that say from nothing to all of held-out scenes, and the scenes' questions."""
    samples = list(world.Source(split="test", count=SCENES))
    rng = np.random.default_rng(0)
    captions = [varied(sample.extra["scene"], rng) for sample in samples]
    draws = [
        [
            shuffled(question, random.Random(f"{sample.id} {k}"))
            for k, question in enumerate(questions_of(sample))
        ]
        for sample in samples
    ]
    return captions, draws


def answers(exam: Exam, asked: tuple[list[str], list[list[Drawn]]]) -> list[Answer]:
    return [one for row in exam.answers(*asked, seed=3) for one in row]


def exam(path: str, **settings) -> Exam:
    return Exam.load(Asking(path=path, **settings), device=CPU, dtype=torch.float32)


def right(found: Sequence[Answer]) -> torch.Tensor:
    return torch.tensor([one.right for one in found], dtype=torch.float64)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory) -> str:
    """Writes a letter and ends, whatever it reads."""
    folder = tmp_path_factory.mktemp("answerer")
    return str(tiny_answerers.saved(folder, tiny_answerers.words(), answers="ABCD", seed=5))


@pytest.mark.parametrize("which", ["random", "world"])
def test_greedy_the_two_give_the_same_letter_to_every_question(which, random_model, asked):
    path = "world:answerer" if which == "world" else random_model
    read = answers(exam(path), asked)
    written = answers(exam(path, answer="generate", temperature=0.0), asked)
    assert [one.letter for one in read] == [one.letter for one in written]
    assert torch.equal(right(read), right(written))
    assert len({one.letter for one in read}) > 2


def test_at_the_published_temperature_accuracies_differ_by_what_chance_explains(asked):
    """On the miniature world; for a random model see the tests of the reward."""
    written = right(answers(exam("world:answerer", answer="generate"), asked))
    likeliest = right(answers(exam("world:answerer"), asked))
    chances = right(answers(exam("world:answerer", temperature=0.6), asked))
    assert written.isfinite().all()
    assert 0.5 < float(likeliest.mean()) < 0.95
    # two standard errors of the accuracy over so many questions
    error = (likeliest.mean() * (1 - likeliest.mean()) / len(likeliest)) ** 0.5
    assert abs(float(written.mean() - likeliest.mean())) <= 2 * float(error)
    # a written answer is right with the probability that was read, so their sum varies by these
    drawn = (chances * (1 - chances)).sum().sqrt()
    # five standard errors: the seed is fixed, and a defect is far more
    assert abs(float((written - chances).sum())) <= 5 * float(drawn)
