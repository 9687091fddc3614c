"""The batches of one process, shared out to the ranks: each reads its own items and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from limner import distributed
from limner.data.base import Source
from limner.data.batches import NO_REFERENCE, Batches, Item
from limner.data.order import Draw
from limner.data.qa_rows import REJECTED
from limner.data.rejects import RejectLog
from limner.types import Sample


class Note(NamedTuple):
    """What the other ranks are told of an item that a rank has read."""

    id: str
    reason: str
    """Why it cannot be used; empty where it can."""
    wrong: tuple[str, ...]
    """Why some of its questions cannot be asked."""


class SharedBatches(Batches):
    """The part of each batch that is this rank's; all ranks together have the batch of one process.

    Item p of the endless stream is read by rank p modulo the number of ranks. Every rank is told what came
    of every item, so all know which items the batch is made of. Where rejected items leave one rank with
    fewer than its share, others give it some of theirs.
    """

    def __init__(
        self, source: Source, batch: int, *, seed: int, position: int = 0, references: bool = False,
        rejects: RejectLog | None = None,
    ):  # fmt: skip
        """Start at `position`; arguments as of `Batches`, `batch` over all ranks."""
        self._ranks, self._rank = distributed.count(), distributed.rank()
        self._next = position
        super().__init__(source, batch, seed=seed, position=position, references=references, rejects=rejects)
        self.places = []

    def draws(self, seed: int, shuffle: bool) -> Iterator[Draw]:
        """This rank's draws."""
        every = super().draws(seed, shuffle)
        return (draw for place, draw in enumerate(every, self.position) if place % self._ranks == self._rank)

    @property
    def ahead(self) -> int:
        """Items that are read before they are asked for."""
        return self.batch // self._ranks

    def next(self) -> list[Sample]:
        """This rank's samples of the next batch; `places` says where in the batch they stand.

        Raises:
            UserError: not one item of a whole epoch can be used.
        """
        usable: list[int] = []
        mine: dict[int, Sample] = {}
        while len(usable) < self.batch:
            window = range(self.position, self.position + self.batch - len(usable))
            notes: dict[int, Note] = {}
            for place in window:
                if place % self._ranks == self._rank:
                    item = next(self._items)
                    notes[place] = self._note(item)
                    if isinstance(item.result, Sample):
                        mine[place] = item.result
            told = {place: note for part in distributed.everyone(notes) for place, note in part.items()}
            usable += [place for place in window if self._take(told[place])]
        quota = self.batch // self._ranks
        moves = moved(usable, self._ranks, quota)
        if moves:
            given = distributed.everyone({place: mine[place] for place in moves if place in mine})
            mine |= {place: sample for part in given for place, sample in part.items()}
        owner = {place: moves.get(place, place % self._ranks) for place in usable}
        self.places = [number for number, place in enumerate(usable) if owner[place] == self._rank]
        return [mine[usable[number]] for number in self.places]

    def _note(self, item: Item) -> Note:
        if not isinstance(item.result, Sample):
            return Note(item.id, item.result.reason, ())
        if self._references and not item.result.references:
            return Note(item.id, NO_REFERENCE, ())
        wrong = item.result.extra.get(REJECTED)
        return Note(item.result.id, "", tuple(map(str, wrong)) if isinstance(wrong, tuple) else ())

    def _take(self, note: Note) -> bool:
        """Count an item; whether it can be used."""
        if self.position % self._epoch == 0:
            self._refused.clear()
        self.position += 1
        if note.reason:
            self._refuse(note.id, note.reason)
        else:
            self._name_wrong(note.id, note.wrong)
        return not note.reason


def moved(usable: list[int], ranks: int, quota: int) -> dict[int, int]:
    """Which items go to another rank than the one that read them, so that each has `quota`: item -> rank."""
    counts = [0] * ranks
    over: list[int] = []
    for place in usable:
        if counts[place % ranks] < quota:
            counts[place % ranks] += 1
        else:
            over.append(place)
    free = [rank for rank, held in enumerate(counts) for _ in range(quota - held)]
    return dict(zip(over, free, strict=True))
