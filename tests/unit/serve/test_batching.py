"""The queue: who goes with whom, who is left out, and what happens at the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from PIL import Image

from limner.decoding import Decoding
from limner.serve.batching import Ask, Batcher, Done, Failed, Job
from patience import until
from scribe import Scribe


def job(*, temperature: float = 1.0, tokens: int = 9, captions: int = 1, prompt: str | None = None) -> Job:
    decoding = Decoding(temperature=temperature, max_new_tokens=tokens)
    return Job(Ask((Image.new("RGB", (2, 2)),), prompt, decoding, captions, seed=tokens))


def batches(first: Job, jobs: Sequence[Job], *, max_batch: int = 16, wait_seconds: float = 0.0) -> list[int]:
    """Sizes of the batches of jobs that come while one before them is being written."""
    scribe = Scribe()
    scribe.go.clear()
    batcher = Batcher(scribe.run, max_batch=max_batch, wait_seconds=wait_seconds)
    batcher.submit(first)
    until(lambda: scribe.batches)
    for each in jobs:
        batcher.submit(each)
    scribe.go.set()
    batcher.close()
    return scribe.batches[1:]


async def run(jobs: Sequence[Job], **settings: int) -> list[int]:
    return await asyncio.to_thread(batches, job(prompt="first"), jobs, **settings)


def test_like_goes_with_like_whatever_seed_and_length() -> None:
    async def sizes() -> list[int]:
        jobs = [job(tokens=k) for k in (3, 9, 5)]
        return await run([jobs[0], job(temperature=0.5), jobs[1], job(prompt="a"), jobs[2], job(captions=2)])

    assert asyncio.run(sizes()) == [3, 1, 1, 1]


def test_a_batch_holds_so_many_captions_and_no_more() -> None:
    async def sizes() -> tuple[list[int], list[int]]:
        return (
            await run([job() for _ in range(7)], max_batch=3),
            await run([job(captions=2) for _ in range(7)], max_batch=5),
        )

    assert asyncio.run(sizes()) == ([3, 3, 1], [2, 2, 2, 1])


def test_cancelled_jobs_are_left_out() -> None:
    async def sizes() -> list[int]:
        jobs = [job() for _ in range(4)]
        jobs[0].cancelled = jobs[2].cancelled = True
        return await run(jobs)

    assert asyncio.run(sizes()) == [2]


def test_only_those_on_their_way_are_waited_for() -> None:
    inside = [1]

    async def answered() -> list[int]:
        scribe = Scribe()
        batcher = Batcher(scribe.run, max_batch=16, wait_seconds=3600, inside=lambda: inside[0])
        alone = job()
        batcher.submit(alone)
        await alone.events.get()
        inside[0] = 4  # two that are submitted, one that is on its way, and one whose body never ends
        jobs = [job() for _ in range(3)]
        batcher.submit(jobs[0])
        batcher.submit(jobs[1])
        inside[0] = 3
        batcher.look_again()
        batcher.submit(jobs[2])
        for each in jobs:
            await each.events.get()
        await asyncio.to_thread(batcher.close)
        return scribe.batches

    assert asyncio.run(answered()) == [1, 3]


def test_as_many_as_last_are_waited_for() -> None:
    """Who was answered together asks again together, and is not let in yet when the first comes."""

    async def sizes() -> list[int]:
        scribe = Scribe()
        batcher = Batcher(scribe.run, max_batch=16, wait_seconds=3600, inside=lambda: 0)
        scribe.go.clear()
        jobs = [job() for _ in range(7)]
        batcher.submit(jobs[0])
        while not scribe.batches:
            await asyncio.sleep(0.001)
        for each in jobs[1:4]:
            batcher.submit(each)
        scribe.go.set()
        for each in jobs[:4]:
            await each.events.get()
        for each in jobs[4:]:
            batcher.submit(each)
            await asyncio.sleep(0.02)  # each would be taken alone
        for each in jobs[4:]:
            await each.events.get()
        await asyncio.to_thread(batcher.close)
        return scribe.batches

    assert asyncio.run(sizes()) == [1, 3, 3]


def test_closing_finishes_what_waits_and_refuses_what_comes() -> None:
    before = set(threading.enumerate())

    async def closing() -> tuple[list[object], object]:
        scribe = Scribe(seconds=0.02)
        batcher = Batcher(scribe.run, max_batch=1, wait_seconds=60)
        jobs = [job() for _ in range(3)]
        for each in jobs:
            batcher.submit(each)
        await asyncio.to_thread(batcher.close)
        late = job()
        batcher.submit(late)
        return [await each.events.get() for each in jobs], await late.events.get()

    done, late = asyncio.run(closing())
    assert all(isinstance(event, Done) for event in done)
    assert isinstance(late, Failed)
    assert "captioner" not in {thread.name for thread in set(threading.enumerate()) - before}
