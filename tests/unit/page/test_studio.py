"""A close look: the captions are the service's own, every number is what the captioner and rewards say."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
import torch

import served
from limner import captioners
from limner.captioners.base import Policy
from limner.decoding import Decoding
from limner.errors import UserError
from limner.page.results import Studied
from limner.page.rewards import Scorer
from limner.page.studio import Studio, Study
from limner.rewards.cider import Reward as Cider
from limner.serve.batching import Ask, Done, Job
from limner.serve.metrics import Metrics
from limner.types import Sample

GREEDY = Decoding(do_sample=False, max_new_tokens=30)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return captioners.load("world:captioner", device="cpu")


@pytest.fixture(scope="module")
def other() -> Policy:
    return captioners.load("world:video_captioner", device="cpu")


@pytest.fixture(scope="module")
def studio(policy: Policy, other: Policy) -> Studio:
    scorer = Scorer.of(None, "world:captioner", policy)
    return Studio(("served", policy), Metrics(), other=("other", other), scorer=scorer)


def answers(studio: Studio, *asks: Ask) -> list[Done]:
    async def run() -> list[Done]:
        jobs = [Job(ask) for ask in asks]
        studio.run(jobs)
        done = [await job.events.get() for job in jobs]
        assert all(isinstance(each, Done) for each in done), done
        return done  # type: ignore[return-value]

    return asyncio.run(run())


def study(number: int, **more: object) -> Study:
    return replace(Study((served.picture(number),), None, GREEDY, 1, 0), **more)


def test_the_served_captions_are_those_of_the_service_draws_too(studio: Studio) -> None:
    drawn = Decoding(temperature=1.5, max_new_tokens=30)
    asks = [study(number, decoding=drawn, captions=2, seed=7) for number in range(2)]
    plain = [Ask(ask.media, None, drawn, 2, 7) for ask in asks]
    assert [done.captions for done in answers(studio, *asks)] == [
        done.captions for done in answers(studio, *plain)
    ]


def test_numbers_under_the_tokens_are_the_captioner_s_own(studio: Studio, other: Policy) -> None:
    (done,) = answers(studio, study(3))
    assert isinstance(done, Studied)
    sample = Sample("x", (served.picture(3),))
    for side, policy in zip(done.sides, (other, studio.policy), strict=True):
        (told,) = side.captions
        tokens, mask = policy.tokenised([told.text])
        with torch.inference_mode():
            expected = policy.logprobs(policy.encode([sample]), tokens, mask)[0]
        # Generation goes token by token through a cache, this pass all at once: the last digits differ.
        assert [token.logprob for token in told.tokens] == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_first_return_is_the_reward_and_the_reward_the_weighted_sum(studio: Studio) -> None:
    (done,) = answers(studio, study(1))
    assert isinstance(done, Studied)
    for side in done.sides:
        (told,) = side.captions
        weights = [studio.scorer.rewards[part.name].weight for part in told.parts]
        values = [part.value for part in told.parts]
        assert told.total == pytest.approx(sum(w * v for w, v in zip(weights, values, strict=True)), abs=1e-4)
        assert told.tokens[0].earned == pytest.approx(told.total, abs=1e-4)


def test_a_reward_that_needs_references_says_so_where_there_are_none(policy: Policy) -> None:
    cider = Cider()
    scorer = Scorer({"cider": cider}, {"cider": lambda _: pytest.fail("scored without references")})
    made = policy.generate(inputs := policy.encode([sample := Sample("x", (served.picture(),))]), GREEDY)
    scored = scorer(policy.rollouts([sample], inputs, made))
    assert "written by people" in scored.parts[0][0].note
    assert math.isnan(scored.totals[0])
    assert scored.returns.isnan().all()


def test_no_rewards_are_loaded_where_none_are_wanted_or_known(policy: Policy) -> None:
    assert Scorer.of("none", "world:captioner", policy).rewards == {}
    assert Scorer.of(None, "somebody/model", policy).rewards == {}
    with pytest.raises(UserError, match="no/recipe"):
        Scorer.of("no/recipe", "world:captioner", policy)
