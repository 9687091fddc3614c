"""The part of `limner score` that looks at images: CLIPScore, CLIP recall, ITM, facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from limner.data.base import Source
from limner.data.batches import read_ahead
from limner.data.named import source as source_of
from limner.errors import Reject, UserError
from limner.evaluate import Gauge
from limner.score_files import some
from limner.types import Sample

Floats = npt.NDArray[np.float64]

READERS = 4
"""How many open images at once."""
BATCH = 64
"""Images that are held and go through the models together."""


@dataclass(frozen=True)
class Looks:
    """What to measure with the images at hand."""

    data: str
    """Where the images are, as `limner.data.named.source` reads it."""
    metrics: tuple[str, ...] = ()
    """Groups of measures or single ones; none reads the references only."""
    clip: str | None = None
    """CLIP, where a measure needs one."""
    itm: str | None = None
    """Matching model, where a measure needs one."""
    device: str = "auto"
    """Where models run."""


@dataclass(frozen=True)
class Seen:
    """What looking at the images gave."""

    references: Mapping[str, tuple[str, ...]]
    """The references of the N images that could be used, by id: those given, or those of the data."""
    columns: tuple[Mapping[str, Floats], ...]
    """Of each system (M,) values by measure: image by image, its captions in order."""
    settings: Mapping[str, object]
    """The checkpoints that measured."""


def ids_of(data: str) -> Sequence[str]:
    """Ids of the images of a data source; opens none."""
    return source_of(data).ids()


def look(
    looks: Looks,
    systems: Sequence[Mapping[str, Sequence[str]]],
    ids: Sequence[str],
    *,
    references: Mapping[str, tuple[str, ...]] | None,
    allow_missing: bool,
) -> Seen:
    """Open the images and measure the captions of every system on them.

    Args:
        looks: what to measure.
        systems: captions by id, one or more an image.
        ids: the images.
        references: of these images; those of the data if None.
        allow_missing: leave out images that are not in the data or cannot be opened.

    Raises:
        UserError: there are such images, or a measure lacks its model.
    """
    source = source_of(looks.data)
    places = _places(source, ids, allow_missing=allow_missing)
    if not looks.metrics:
        return Seen(_references(source, places, allow_missing=allow_missing), tuple({} for _ in systems), {})
    gauges = [Gauge(looks.metrics, clip=looks.clip, itm=looks.itm, device=looks.device) for _ in systems]
    kept: dict[str, tuple[str, ...]] = {}
    samples = _opened(source, list(places.values()), allow_missing=allow_missing)
    while group := list(islice(samples, BATCH)):
        if references is not None:
            group = [replace(sample, references=references[sample.id]) for sample in group]
        kept |= {sample.id: sample.references for sample in group}
        for gauge, captions in zip(gauges, systems, strict=True):
            rows = [(text, sample) for sample in group for text in captions[sample.id]]
            gauge.add([text for text, _ in rows], [sample for _, sample in rows])
    if not kept:
        raise UserError(f"{source}: not one of the {len(ids)} images with a caption can be used")
    return Seen(kept, tuple(gauge.columns() for gauge in gauges), gauges[0].settings)


def _places(source: Source, ids: Sequence[str], *, allow_missing: bool) -> dict[str, int]:
    """Where in the source the images are, by id."""
    place = {id: index for index, id in enumerate(source.ids())}
    unknown = [id for id in ids if id not in place]
    if len(unknown) == len(ids) or (unknown and not allow_missing):
        raise UserError(
            f"{source}: lacks {some(unknown, 'image')} of the {len(ids)} with a caption; "
            "--allow-missing leaves them out"
        )
    return {id: place[id] for id in ids if id in place}


def _references(
    source: Source, places: Mapping[str, int], *, allow_missing: bool
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for id, index in places.items():
        try:
            found[id] = source.references(index)
        except Reject as reject:
            if not allow_missing:
                raise _unusable(source, id, reject) from reject
    return found


def _opened(source: Source, indices: Sequence[int], *, allow_missing: bool) -> Iterator[Sample]:
    with closing(read_ahead(source, indices, workers=READERS, ahead=4 * READERS)) as items:
        for item in items:
            if isinstance(item.result, Sample):
                yield item.result
            elif not allow_missing:
                raise _unusable(source, item.id, item.result)


def _unusable(source: Source, id: str, reject: Reject) -> UserError:
    return UserError(
        f"{source}: {id} cannot be used: {reject.reason}; --allow-missing leaves such images out"
    )
