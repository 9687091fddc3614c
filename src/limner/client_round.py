"""One `Client.ask`: its requests under way, and what becomes of those that fail.

An answer may fail to come for two kinds of reason. The endpoint is away or busy: it is waited for, with
growing pauses, up to `patience_seconds` in which it answers nobody. Or the conversation is at fault: it is
asked `tries` times, and then goes without an answer, while the others get theirs. HTTP 500 and time-outs
can be either; they are the conversation's fault once others were answered in the meantime.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from limner.answering.base import Reply
from limner.client_cache import Cache
from limner.client_wire import Failure, answer_of, failure_of
from limner.errors import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from limner.client import Endpoint

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds before an endpoint is asked again: doubled with every failure, and shortened by up to half at
random, so that requests which failed together do not come back together."""
CONNECT_SECONDS = 20.0
"""Until a connection has to stand; answers may take longer."""
MANY = 4
"""So many conversations, all refused as malformed by an endpoint that never answered: a setting is wrong."""
Body = Mapping[str, Any]
T = TypeVar("T")
_log = logging.getLogger("limner.client")


@dataclass
class _Course:
    """What a conversation has been through."""

    faults: int = 0
    """Failures that are its own."""
    failures: int = 0
    """All of them."""
    since: float | None = None
    """When the first came."""


