"""Who captions: what an engine gives for every item, and the engine within one process."""

from __future__ import annotations

import ctypes
import hashlib
import math
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from limner import client_round
from limner.bulk import BATCH
from limner.bulk.buckets import Batch, Buckets
from limner.bulk.media import URL
from limner.bulk.prompts import Prompt
from limner.data.base import Source
from limner.data.batches import Item, read_ahead
from limner.errors import Reject
from limner.types import Sample

READERS = 2
"""Threads that open images, and processes that decode videos, while the captioner runs."""
ASKED = "prompt"
"""Where a sample's `extra` has what it is asked, if that is its own."""
CONTENT = "content"
"""The key of a row that holds what the image looks like, hashed, where equal images are looked for."""


@dataclass(frozen=True)
class Text:
    """A caption."""

    caption: str
    """The caption."""
    more: Mapping[str, object] = field(default_factory=dict[str, object])
    """What else is written beside it: its score, its candidates."""


class Outcome(NamedTuple):
    """What became of one item."""

    id: str
    """The item."""
    result: Text | Reject
    """Its caption, or the reason why there is none."""
    place: Mapping[str, str] = {}
    """{"image": path} or {"video": path} where it is in a file of its own: an absolute path or address."""


class Author(Protocol):
    """Writes captions of samples."""

    @property
    def shaped(self) -> bool:
        """Whether larger images take longer."""
        ...

    @property
    def mixes(self) -> bool:
        """Whether samples of one batch may be asked different things, each its `extra["prompt"]`."""
        ...

    def tokens(self) -> tuple[int, int]:
        """(read, written) tokens that an endpoint counted so far; 0 where none is asked."""
        ...

    def write(self, samples: Sequence[Sample], prompt: str | None) -> Sequence[Text | Reject]:
        """One caption a sample, or why there is none, in order."""
        ...


class Engine(Protocol):
    """Captions many items, somewhere."""

    def run(self, source: Source, todo: Sequence[int]) -> Generator[Sequence[Outcome], None, None]:
        """Every item of `todo` exactly once, in groups, in any order.

        Raises:
            UserError: it cannot go on; what was given before stays.
        """
        ...

    def tokens(self) -> tuple[int, int]:
        """(read, written) tokens that an endpoint counted so far; 0 where none is asked."""
        ...


