"""Batches of samples in an order that chance, threads, processes and restarts cannot change."""

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from limner.data.base import Source
from limner.data.order import Draw
from limner.data.qa_rows import REJECTED
from limner.data.rejects import RejectLog
from limner.data.video_pool import Decoders
from limner.errors import Reject, UserError
from limner.types import Sample

NO_REFERENCE = "no reference caption"


class Item(NamedTuple):
    """One item of a source, read or rejected."""

    id: str
    result: Sample | Reject


def read_ahead(
    source: Source, indices: Iterable[int | Draw], *, workers: int, ahead: int
) -> Generator[Item, None, None]:
    """Read items in threads, `ahead` of them before they are asked for; they come out in order.

    Videos are decoded in processes, one for each thread, that start when the first video comes and end when
    the generator is closed, exhausted or forgotten. At most `ahead` samples are held here.

    Args:
        source: where to read.
        indices: which items, in which order; may be endless. A bare index is an item read for the first
            time.
        workers: threads, at least 1. Images are decoded outside of Python's lock, so threads help.
        ahead: how many items wait at most.
    """
    ids = source.ids()
    todo = (each if isinstance(each, Draw) else Draw(each, 0) for each in indices)
    decoders = Decoders()

    def read(draw: Draw) -> Item:
        try:
            return Item(ids[draw.item], decoders.load(source.read(draw.item), epoch=draw.epoch))
        except Reject as reject:
            return Item(ids[draw.item], reject)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="limner-data")
    waiting: deque[Future[Item]] = deque()
    try:
        waiting.extend(pool.submit(read, draw) for draw in islice(todo, ahead))
        while waiting:
            item = waiting.popleft().result()
            waiting.extend(pool.submit(read, draw) for draw in islice(todo, 1))
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        decoders.close()


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
        references: bool = False,
        rejects: RejectLog | None = None,
        workers: int = 2,
    ):
        """Start at `position`.

        Args:
            source: where samples come from.
            batch: B, samples a batch.
            seed: of the order.
            position: the `position` of an earlier Batches with the same source, seed and shuffle; the
                batches that follow are those that would have followed there.
            shuffle: False takes every epoch in the order of the source.
            references: samples without a reference caption cannot be used.
            rejects: where items that cannot be used are recorded.
            workers: threads that read, and processes that decode videos where there are any.

        Raises:
            UserError: the source is empty.
        """
        self.source = source
        self.batch = batch
        self.position = position
        """Items taken since the start of the first epoch, rejected ones included."""
        self.places: Sequence[int] = range(batch)
        """Where in the batch each sample of `next` stands."""
        self._references = references
        self._rejects = rejects
        if not len(source):
            raise UserError(f"{source}: nothing to caption")
        self._epoch = source.epoch_length()
        draws = self.draws(seed, shuffle)
        self._items = read_ahead(source, draws, workers=workers, ahead=self.ahead)
        self._refused: Counter[str] = Counter()
        """Reasons given in this epoch, as far as it was read here."""

    def draws(self, seed: int, shuffle: bool) -> Iterator[Draw]:
        """The items to read, from `position` on."""
        return self.source.draws(seed=seed, position=self.position, shuffle=shuffle)

    @property
    def ahead(self) -> int:
        """Items that are read before they are asked for."""
        return self.batch

    def next(self) -> list[Sample]:
        """The next `batch` samples.

        Raises:
            UserError: not one item of a whole epoch can be used.
        """
        samples: list[Sample] = []
        while len(samples) < self.batch:
            if self.position % self._epoch == 0:
                self._refused.clear()
            item = next(self._items)
            self.position += 1
            if not isinstance(item.result, Sample):
                self._refuse(item.id, item.result.reason)
            elif self._references and not item.result.references:
                self._refuse(item.id, NO_REFERENCE)
            else:
                self._name_wrong(item.result.id, item.result.extra.get(REJECTED))
                samples.append(item.result)
        return samples

    def close(self) -> None:
        """Stop reading ahead, and end the processes that decode videos."""
        self._items.close()

    def _name_wrong(self, id: str, wrong: object) -> None:
        """Record why questions of a usable sample cannot be asked."""
        if self._rejects is not None and isinstance(wrong, tuple):
            for number, reason in enumerate(wrong, 1):
                self._rejects.add(f"{id}: rejected question {number}", str(reason))

    def _refuse(self, id: str, reason: str) -> None:
        if self._rejects is not None:
            self._rejects.add(id, reason)
        self._refused[reason] += 1
        if self._refused.total() == self._epoch:
            reasons = "; ".join(f"{times} x {text}" for text, times in self._refused.most_common(5))
            hint = "; data.captions names the column of captions in a .jsonl" * (
                NO_REFERENCE in self._refused
            )
            raise UserError(f"{self.source}: not one of the {self._epoch} items can be used: {reasons}{hint}")
