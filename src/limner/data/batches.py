"""Batches of samples in an order that chance, threads and restarts cannot change."""

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from typing import NamedTuple

import numpy as np

from limner.data.base import Source
from limner.data.rejects import RejectLog
from limner.errors import Reject, UserError
from limner.types import Sample


class Item(NamedTuple):
    """One item of a source, read or rejected."""

    id: str
    result: Sample | Reject


def read_ahead(
    source: Source, indices: Iterable[int], *, workers: int, ahead: int
) -> Generator[Item, None, None]:
    """Read items in threads, `ahead` of them before they are asked for; they come out in order.

    Args:
        source: where to read.
        indices: which items, in which order; may be endless.
        workers: threads, at least 1. Images are decoded outside of Python's lock, so threads help.
        ahead: how many items wait at most.
    """
    ids = source.ids()
    todo = iter(indices)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="limner-data")
    waiting: deque[Future[Item]] = deque()
    try:
        waiting.extend(pool.submit(_read, source, ids[index], index) for index in islice(todo, ahead))
        while waiting:
            item = waiting.popleft().result()
            waiting.extend(pool.submit(_read, source, ids[index], index) for index in islice(todo, 1))
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read(source: Source, id: str, index: int) -> Item:
    try:
        return Item(id, source.read(index))
    except Reject as reject:
        return Item(id, reject)


def epochs(size: int, *, seed: int, position: int = 0, shuffle: bool = True) -> Iterator[int]:
    """Indices 0..size-1 epoch after epoch without end, from a position on.

    Epoch e is a permutation that depends on (seed, e) alone, so any position is reached at once.
    """
    for epoch in count(position // size):
        order = np.random.default_rng([seed, epoch]).permutation(size) if shuffle else np.arange(size)
        yield from order[position % size :].tolist()
        position = 0


class Batches:
    """Endless shuffled epochs of a source in batches; the next batch is read while this one is used.

    Items that cannot be used are recorded and left out; batches are full all the same.
    """

    def __init__(
        self,
        source: Source,
        batch: int,
        *,
        seed: int,
        position: int = 0,
        shuffle: bool = True,
        rejects: RejectLog | None = None,
        workers: int = 2,
    ):
        """Start at `position`.

        Args:
            source: where samples come from.
            batch: B, samples a batch.
            seed: of the permutations.
            position: the `position` of an earlier Batches with the same source, seed and shuffle; the
                batches that follow are those that would have followed there.
            shuffle: False takes every epoch in the order of the source.
            rejects: where items that cannot be used are recorded.
            workers: threads that read.

        Raises:
            UserError: the source is empty.
        """
        self.source = source
        self.batch = batch
        self.position = position
        """Items taken since the start of the first epoch, rejected ones included."""
        self._rejects = rejects
        self._size = len(source)
        if not self._size:
            raise UserError(f"{source}: nothing to caption")
        indices = epochs(self._size, seed=seed, position=position, shuffle=shuffle)
        self._items = read_ahead(source, indices, workers=workers, ahead=batch)
        self._refused: Counter[str] = Counter()
        """Reasons given in this epoch, as far as it was read here."""

    def next(self) -> list[Sample]:
        """The next `batch` samples.

        Raises:
            UserError: not one item of a whole epoch can be used.
        """
        samples: list[Sample] = []
        while len(samples) < self.batch:
            if self.position % self._size == 0:
                self._refused.clear()
            item = next(self._items)
            self.position += 1
            if isinstance(item.result, Sample):
                samples.append(item.result)
            else:
                self._refuse(item.id, item.result.reason)
        return samples

    def close(self) -> None:
        """Stop reading ahead."""
        self._items.close()

    def _refuse(self, id: str, reason: str) -> None:
        if self._rejects is not None:
            self._rejects.add(id, reason)
        self._refused[reason] += 1
        if self._refused.total() == self._size:
            reasons = "; ".join(f"{times} x {text}" for text, times in self._refused.most_common(5))
            raise UserError(f"{self.source}: not one of the {self._size} items can be used: {reasons}")