@dataclass(frozen=True)
class Local:
    """An author in this process; the next images are opened while it writes."""

    author: Author
    """Who writes."""
    batch: int = BATCH
    """Images and videos captioned together, at most."""
    prompt: Prompt = field(default_factory=Prompt)
    """What is asked."""
    at_once: int = 1
    """Batches under way: more than 1 where it waits for others, or where several share the cores."""
    cores: int = 0
    """torch's threads, where the batches under way share them: each is computed by so many; 0 if not."""
    seen: dict[str, str] | None = None
    """Captions by what images look like, those of earlier jobs too; None captions equal images anew."""

    def run(self, source: Source, todo: Sequence[int]) -> Generator[Sequence[Outcome], None, None]:
        """Caption in batches of like size; what is rejected goes with the next batch."""
        twins = _Twins(self.seen)
        settled: list[Outcome] = []
        at_once, batch = self._shares(len(todo))
        with (
            closing(read_ahead(source, todo, workers=READERS, ahead=2 * batch * at_once)) as items,
            closing(self._written(self._batches(items, batch, twins, settled), at_once)) as written,
        ):
            for samples, results in written:
                for sample, result in zip(samples, results, strict=True):
                    settled.extend(twins.settle(sample, result))
                yield settled
                settled.clear()
        if settled:
            yield settled

    def tokens(self) -> tuple[int, int]:
        """Those of the author."""
        return self.author.tokens()

    def _shares(self, count: int) -> tuple[int, int]:
        """Batches under way and their size, such that those that share the cores end at the same time."""
        if not self.cores or not count:
            return self.at_once, self.batch
        at_once = min(self.at_once, count)
        rounds = math.ceil(count / (self.batch * at_once))
        return at_once, math.ceil(count / (rounds * at_once))

    def _batches(
        self, items: Iterable[Item], batch: int, twins: _Twins, settled: list[Outcome]
    ) -> Iterator[Batch]:
        """Batches to caption; what needs no captioner is added to `settled`, and goes with an empty batch."""
        buckets = Buckets(batch, shaped=self.author.shaped)
        for id, result in items:
            prompt = self.prompt.of(result) if isinstance(result, Sample) else result
            if isinstance(prompt, Reject):
                settled.append(Outcome(id, prompt))
            elif isinstance(result, Sample) and not twins.take(result, prompt, settled):
                full = buckets.add(*self._asked(result, prompt))
                if full is not None:
                    yield full
            if len(settled) >= 8 * batch:
                yield (), []
        yield from buckets.rest()

    def _asked(self, sample: Sample, prompt: str | None) -> tuple[Sample, str | None]:
        """A sample with what it is asked, or beside it, which keeps it apart from others in batches."""
        if prompt is None or not self.author.mixes:
            return sample, prompt
        return replace(sample, extra={**sample.extra, ASKED: prompt}), None

    def _written(
        self, batches: Iterator[Batch], at_once: int
    ) -> Generator[tuple[Sequence[Sample], Sequence[Text | Reject]], None, None]:
        if at_once == 1:
            for key, samples in batches:
                yield samples, self.author.write(samples, key[0]) if samples else ()
            return
        waiting: dict[Future[Sequence[Text | Reject]], _Writing] = {}
        try:
            for key, samples in batches:
                if not samples:
                    yield (), ()
                    continue
                begun = _Writing(self.author, samples, key[0], share=(self.cores // at_once, self.cores))
                waiting[begun.results] = begun
                if len(waiting) == at_once:
                    yield from _done(waiting)
            while waiting:
                yield from _done(waiting)
        finally:
            for writing in waiting.values():
                writing.end()


class _Writing:
    """A batch that is written in a thread of its own."""

    def __init__(
        self, author: Author, samples: Sequence[Sample], prompt: str | None, *, share: tuple[int, int]
    ):
        """Begin.

        Args:
            author: who writes.
            samples: the batch.
            prompt: what is asked.
            share: torch's threads for this batch, and all that torch has; 0 of them leaves them as they are.
        """
        self.samples = samples
        self.results: Future[Sequence[Text | Reject]] = Future()
        self._computes = share[0] > 0

        def work() -> None:
            try:
                if share[0]:
                    torch.set_num_threads(share[0])  # of this thread, and of those that begin later
                self.results.set_result(author.write(samples, prompt))
            except BaseException as error:
                self.results.set_exception(error)
            finally:
                if share[0]:
                    torch.set_num_threads(share[1])

        self._thread = threading.Thread(target=work, name="limner-bulk", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread is gone."""
        self._thread.join()

    def end(self) -> None:
        """Give up what is computed, or not answered by an endpoint, and wait until the thread is gone."""
        while self._thread.is_alive():
            client_round.end(self._thread)
            if self._computes and self._thread.ident is not None and not self.results.done():
                # As Ctrl-C in the main thread: it ends after the operation that it is at.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread.ident), ctypes.py_object(SystemExit)
                )
            self._thread.join(0.05)  # it may have been about to ask


def _done(
    waiting: dict[Future[Sequence[Text | Reject]], _Writing],
) -> Iterator[tuple[Sequence[Sample], Sequence[Text | Reject]]]:
    """The batches that are done, at least one."""
    for results in wait(waiting, return_when=FIRST_COMPLETED).done:
        writing = waiting.pop(results)
        writing.join()
        yield writing.samples, results.result()


class _Twins:
    """Images that look alike: one of them is captioned, the others get its caption."""

    def __init__(self, seen: dict[str, str] | None):
        self._seen = seen
        self._waiting: dict[str, list[Sample]] = {}
        """Without their media, by what they look like."""
        self._looks: dict[str, str] = {}
        """What the samples that are being captioned look like, by id."""

    def take(self, sample: Sample, prompt: str | None, settled: list[Outcome]) -> bool:
        """Whether nobody has to caption it, because its twin is captioned or will be."""
        if self._seen is None:
            return False
        look = look_of(sample, prompt)
        if look in self._seen:
            settled.append(_outcome(sample, Text(self._seen[look], {CONTENT: look})))
        elif look in self._waiting:
            self._waiting[look].append(replace(sample, media=()))
        else:
            self._waiting[look] = []
            self._looks[sample.id] = look
            return False
        return True

    def settle(self, sample: Sample, result: Text | Reject) -> Iterator[Outcome]:
        """The outcome of a sample that was captioned, and those of its twins."""
        if self._seen is None:
            yield _outcome(sample, result)
            return
        look = self._looks.pop(sample.id)
        if isinstance(result, Text):
            self._seen[look] = result.caption
            result = replace(result, more={**result.more, CONTENT: look})
        for twin in (sample, *self._waiting.pop(look)):
            yield _outcome(twin, result)


def look_of(sample: Sample, prompt: str | None) -> str:
    """Equal for samples that look alike, pixel by pixel, and are asked the same."""
    digest = hashlib.blake2b(repr(prompt).encode(), digest_size=16)
    for image in sample.media:
        digest.update(repr(image.size).encode())
        digest.update(image.tobytes())
    return digest.hexdigest()


def _outcome(sample: Sample, result: Text | Reject) -> Outcome:
    return Outcome(sample.id, result, place_of(sample))


def place_of(sample: Sample) -> Mapping[str, str]:
    """Where the sample's own file is."""
    kind = "image" if sample.video is None else "video"
    path, url = sample.extra.get("path"), sample.extra.get(URL)
    if path is not None:
        return {kind: str(Path(str(path)).absolute())}
    return {kind: url} if isinstance(url, str) else {}
