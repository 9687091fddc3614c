"""What every reward must hold. A new file in limner/rewards is found here by itself."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import pad

import tiny
import tiny_answerers
import tiny_judges
from limner import captioners, component
from limner.captioners.base import Policy
from limner.client import Endpoint
from limner.decoding import Decoding
from limner.metrics.cider import DocumentFrequencies
from limner.questions import Question
from limner.rewards.base import AnyReward, plain
from limner.rollout import micro_batches, roll_out
from limner.score import combine
from limner.types import Part, Rollouts
from server import ChatServer

NAMES = list(component.available("rewards"))
SETTINGS: dict[str, Callable[[Any], dict[str, object]]] = {
    "itm": lambda folder: {"path": str(tiny_judges.itm(folder / "itm")), "micro_batch": 3},
    "clip_contrast": lambda folder: {"path": str(tiny_judges.clip(folder / "clip"))},
    "length": lambda folder: {"full": 6, "zero": 14},
    "judge": lambda folder: judged(folder / "server"),
    "qa_accuracy": lambda folder: {
        "path": str(tiny_answerers.saved(folder, tiny_answerers.words("cross"))),
        "temperature": 0.6,
        "prompt": "{caption} ; {question} ? {options} answer :",
        "option": "{letter} : {text}",
    },
    "cider": lambda folder: {"df": str(document_frequencies(folder / "df.json"))},
}
"""Settings for rewards that need some, or whose defaults would make every caption equal."""
QUESTIONS = (
    Question("what is it on", ("red", "blue", "street"), 1),
    Question("is it a star", ("yes", "no"), 0),
)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def references(place: int) -> tuple[str, ...]:
    """Captions in the words of the tiny captioner; every sample has others, and more of them."""
    shapes = ("a red circle", "a green star and a blue square", "the cross is below a yellow circle")
    return tuple(
        f"{shape} on {colour}" for shape in shapes for colour in ("white", "black", "grey")[: place + 1]
    )


GRADES = {"when": "", "steps": [{"answer": '{{"score": {number}}}'}]}
"""A server that grades by what it is asked, and always the same way."""
SERVERS: list[ChatServer] = []


def judged(folder: Path) -> dict[str, object]:
    SERVERS.append(ChatServer(folder, [GRADES]))
    atexit.register(SERVERS[-1].__exit__)
    return {"endpoint": Endpoint(base_url=SERVERS[-1].base_url, model="m")}


def document_frequencies(path: Path) -> Path:
    DocumentFrequencies.of([[text.split() for text in references(place)] for place in range(3)]).save(path)
    return path


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = tiny.blip2(tmp_path_factory.mktemp("captioner"))
    return captioners.load(str(folder), device="cpu")


@pytest.fixture(scope="module", params=NAMES)
def reward(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AnyReward:
    name = request.param
    settings = SETTINGS.get(name, lambda _: {})(tmp_path_factory.mktemp(name))
    return component.find("rewards", name)(**settings)


@pytest.fixture(scope="module")
def loaded(reward: AnyReward, policy: Policy) -> Callable[[Rollouts], Part]:
    return reward.load(policy)


def sampled(policy: Policy, captions: int) -> Rollouts:
    return roll_out(
        policy,
        [
            replace(sample, references=references(place), extra={**sample.extra, "questions": QUESTIONS})
            for place, sample in enumerate(tiny.samples(5))
        ],
        Decoding(do_sample=True, max_new_tokens=20),
        captions=captions,
        micro_batch=64,
        needs=frozenset({"lm_logprobs"}),
        generator=torch.Generator().manual_seed(3),
    )


def test_is_a_frozen_reward_with_a_sentence_for_the_list(reward: AnyReward) -> None:
    assert isinstance(reward, AnyReward)
    with pytest.raises(AttributeError):
        reward.weight = 2.0  # type: ignore[misc]
    name = type(reward).__module__.rpartition(".")[2]
    assert component.available("rewards")[name].endswith(".")


def test_its_examples_score_as_declared(reward: AnyReward, loaded: Callable[[Rollouts], Part]) -> None:
    if loaded is reward and not reward.needs:
        assert reward.examples, "a reward without a model proves itself on examples"
    for example in reward.examples:
        samples = None if example.sample is None else [example.sample]
        part = type(reward)()(plain([example.caption], ended=example.ended, samples=samples))
        assert float(part.values.sum()) == pytest.approx(example.expected, abs=example.tolerance), example


@pytest.mark.parametrize("captions", [1, 3])
def test_shape_and_details(
    reward: AnyReward, loaded: Callable[[Rollouts], Part], policy: Policy, captions: int
) -> None:
    rollouts = sampled(policy, captions)
    part = loaded(rollouts)
    rows, width = rollouts.tokens.shape
    assert part.values.shape == ((rows,) if reward.per == "caption" else (rows, width))
    assert part.values.isfinite().all()
    assert not part.values.requires_grad
    assert len(part.details) in (0, rows)
    if reward.per == "token":
        assert (part.values[~rollouts.caption_mask] == 0).all()
    assert torch.equal(loaded(rollouts).values, part.values), "the same captions, another score"


@pytest.mark.parametrize("captions", [1, 3])
def test_rows_score_as_they_do_alone(
    reward: AnyReward, loaded: Callable[[Rollouts], Part], policy: Policy, captions: int
) -> None:
    rollouts = sampled(policy, captions)
    whole = loaded(rollouts).values
    alone = torch.full_like(whole, float("nan"))
    for rows, part in micro_batches(rollouts, 1):
        values = loaded(part).values
        alone[rows] = values if values.dim() == 1 else pad(values, (0, whole.shape[1] - values.shape[1]))
    assert torch.allclose(alone, whole, **CLOSE) != reward.batch, "`batch` must say what is so"


def test_padding_columns_change_nothing(
    reward: AnyReward, loaded: Callable[[Rollouts], Part], policy: Policy
) -> None:
    rollouts = sampled(policy, 2)
    assert rollouts.lm_logprobs is not None
    longer = rollouts.replace(
        tokens=pad(rollouts.tokens, (0, 3), value=7),
        caption_mask=pad(rollouts.caption_mask, (0, 3)),
        logprobs=pad(rollouts.logprobs, (0, 3), value=-9.0),
        lm_logprobs=pad(rollouts.lm_logprobs, (0, 3), value=-9.0),
    )
    values, found = loaded(rollouts).values, loaded(longer).values
    if reward.per == "token":
        values = pad(values, (0, 3))
    torch.testing.assert_close(found, values, **CLOSE)


WORD_TABLES: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "itm": lambda loaded: (loaded.model.tokenizer, loaded.model.model.embeddings.word_embeddings),
    "clip_contrast": lambda loaded: (
        loaded.clip.tokenizer,
        loaded.clip.model.text_model.embeddings.token_embedding,
    ),
    "qa_accuracy": lambda loaded: (
        loaded.answerer.tokenizer,
        loaded.answerer.model.get_input_embeddings(),
    ),
}
"""Tokenizer and word embeddings of rewards that hold a model."""


@contextlib.contextmanager
def broken_word(name: str, loaded: Any, word: str) -> Iterator[None]:
    """While this lasts, a reward's model fails on captions that hold the word."""
    if name == "judge":
        SERVERS[-1].follow([{"when": word, "steps": [{"answer": "no grade"}]}, GRADES])
        yield
        SERVERS[-1].follow([GRADES])
        return
    if name not in WORD_TABLES:
        yield
        return
    tokenizer, table = WORD_TABLES[name](loaded)
    index = tokenizer.convert_tokens_to_ids(word)
    before = table.weight.data[index].clone()
    table.weight.data[index] = float("nan")
    yield
    table.weight.data[index] = before