class Round:
    """Many conversations, a limited number at a time, in one event loop."""

    def __init__(self, endpoint: Endpoint, cache: Cache | None, *, reached: bool, first_seconds: float):
        """Prepare to ask.

        Args:
            endpoint: who is asked.
            cache: where answers are kept.
            reached: whether the endpoint has answered before.
            first_seconds: how long a server is tried that was never there.
        """
        self.endpoint, self.reached = endpoint, reached
        self._there, self._first_seconds = reached, first_seconds
        self.counts: Counter[str] = Counter()
        self._cache = cache
        self._answered = 0.0
        self._away_since: float | None = None
        self._told = False
        self._last = Failure("connection", "no answer")
        self._draw = random.Random()

    async def run(self, bodies: Mapping[str, Body]) -> dict[str, Reply]:
        """A reply for every key.

        Raises:
            UserError: see `Client.ask`.
        """
        from openai import AsyncOpenAI, Timeout

        replies: dict[str, Reply] = {}
        rest = iter(bodies.items())
        address, seconds = self.endpoint.base_url, self.endpoint.timeout_seconds
        key = self.endpoint.key()
        timeout = Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        async with AsyncOpenAI(base_url=address, api_key=key, max_retries=0, timeout=timeout) as api:
            try:
                async with asyncio.TaskGroup() as tasks:
                    for _ in range(min(self.endpoint.concurrency, len(bodies))):
                        tasks.create_task(self._work(api, rest, replies))
            except ExceptionGroup as group:
                raise group.exceptions[0] from None
        self._refuse_what_answered_nothing(replies)
        return replies

    async def _work(
        self, api: AsyncOpenAI, rest: Iterator[tuple[str, Body]], replies: dict[str, Reply]
    ) -> None:
        for key, body in rest:
            reply = replies[key] = await self._reply(api, body)
            if reply.text is not None and self._cache is not None:
                self._cache.put(key, reply)

    async def _reply(self, api: AsyncOpenAI, body: Body) -> Reply:
        """The answer to one conversation, or why there is none."""
        course = _Course()
        while True:
            seed = (body["seed"] + course.faults) % 2**31
            result = await self._attempt(api, {**body, "seed": seed})
            if isinstance(result, Reply):
                self.counts["prompt_tokens"] += result.prompt_tokens
                self.counts["completion_tokens"] += result.completion_tokens
                return result
            pause = self._pause(course, result)
            if pause is None:
                self.counts["failed"] += 1
                self.counts[f"failed/{result.kind}"] += 1
                return Reply(None, f"{result.kind}: {result.message}")
            self.counts["retries"] += 1
            await asyncio.sleep(pause)

    async def _attempt(self, api: AsyncOpenAI, body: Body) -> Reply | Failure:
        """Ask once.

        Raises:
            UserError: the endpoint wants another key, or has no such model.
        """
        import openai

        key = None if self.endpoint.key_env is None else api.api_key
        try:
            # a time-out of the library is one of a single read, which a server that trickles never meets
            async with asyncio.timeout(self.endpoint.timeout_seconds):
                raw = await api.chat.completions.with_raw_response.create(
                    messages=[], model="", extra_body=body
                )
        except (openai.APIError, TimeoutError) as error:
            result = failure_of(error, self.endpoint, key=key, reached=self.reached)
        else:
            result = answer_of(raw.text, key=key)
        if isinstance(result, Reply):
            self._heard()
        self._there |= isinstance(result, Reply) or result.kind != "connection"
        return result

    def _heard(self) -> None:
        """The endpoint answered."""
        self._answered, self.reached = time.monotonic(), True
        if self._told and self._away_since is not None:
            away = self._answered - self._away_since
            _log.warning("%s answers again, after %.0f s", self.endpoint.base_url, away)
        self._away_since, self._told = None, False

    def _pause(self, course: _Course, failure: Failure) -> float | None:
        """Seconds until a conversation is asked again; None if it is given up."""
        now = time.monotonic()
        course.failures += 1
        course.since = now if course.since is None else course.since
        if failure.final:
            return None
        if failure.own or (failure.unclear and self._answered > course.since):
            course.faults += 1
            left = float("inf") if course.faults < self.endpoint.tries else 0.0
        else:
            left = self._patience(course.since, now, failure)
        if left <= 0:
            return None
        doubled = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(course.failures - 1, 10))
        return min(left, max(failure.retry_after, doubled * self._draw.uniform(0.5, 1.0)))

    def _patience(self, since: float, now: float, failure: Failure) -> float:
        """Seconds that the endpoint may stay away yet; it is told that it is waited for."""
        self._away_since = now if self._away_since is None else self._away_since
        self._last = failure
        left = self._patience_seconds - (now - min(since, self._away_since))
        if not self._told and now - self._away_since > FIRST_PAUSE and left > 0:
            self._told = True
            _log.warning(
                "%s does not answer (%s: %s); waiting for up to %.0f s",
                *(self.endpoint.base_url, failure.kind, failure.message, left),
            )
        return left

    @property
    def _patience_seconds(self) -> float:
        """What never was there may be a mistyped address."""
        patience = self.endpoint.patience_seconds
        return patience if self._there else min(patience, self._first_seconds)

    def _refuse_what_answered_nothing(self, replies: Mapping[str, Reply]) -> None:
        if any(reply.text is not None for reply in replies.values()):
            return
        if self._away_since is not None and self._patience_seconds < self.endpoint.patience_seconds:
            raise UserError(
                f"{self.endpoint.base_url} cannot be reached: {self._last.message}. Is the address right? "
                "Is the server running?"
            )
        if self._away_since is not None:
            raise UserError(
                f"{self.endpoint.base_url} answered nothing for {self.endpoint.patience_seconds:g} s "
                f"(patience_seconds): {self._last.kind}: {self._last.message}. Is the server running?"
            )
        malformed = self.counts["failed/bad request"]
        if not self.reached and malformed >= MANY and malformed == len(replies):
            raise UserError(
                f"{self.endpoint.base_url} refuses every one of {len(replies)} conversations: "
                f"{next(iter(replies.values())).error}"
            )


_ends: dict[threading.Thread, Callable[[], None]] = {}
"""How to end what a thread waits for, by the thread."""


def apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a thread with a loop of its own, whatever runs in this thread.

    An interrupt of the waiting thread (Ctrl-C, or `end`) cancels it.
    """
    done: Future[T] = Future()
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T] | None]] = Future()

    async def main() -> T:
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    def run() -> None:
        try:
            done.set_result(asyncio.run(main()))
        except BaseException as error:
            done.set_exception(error)
            begun.cancel()

    def cancel() -> None:
        with suppress(RuntimeError, CancelledError):  # it ended in this very moment, or never began
            loop, task = begun.result()
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)

    thread = threading.Thread(target=run, name="limner-client", daemon=True)
    thread.start()
    _ends[threading.current_thread()] = cancel
    try:
        return done.result()
    except BaseException:
        if not done.done():
            cancel()
        raise
    finally:
        del _ends[threading.current_thread()]
        thread.join()


def end(waiting: threading.Thread) -> None:
    """Cancel the conversations that another thread waits for, if there are any: its `ask` raises."""
    cancel = _ends.get(waiting)
    if cancel is not None:
        cancel()
