"""A request's way through the house: let in, read, opened, put before the captioner, answered."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from starlette.requests import Request

from limner.serve import wire
from limner.serve.batching import Ask, Batcher, Done, Failed, Job, Piece
from limner.serve.fetch import Fetcher
from limner.serve.media import Opener
from limner.serve.metrics import Metrics
from limner.serve.problems import Problem, refused
from limner.serve.settings import Service

READERS = 2
"""Threads that open pictures."""
Result = TypeVar("Result")


class Writer(Protocol):
    """What writes captions: `engine.Engine`."""

    seconds: float

    def plain(self, text: str) -> str:
        """A text without special tokens."""
        ...

    def run(self, jobs: Any) -> None:
        """Answer jobs."""
        ...


class Gone(Exception):
    """Whoever asked has left."""


class House:
    """Everything that requests share."""

    def __init__(self, service: Service, writer: Writer, metrics: Metrics, *, key: str | None = None):
        """Start the captioner's thread.

        Args:
            service: how the captioner is served.
            writer: the captioner.
            metrics: what is counted.
            key: what requests must bring.
        """
        self.service, self.metrics = service, metrics
        self._writer, self._key = writer, None if key is None else _digest(key)
        limits = service.limits
        hosts = service.allow_urls
        self.opener = Opener(limits, Fetcher(hosts, limits.body_bytes) if hosts else None)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="opener")
        self._inside = 0
        self.batcher = Batcher(
            writer.run, max_batch=service.max_batch, wait_seconds=service.wait_seconds,
            inside=lambda: self._inside,
        )  # fmt: skip
        metrics.watch(inside=lambda: self._inside, waiting=lambda: self.batcher.waiting)

    def close(self) -> None:
        """Finish what was put before the captioner, and end threads and processes."""
        self.batcher.close()
        self.opener.close()
        self._readers.shutdown(wait=True, cancel_futures=True)

    def authorise(self, request: Request) -> None:
        """Let nobody in without the key.

        Raises:
            Problem: 401.
        """
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if self.locked and (scheme.lower() != "bearer" or not self.knows(given.strip())):
            raise Problem(
                401,
                "this server wants its key: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    @property
    def locked(self) -> bool:
        """Whether requests must bring a key."""
        return self._key is not None

    def knows(self, key: str) -> bool:
        """Whether it is the key; nothing is where there is none."""
        # Digests have one length: how long the comparison takes says nothing about the key.
        return self._key is not None and hmac.compare_digest(_digest(key), self._key)

    def enter(self) -> Callable[[], None]:
        """Take one of the places in the house.

        Returns:
            What gives it back; calling it again does nothing.

        Raises:
            Problem: 429, there is none.
        """
        limit = self.service.limits.waiting
        if self._inside >= limit:
            batches = math.ceil(limit / self.service.max_batch)
            wait = max(1, math.ceil(batches * self._writer.seconds))
            raise Problem(
                429,
                "too many requests are waiting",
                code="queue_full",
                headers={"Retry-After": str(wait)},
            )
        self._inside += 1
        left = [False]

        def leave() -> None:
            if not left[0]:
                left[0] = True
                self._inside -= 1
                self.batcher.look_again()

        return leave

    async def body(self, request: Request) -> bytes:
        """The body, as long as it is not too long.

        Raises:
            Problem: 413, or it is not JSON by its own word.
            Gone: it ended early.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # another kind could be sent by any page in a browser
            raise refused("Content-Type must be application/json", None, "invalid_content_type")
        limit = self.service.limits.body_bytes
        length = request.headers.get("content-length", "0")
        large = Problem(413, f"the body has more than {limit:,} bytes", code="too_large")
        if length.isdecimal() and int(length[:20]) > limit:
            raise large
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > limit:
                raise large
        return bytes(content)

    async def job(self, request: Request) -> tuple[Job, wire.ChatRequest]:
        """A request as the captioner takes it.

        Raises:
            Problem: it cannot be answered.
        """
        loop = asyncio.get_running_loop()
        asked = await loop.run_in_executor(self._readers, wire.parsed, await self.body(request))
        text, media = wire.shown(asked, self.service)
        decoding, captions, seed = wire.decoding_of(asked, self.service)
        images = await loop.run_in_executor(self._readers, self.opener.open, media)
        return Job(Ask(images, self.prompt(text), decoding, captions, seed), stream=bool(asked.stream)), asked

    def prompt(self, text: str) -> str | None:
        """What is put before captions for a request with this text; the captioner's own where None."""
        return None if self.service.own_prompt else self._writer.plain(text).strip() or None

    async def first(self, job: Job) -> Piece | Done:
        """Put a job before the captioner and wait for what comes first of it.

        Raises:
            Problem: it failed.
        """
        self.batcher.submit(job)
        return await next_of(job)


async def next_of(job: Job) -> Piece | Done:
    """What comes next of a job; whoever stops waiting cancels it.

    Raises:
        Problem: it failed.
    """
    try:
        event = await job.events.get()
    except BaseException:
        job.cancelled = True
        raise
    if isinstance(event, Failed):
        raise Problem(event.status, event.message, code="failed", param="messages")
    return event


async def streamed(
    house: House, job: Job, asked: wire.ChatRequest, first: Piece | Done, *, deadline: float
) -> AsyncIterator[bytes]:
    """The events of a stream, from what came first of the job."""
    head = wire.header(house.service.name, "chat.completion.chunk")
    try:
        for index in range(job.ask.captions):
            yield wire.chunk(head, index, {"role": "assistant", "content": ""})
        now: Piece | Done = first
        while isinstance(now, Piece):
            yield wire.chunk(head, now.index, {"content": now.text})
            async with asyncio.timeout_at(deadline):
                now = await next_of(job)
        for index, caption in enumerate(now.captions):
            yield wire.chunk(head, index, {}, caption)
        if asked.stream_options is not None and asked.stream_options.include_usage:
            yield wire.event({**head, "choices": [], "usage": wire.usage(now.captions, now.prompt_tokens)})
        yield b"data: [DONE]\n\n"
    except TimeoutError:
        yield wire.event(late(house.service).body())
    except Problem as problem:
        yield wire.event(problem.body())
    finally:
        if not job.answered:
            house.metrics.left.inc()
        job.cancelled = True


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work gives, which is stopped when whoever asked leaves. The body must have been read.

    Raises:
        Gone: they left.
    """
    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_leaving(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        for pending in (task, leaving):
            pending.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _leaving(request: Request) -> None:
    """Returns when whoever asked has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def late(service: Service) -> Problem:
    """A request that took too long."""
    return Problem(503, f"no answer within {service.limits.seconds:g} s", code="timeout")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf8", "surrogateescape")).digest()