def test_failure_is_nan_counted_and_never_zero(
    reward: AnyReward, loaded: Callable[[Rollouts], Part], policy: Policy
) -> None:
    name = type(reward).__module__.rpartition(".")[2]
    rollouts = sampled(policy, 1)
    texts = [text.replace("cross", "star") for text in rollouts.texts]
    lm_logprobs = rollouts.lm_logprobs
    assert lm_logprobs is not None
    lm_logprobs[2, 0] = float("nan")
    samples = [
        replace(sample, references=()) if i == 2 else sample for i, sample in enumerate(rollouts.samples)
    ]
    rollouts = rollouts.replace(
        samples=tuple(samples), texts=(*texts[:2], "a cross", *texts[3:]), lm_logprobs=lm_logprobs
    )
    with broken_word(name, loaded, "cross"):
        part = loaded(rollouts)
    others = torch.arange(5) != 2
    assert part.values[others].isfinite().all()
    if loaded is reward and not reward.needs:
        assert part.values.isfinite().all()  # it reads words and masks, which can't fail
        return
    assert part.values[2].isnan().all()
    scores = combine(rollouts, {name: part}, {name: 1.0}, {})
    assert scores.scored.tolist() == others.tolist()
    assert scores.totals[2].isnan()
    if not reward.batch:
        torch.testing.assert_close(part.values[others], loaded(rollouts).values[others], **CLOSE)
