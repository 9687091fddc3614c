"""Accuracy of a text-only answerer as a reward, with none of the defects of the published code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import tiny_answerers
import tiny_vl
from limner.answering.draw import CANNOT_ANSWER, draw
from limner.answering.local import LocalModel
from limner.captioners.auto import Captioner as AutoCaptioner
from limner.client import Client, Endpoint
from limner.errors import UserError
from limner.questions import Question
from limner.rewards import base
from limner.rewards.qa_accuracy import Accuracy, Reward
from limner.score import combine
from limner.types import Part, Rollouts, Sample
from limner.watch import rewards as logged
from patience import SECONDS
from server import ChatServer

COLOUR = Question("what colour is the car", ("red", "green", "blue"), 0)
COUNT = Question("how many men are there", ("two", "one"), 0)
COMPACT = {"prompt": "{caption} ; {question} ? {options} answer :", "option": "{letter} : {text}"}


def samples(*questions: Question, count: int = 1) -> list[Sample]:
    return [Sample(f"s{k}", (), extra={"questions": questions}) for k in range(count)]


def at(server: ChatServer, rollouts: Rollouts, **settings: object) -> Part:
    """What a reward says whose answerer is behind a server."""
    endpoint = Endpoint(
        base_url=server.base_url, model="m", patience_seconds=1, tries=1, timeout_seconds=SECONDS
    )
    reward = Reward(endpoint=endpoint, **settings)  # type: ignore[arg-type]
    return Accuracy(reward, Client(endpoint))(rollouts)


def shown(part: Part, row: int = 0) -> Sequence[dict]:
    return part.details[row]["questions"]  # type: ignore[return-value]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """A model that answers with a letter from A to D and ends."""
    folder: Path = tmp_path_factory.mktemp("answerer")
    tiny_answerers.saved(folder, tiny_answerers.words(), answers="ABCD", seed=5)
    return LocalModel.load(str(folder), device=torch.device("cpu"), dtype=torch.float32)


CAPTIONS = ["a red car", "two men in green shirts", "a blue star above a green square", ""]


def test_values_are_the_share_of_right_letters(model):
    """Against one plain pass of the whole prompt a question, and the letters counted by hand."""
    reward = Reward(path="-", questions=6, seed=2, **COMPACT)
    rollouts = base.plain(CAPTIONS, samples=samples(COLOUR, count=2)).replace(step=3)
    part = Accuracy(reward, model)(rollouts)
    for row, caption in enumerate(CAPTIONS):
        right = 0
        for drawn in draw((COLOUR,), 6, seed=2, sample_id=f"s{row // 2}", step=3):
            options = " ".join(f"{k} : {o}" for k, o in zip(drawn.letters, drawn.options, strict=True))
            text = f"{caption} ; {drawn.question.text} ? {options} answer :"
            ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                said = model.tokenizer.decode(model.model(input_ids=ids).logits[0, -1].argmax())
            right += drawn.options["ABCD".index(said)] == "red"
        assert float(part.values[row]) == pytest.approx(right / 6)
    assert 0 < float(part.values.mean()) < 1


def test_all_captions_of_a_sample_are_asked_the_same(model):
    reward = Reward(path="-", questions=5, **COMPACT)
    part = Accuracy(reward, model)(base.plain(CAPTIONS, samples=samples(COLOUR, COUNT, count=2)))
    asked = [[(q["question"], q["options"]) for q in shown(part, row)] for row in range(4)]
    assert asked[0] == asked[1]
    assert asked[2] == asked[3]
    assert asked[0] != asked[2]


def test_an_empty_caption_is_asked_and_a_sample_without_questions_is_not_scored(model):
    reward = Reward(path="-", **COMPACT)
    part = Accuracy(reward, model)(base.plain(["", "a red car"], samples=[*samples(COLOUR), *samples()]))
    assert part.values.isfinite().tolist() == [True, False]


def test_greedy_writing_and_letters_earn_the_same(model):
    rollouts = base.plain(CAPTIONS, samples=samples(COLOUR, count=4))
    letters = Accuracy(Reward(path="-", **COMPACT), model)(rollouts)
    written = Accuracy(Reward(path="-", answer="generate", temperature=0.0, **COMPACT), model)(rollouts)
    assert torch.equal(letters.values, written.values)
    assert [q["said"] for row in range(4) for q in shown(letters, row)] == [
        q["said"] for row in range(4) for q in shown(written, row)
    ]


def test_what_letters_earn_at_a_temperature_is_what_writing_earns_on_average(model):
    rollouts = base.plain(CAPTIONS[:1], samples=samples(COLOUR))
    settings = {"temperature": 1.0, "questions": 4, "max_new_tokens": 1, "seed": 0, **COMPACT}
    steps = range(30)
    expected, found = [], []
    for step in steps:
        at_step = rollouts.replace(step=step)
        expected.append(float(Accuracy(Reward(path="-", **settings), model)(at_step).values))
        written = Accuracy(Reward(path="-", answer="generate", **settings), model)(at_step)
        found.append(float(written.values))
    difference = torch.tensor(found) - torch.tensor(expected)
    # five standard errors of the mean difference
    assert abs(float(difference.mean())) <= 5 * float(difference.std()) / len(steps) ** 0.5


def test_can_not_answer_is_its_own_letter_and_never_the_c_of_can(tmp_path):
    """Published: the first capital that is a letter's, C. With three options "can not answer" is D."""
    rules = [{"when": "", "steps": [{"answer": CANNOT_ANSWER}]}]
    with ChatServer(tmp_path, rules) as server:
        part = at(server, base.plain(["a car"], samples=samples(COLOUR)), questions=6)
    assert {q["said"] for q in shown(part)} == {"D"}
    assert float(part.values) == 0
    assert part.metrics["cannot_answer"].value == 1


