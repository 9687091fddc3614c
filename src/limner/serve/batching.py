"""Requests that want the same kind of captions go through the model together.

One thread runs the model. It takes the request that has waited longest and all that are like it, waiting a
few milliseconds for those that are on their way; what comes while it runs waits for the next batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from limner.decoding import Decoding


@dataclass(frozen=True)
class Ask:
    """What one request wants of the captioner."""

    media: tuple[Image.Image, ...]
    """RGB pictures, or frames in order of time."""
    prompt: str | None
    """Text before the caption; the captioner's own if None."""
    decoding: Decoding
    """How tokens are chosen, and how many at most."""
    captions: int
    """How many captions."""
    seed: int
    """Of the draws."""

    @property
    def kind(self) -> Hashable:
        """Asks of one kind can be in one batch; the longest caption of each may differ."""
        return self.prompt, replace(self.decoding, max_new_tokens=1), self.captions, len(self.media)


@dataclass(frozen=True)
class Written:
    """One caption."""

    text: str
    tokens: int
    """Tokens that were written, the end of sequence included."""
    ended: bool
    """The captioner came to its end; False where the limit cut it."""


@dataclass(frozen=True)
class Piece:
    """What was added to a caption of a request that is streamed."""

    index: int
    text: str


@dataclass(frozen=True)
class Done:
    """A request's captions."""

    captions: tuple[Written, ...]
    prompt_tokens: int


@dataclass(frozen=True)
class Failed:
    """A request that cannot be answered."""

    message: str
    status: int
    """400 where it is the request's fault, 500 where the captioner failed, 503 at the end."""


Event = Piece | Done | Failed


@dataclass(eq=False)
class Job:
    """A request on its way through the model. `events` belongs to the loop that made it."""

    ask: Ask
    stream: bool = False
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    cancelled: bool = False
    """Nobody waits for it any more."""
    answered: bool = False
    """Its last event is on its way."""

    def send(self, event: Event) -> None:
        """From the thread that runs the model."""
        self.answered |= not isinstance(event, Piece)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)


class Batcher:
    """The queue, and the thread that runs the model."""

    def __init__(
        self,
        run: Callable[[Sequence[Job]], None],
        *,
        max_batch: int,
        wait_seconds: float,
        inside: Callable[[], float] = lambda: math.inf,
    ):
        """Start the thread.

        Args:
            run: answers jobs of one kind by their events; it raises nothing.
            max_batch: most captions in one call.
            wait_seconds: how long the first job of a batch waits at most for others.
            inside: how many requests there are, those that are still read and opened included. Where all are
                in the queue, and as many as went together last, nobody is waited for. `look_again` tells that
                there are fewer.
        """
        self._run, self._max_batch, self._wait, self._inside = run, max_batch, wait_seconds, inside
        self._changed = threading.Condition()
        self._queue: list[Job] = []
        self._closed = False
        self._together = 1
        """How many requests went through the model last: so many may come again."""
        self._thread = threading.Thread(target=self._work, name="captioner", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that do not run yet."""
        return len(self._queue)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Put a job at the end of the queue."""
        with self._changed:
            if self._closed:
                job.send(Failed("the server is shutting down", 503))
                return
            self._queue.append(job)
            self._changed.notify()

    def look_again(self) -> None:
        """There may be nobody left to wait for."""
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """Take nothing more, finish what is in the queue, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            if batch:
                self._run(batch)

    def _take(self) -> list[Job] | None:
        """The next batch; empty where all were cancelled, None at the end."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            if not self._queue:
                return None
            first, free = self._queue[0], time.monotonic()
            room = max(1, self._max_batch // first.ask.captions)
            while not self._closed and len(self._like(first)) < room and self._more():
                left = free + self._wait - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            chosen = self._like(first)[:room]
            self._together = len(chosen)
            taken = set(map(id, chosen))
            self._queue = [job for job in self._queue if id(job) not in taken and not job.cancelled]
            return chosen

    def _more(self) -> bool:
        """Whether a request is on its way into the queue, or will be if things go on as they do."""
        return max(self._inside(), self._together) > sum(not job.cancelled for job in self._queue)

    def _like(self, first: Job) -> list[Job]:
        """Jobs of the kind of the first that somebody waits for, in order."""
        kind = first.ask.kind
        return [job for job in self._queue if not job.cancelled and job.ask.kind == kind]
