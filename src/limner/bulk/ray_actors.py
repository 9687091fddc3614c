"""Captions by workers of a Ray cluster: on this machine, or on many where RAY_ADDRESS names a cluster.

The driver holds the journal and hands out ids; workers open the media themselves, so the source has to be
where all of them find it. A worker that dies is started anew, and gets again what it was at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from limner.bulk import BATCH
from limner.bulk.engine import Author, Local, Outcome, Text
from limner.bulk.prompts import Prompt
from limner.bulk.remote import is_address
from limner.data.base import FileSource, Source
from limner.errors import Reject, UserError
from limner.types import Sample

QUEUED = 2
"""Batches that a worker has: it opens the media of one while it captions the other."""
TRIES = 2
"""Workers that may die of a batch before its items are tried one by one."""
_log = logging.getLogger("limner.bulk")


@dataclass(frozen=True)
class Ray:
    """Workers, each with its own author."""

    load: Callable[[], Author]
    """Makes the author, in the worker; it and what it holds are sent there."""
    batch: int = BATCH
    """Items handed out and captioned together."""
    prompt: Prompt = field(default_factory=Prompt)
    """What is asked."""
    workers: int | None = None
    """How many; one a GPU, or one a core, if None."""
    gpu: bool = True
    """Whether a worker takes a GPU, where the cluster has any."""

    def tokens(self) -> tuple[int, int]:
        """Nothing is paid for."""
        return 0, 0

    def run(self, source: Source, todo: Sequence[int]) -> Generator[Sequence[Outcome], None, None]:
        """Hand out batches, and give the outcomes as they come."""
        ray = _ray()
        began = not ray.is_initialized()
        if began:
            _start(ray)
        ids = source.ids()
        try:
            yield from _Pool(ray, self, source).run([ids[index] for index in todo])
        finally:
            if began:
                ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError("--engine ray needs the package ray: pip install 'limner[ray]'") from error
    return ray


def _start(ray: Any) -> None:
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = os.environ.get("RAY_ADDRESS")
        what = f"the cluster at RAY_ADDRESS={where} does not answer" if where else "Ray does not start here"
        raise UserError(f"--engine ray: {what}: {error}") from error


class Worker:
    """What runs in a process of the cluster."""

    def __init__(self, load: Callable[[], Author], source: Source, *, batch: int, prompt: Prompt):
        """Load the author."""
        self._source = source
        self._local = Local(_OneAtATime(load()), batch, prompt)
        self._places = {id: place for place, id in enumerate(source.ids())}

    def caption(self, ids: Sequence[str]) -> list[Outcome]:
        """The outcomes of these items; called from two threads, of which one reads while the other writes."""
        there = [self._places[id] for id in ids if id in self._places]
        outcomes = [outcome for group in self._local.run(self._source, there) for outcome in list(group)]
        gone = [Outcome(id, Reject("not there any more")) for id in ids if id not in self._places]
        return outcomes + gone


class _OneAtATime:
    """An author that several threads may ask."""

    def __init__(self, author: Author):
        self._author, self._lock = author, threading.Lock()

    @property
    def shaped(self) -> bool:
        return self._author.shaped

    @property
    def mixes(self) -> bool:
        return self._author.mixes

    def tokens(self) -> tuple[int, int]:
        return self._author.tokens()

    def write(self, samples: Sequence[Sample], prompt: str | None) -> Sequence[Text | Reject]:
        with self._lock:
            return self._author.write(samples, prompt)


class _Pool:
    """The workers of a job, and what each of them is at."""

    def __init__(self, ray: Any, settings: Ray, source: Source):
        self._ray, self._settings, self._source = ray, settings, _as_found(source)
        known = ray.cluster_resources()
        gpus = int(known.get("GPU", 0)) if settings.gpu else 0
        cores = max(1, int(known.get("CPU", 1)))
        count = settings.workers or gpus or cores
        self._options = {
            "num_cpus": cores // count if count <= cores else cores / count,
            "num_gpus": 1 if gpus >= count else gpus / count,
            "max_concurrency": QUEUED,
        }
        self._died: Counter[str] = Counter()
        """How many workers died while they had an item."""
        self._in_a_row = 0
        """Workers that died since something was done."""
        self._jobs: dict[Any, tuple[int, list[str]]] = {}
        self._workers: dict[int, Any] = {number: self._worker() for number in range(count)}

    def _worker(self) -> Any:
        settings = self._settings
        made = self._ray.remote(Worker).options(**self._options)
        return made.remote(settings.load, self._source, batch=settings.batch, prompt=settings.prompt)

    def run(self, ids: Sequence[str]) -> Iterator[Sequence[Outcome]]:
        """Outcomes as they come, in any order."""
        size = self._settings.batch
        waiting = [list(ids[start : start + size]) for start in range(0, len(ids), size)][::-1]
        while waiting or self._jobs:
            self._hand_out(waiting)
            done, _ = self._ray.wait(list(self._jobs), num_returns=1)
            try:
                outcomes = self._ray.get(done[0])
            except self._ray.exceptions.RayActorError as error:
                yield from self._replace(self._jobs[done[0]][0], error, waiting)
            except self._ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            else:
                del self._jobs[done[0]]
                self._in_a_row = 0
                yield outcomes

    def _hand_out(self, waiting: list[list[str]]) -> None:
        """Keep every worker busy. What workers died of goes to one that has nothing else."""
        for number, worker in self._workers.items():
            at = [batch for busy, batch in self._jobs.values() if busy == number]
            while waiting and len(at) < QUEUED and not any(map(self._suspect, at)):
                if at and self._suspect(waiting[-1]):
                    break
                at.append(waiting.pop())
                self._jobs[worker.caption.remote(at[-1])] = (number, at[-1])

    def _suspect(self, batch: Sequence[str]) -> bool:
        return any(self._died[id] >= TRIES for id in batch)

    def _replace(self, number: int, error: Exception, waiting: list[list[str]]) -> Iterator[list[Outcome]]:
        """Start a worker anew; what the dead one was at is handed out again, in the end item by item.

        Raises:
            UserError: the author cannot be made, or no worker lives long enough to do anything.
        """
        if getattr(error, "actor_init_failed", False):
            raise UserError(f"--engine ray: a worker cannot start: {str(error).strip().splitlines()[-1]}")
        with contextlib.suppress(Exception):  # one that only cannot be reached may still be at it
            self._ray.kill(self._workers[number])
        lost = [batch for at, batch in self._jobs.values() if at == number]
        self._jobs = {job: at for job, at in self._jobs.items() if at[0] != number}
        reason = " ".join(str(error).split())[:300]
        count = sum(map(len, lost))
        _log.warning("worker %d died: %s; its %d items are handed out again", number, reason, count)
        self._in_a_row += 1
        if self._in_a_row > 2 * TRIES * len(self._workers):
            raise UserError(f"--engine ray: workers die one after the other: {reason}")
        self._workers[number] = self._worker()
        for batch in lost:
            if len(batch) == 1 and self._suspect(batch):
                yield [Outcome(batch[0], Reject("the worker that captioned it died, time after time"))]
                continue
            self._died.update(batch)
            waiting.extend([[id] for id in batch] if self._suspect(batch) else [batch])


def _as_found(source: Source) -> Source:
    """The source as workers find it: without what was read of it here, by a path that holds everywhere."""
    if isinstance(source, FileSource) and not is_address(source.path):
        return dataclasses.replace(source, path=os.path.abspath(os.path.expanduser(source.path)))
    return dataclasses.replace(source)