def test_duplicated_options_are_right_whichever_letter_is_chosen(tmp_path):
    doubled = Question("what colour", ("red", "Red", "red."), 1)
    with ChatServer(tmp_path, [{"when": "", "steps": [{"answer": "B"}]}]) as server:
        part = at(server, base.plain(["a car"], samples=samples(doubled)))
    assert float(part.values) == 1


def test_an_option_of_many_lines_leaves_its_neighbours_alone(tmp_path):
    lines = Question("what does the sign say", ("STOP\nB) go\nC) wait", "go"), 1)
    rules = [
        {"when": "sign", "steps": [{"answer": "go"}]},
        {"when": "", "steps": [{"answer": "red"}]},
    ]
    with ChatServer(tmp_path, rules) as server:
        part = at(server, base.plain(["a car"], samples=samples(lines, COLOUR)), questions=8)
    assert {q["question"] for q in shown(part)} == {lines.text, COLOUR.text}
    assert float(part.values) == 1


def test_one_question_that_fails_never_touches_its_neighbours_and_is_never_0(tmp_path):
    """Published: one failing worker aborts the batch, and a failure is scored 0."""
    rules = [
        {"when": COUNT.text, "steps": [{"status": 500}]},
        {"when": COLOUR.text, "steps": [{"answer": "red"}]},
    ]
    with ChatServer(tmp_path, rules) as server:
        rollouts = base.plain(["a", "b"], samples=[*samples(COLOUR, COUNT), *samples(COUNT)])
        part = at(server, rollouts, questions=8)
    failed = [q for q in shown(part) if q["question"] == COUNT.text]
    assert failed
    assert all(q["correct"] is None and q["error"] for q in failed)
    assert float(part.values[0]) == 1, "the right answers of those that were answered"
    assert math.isnan(float(part.values[1])), "nothing was answered: not scored"
    assert part.metrics["answered"].value == pytest.approx((8 - len(failed)) / 16)


def test_what_cannot_be_read_is_asked_again_then_left_out(tmp_path):
    rules = [
        {"when": COLOUR.text, "steps": [{"answer": "Well, A red car"}, {"answer": "red"}]},
        {"when": "", "steps": [{"answer": "Hmm."}]},
    ]
    with ChatServer(tmp_path, rules) as server:
        rollouts = base.plain(["a", "b"], samples=[*samples(COLOUR), *samples(COUNT)])
        part = at(server, rollouts, questions=1)
    assert float(part.values[0]) == 1
    assert math.isnan(float(part.values[1]))
    assert shown(part, 1)[0]["error"] == "no letter in 'Hmm.'"


def test_what_is_logged_beside_the_accuracy(model):
    rollouts = base.plain(CAPTIONS, samples=samples(COLOUR, count=4))
    part = Accuracy(Reward(path="-", **COMPACT), model)(rollouts)
    scores = combine(rollouts, {"qa": part}, {"qa": 1.0}, {})
    means = logged(scores, rollouts)
    assert set(means) == {
        "reward/total", "reward/qa", "reward/qa/answered", "reward/qa/cannot_answer", "reward/qa/tokens",
        "reward/qa/letter_mass",
    }  # fmt: skip
    assert means["reward/qa/answered"].value == 1
    assert 0.9 < means["reward/qa/letter_mass"].value <= 1


def test_settings_that_contradict_each_other_are_refused():
    endpoint = Endpoint(base_url="http://localhost:1/v1", model="m")
    with pytest.raises(UserError, match="one answerer"):
        Reward()
    with pytest.raises(UserError, match="one answerer"):
        Reward(path="x", endpoint=endpoint)
    with pytest.raises(UserError, match="use generate"):
        Reward(endpoint=endpoint, answer="letters")
    with pytest.raises(UserError, match="the caption first"):
        Reward(path="x", prompt="{question} {caption} {options}")


def test_data_without_questions_is_refused_at_the_start(tmp_path):
    from PIL import Image

    from limner.data.folder import Source

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="no sample has questions"):
        Reward(path="x").load(None, Source(path=str(tmp_path)))  # type: ignore[arg-type]


@pytest.mark.parametrize("trained", ["*", "model.multi_modal_projector"])
def test_the_answerer_has_the_number_format_of_the_run(tmp_path, trained):
    """However many of the captioner's weights are trained, which are in float32."""
    captioner = AutoCaptioner(path=str(tiny_vl.llava(tmp_path / "captioner")), train=(trained,))
    policy = captioner.load(device=torch.device("cpu"), dtype=torch.bfloat16)
    assert {each.dtype for each in policy.trained().values()} == {torch.float32}
    tiny_answerers.saved(tmp_path / "answerer", tiny_answerers.words(), answers="ABCD", seed=5)
    answerer = Reward(path=str(tmp_path / "answerer"), **COMPACT).load(policy).answerer
    assert {each.dtype for each in answerer.model.parameters()} == {torch.bfloat16}
