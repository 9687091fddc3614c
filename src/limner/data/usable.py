"""Samples to measure on: of a published data set all of them, or none.

A score over the videos that happen to be on a disk is no score of the data set. So what its annotation files
list and what cannot be used is an error in evaluation unless it is allowed; in training it is left out and
recorded.
"""

from collections.abc import Iterator
from contextlib import closing

from limner.data.annotations_source import Listed
from limner.data.base import Source
from limner.data.batches import read_ahead
from limner.data.mixture import Source as Mixture
from limner.errors import Reject, UserError
from limner.types import Sample

READERS = 4
"""Threads that open images, and processes that decode videos."""
_NAMED = 3


def usable(
    source: Source,
    count: int | None = None,
    *,
    allow_missing: bool = False,
    rejects: list[str] | None = None,
) -> Iterator[Sample]:
    """The first usable samples of a source, with their media, read ahead.

    What annotation files list is looked for at once, before anything is read.

    Args:
        source: where to read.
        count: how many samples; all if None.
        allow_missing: leave out what cannot be used of annotated sources too, as of plain folders.
        rejects: `id: reason` of what is left out is appended here.

    Raises:
        UserError: an annotated source has items that cannot be used: at once where that shows without opening
            them, else when their turn comes.
    """
    if not allow_missing:
        looked = range(min(len(source), len(source) if count is None else count))
        reasons = ((index, _why(source, index)) for index in looked)
        missing = [f"{source.ids()[index]}: {why.reason}" for index, why in reasons if why is not None]
        if missing:
            raise _refusal(source, missing)
    return _read(source, count, allow_missing, [] if rejects is None else rejects)


def _read(source: Source, count: int | None, allow_missing: bool, rejects: list[str]) -> Iterator[Sample]:
    given = 0
    with closing(
        read_ahead(source, range(len(source)), workers=READERS, ahead=min(4 * READERS, count or len(source)))
    ) as items:
        for index, item in enumerate(items):
            if isinstance(item.result, Sample):
                yield item.result
                given += 1
                if given == count:
                    return
                continue
            rejects.append(f"{item.id}: {item.result.reason}")
            if not allow_missing and isinstance(_part(source, index)[0], Listed):
                raise _refusal(source, rejects[-1:])


def _part(source: Source, index: int) -> tuple[Source, int]:
    """The source, within mixtures, that an item is read from, and the item's number there."""
    while isinstance(source, Mixture):
        source, index = source.part_of(index)
    return source, index


def _why(source: Source, index: int) -> Reject | None:
    """Why an item of an annotated source cannot be used, as far as it shows without opening its media."""
    part, place = _part(source, index)
    if isinstance(part, Listed):
        try:
            part.look(place)
        except Reject as reject:
            return reject
    return None


def _refusal(source: Source, missing: list[str]) -> UserError:
    named = "; ".join(missing[:_NAMED]) + ("; ..." if len(missing) > _NAMED else "")
    return UserError(
        f"{source}: {len(missing)} of its items cannot be used: {named}\nA score without them is not "
        "comparable with others: mend the data (`limner data check` says all that is wrong) or allow it: "
        "--allow-missing, in a recipe evaluate.allow_missing=true"
    )
