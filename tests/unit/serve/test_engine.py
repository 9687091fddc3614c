"""The captioner behind the queue: what a request is given does not depend on the requests beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

import served
from limner import captioners
from limner.captioners.base import Policy
from limner.captioners.stepwise import Stepwise
from limner.decoding import Decoding
from limner.serve.batching import Ask, Done, Event, Failed, Job, Piece
from limner.serve.engine import Engine
from limner.serve.metrics import Metrics
from limner.types import Sample

DRAWN = Decoding(temperature=1.3, top_p=0.95, max_new_tokens=20)
GREEDY = Decoding(do_sample=False, max_new_tokens=60)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return captioners.load("world:captioner", device="cpu")


def ask(number: int, *, decoding: Decoding = DRAWN, captions: int = 1, prompt: str | None = None) -> Ask:
    return Ask((served.picture(number),), prompt, decoding, captions, seed=number)


def answers(engine: Engine, asks: Sequence[Ask], *, stream: bool = False) -> list[list[Event]]:
    """All events of each request, written together."""

    async def together() -> list[list[Event]]:
        jobs = [Job(ask, stream=stream) for ask in asks]
        engine.run(jobs)
        await asyncio.sleep(0)  # what the engine sent is put into the queues
        return [[job.events.get_nowait() for _ in range(job.events.qsize())] for job in jobs]

    return asyncio.run(together())


def texts(events: Sequence[Event]) -> list[str]:
    done = events[-1]
    assert isinstance(done, Done)
    return [caption.text for caption in done.captions]


def test_draws_of_a_request_are_its_own_in_every_batch(policy: Policy) -> None:
    engine = Engine(policy, Metrics())
    alone = [texts(answers(engine, [ask(k, captions=2)])[0]) for k in range(5)]
    assert len({text for pair in alone for text in pair}) > 5
    together = [texts(events) for events in answers(engine, [ask(k, captions=2) for k in (3, 1, 4, 0, 2)])]
    assert together == [alone[k] for k in (3, 1, 4, 0, 2)]


def test_greedy_captions_are_those_of_the_captioner_itself(policy: Policy) -> None:
    pictures = [Sample(str(k), (served.picture(k),)) for k in range(3)]
    found = answers(Engine(policy, Metrics()), [ask(k, decoding=GREEDY) for k in range(3)])
    assert [texts(events)[0] for events in found] == policy.caption(pictures, GREEDY)


def test_prompt_tokens_are_those_of_the_picture_and_the_text(policy: Policy) -> None:
    (alone,), (asked,) = (
        answers(Engine(policy, Metrics()), [ask(0, prompt=text)]) for text in (None, "a red")
    )
    queries = policy.model.config.num_query_tokens
    words = len(policy.tokenizer("a red")["input_ids"])
    assert [events[-1].prompt_tokens for events in (alone, asked)] == [  # type: ignore[union-attr]
        queries + len(policy.tokenizer("")["input_ids"]), queries + words,
    ]  # fmt: skip


def test_a_request_s_limit_cuts_its_own_captions_only(policy: Policy) -> None:
    engine = Engine(policy, Metrics())
    short = ask(0, decoding=Decoding(do_sample=False, max_new_tokens=2))
    cut, whole = (events[-1] for events in answers(engine, [short, ask(0, decoding=GREEDY)]))
    assert isinstance(cut, Done)
    assert isinstance(whole, Done)
    assert (cut.captions[0].tokens, cut.captions[0].ended) == (2, False)
    assert whole.captions[0].ended
    assert whole.captions[0].text.startswith(cut.captions[0].text)


def test_pieces_of_a_stream_make_up_the_caption(policy: Policy) -> None:
    found = answers(Engine(policy, Metrics()), [ask(k, captions=2) for k in range(2)], stream=True)
    for events in found:
        said = ["", ""]
        for event in events[:-1]:
            assert isinstance(event, Piece)
            said[event.index] += event.text
        assert said == texts(events)
        assert len(events) > 4


def test_what_nobody_waits_for_is_not_written(policy: Policy) -> None:
    metrics = Metrics()
    engine = Engine(policy, metrics)

    async def cancelled() -> int:
        job = Job(ask(0))
        job.cancelled = True
        engine.run([job])
        await asyncio.sleep(0)
        return job.events.qsize()

    assert asyncio.run(cancelled()) == 0
    assert b"limner_tokens_total 0.0" in metrics.text()


def test_a_prompt_that_does_not_fit_is_the_request_s_fault(policy: Policy) -> None:
    long = ask(0, prompt="a red circle " * 400)
    events = answers(Engine(policy, Metrics()), [long])[0]
    assert events == [Failed(events[0].message, 400)]  # type: ignore[union-attr]
    assert "the prompt is too long" in events[0].message  # type: ignore[union-attr]


def test_special_tokens_in_a_text_stay_out_of_the_prompt(policy: Policy) -> None:
    engine = Engine(policy, Metrics())
    end = policy.tokenizer.eos_token
    assert engine.plain(f"a dog{end} and").split() == ["a", "dog", "and"]
    assert end not in engine.plain(f"{end[:1]}{end}{end[1:]}")


def test_draws_have_the_shares_of_the_tokens() -> None:
    shares = torch.tensor([[0.0, 0.5, 0.0, 0.3, 0.2, 0.0]]).expand(20_000, -1)
    drawn = Stepwise(range(20_000), lambda *_: None).draw(shares, torch.arange(20_000), 7)
    counts = torch.bincount(drawn, minlength=6) / 20_000
    # Four standard deviations of a share of one half among 20,000 draws.
    assert (counts - shares[0]).abs().max() < 0.015
    assert counts[[0, 2, 5]].tolist() == [0.0, 0.0, 0.0]


class Leaver(Job):
    """Its asker leaves after the first piece."""

    def send(self, event: Event) -> None:
        super().send(event)
        self.cancelled = True


def test_writing_stops_when_everybody_has_left(policy: Policy) -> None:
    metrics = Metrics()

    async def left() -> list[Event]:
        job = Leaver(ask(0, decoding=GREEDY), stream=True)
        Engine(policy, metrics).run([job])
        await asyncio.sleep(0)
        return [job.events.get_nowait() for _ in range(job.events.qsize())]

    events = asyncio.run(left())
    assert len(events) == 1
    assert isinstance(events[0], Piece)
    assert b"limner_captions_total 0.0" in metrics.text()


def test_a_request_that_makes_the_model_fail_does_not_touch_the_others(
    policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    broken = replace(ask(1), media=("no picture",))  # type: ignore[arg-type]
    engine = Engine(policy, Metrics())
    first, second, third = answers(engine, [ask(0), broken, ask(2)])
    assert texts(first) == texts(answers(engine, [ask(0)])[0])
    assert texts(third) == texts(answers(engine, [ask(2)])[0])
    assert second == [Failed("the captioner failed on this request", 500)]
    assert "a request made the captioner fail" in caplog.text
