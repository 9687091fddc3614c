"""Batches of samples of like size, so that little is computed on padding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from limner.types import Sample

WAITING = 6
"""Samples that wait for others of their size, in batches; the largest group goes when there are more."""

Key = tuple[Any, ...]
Batch = tuple[Key, list[Sample]]


class Buckets:
    """Samples by size; those of one size come out in the order in which they went in."""

    def __init__(self, batch: int, *, shaped: bool):
        """Hold nothing yet.

        Args:
            batch: samples a batch.
            shaped: whether the captioner keeps the shape of images, so that larger ones take longer; others
                bring every image to one size, and are given batches in order.
        """
        self._batch, self._shaped = batch, shaped
        self._held: dict[Key, list[Sample]] = {}
        self._count = 0

    def add(self, sample: Sample, prompt: str | None) -> Batch | None:
        """Put a sample in; a batch that is full now, or has to go, comes out."""
        key = (prompt, *self.size(sample))
        bucket = self._held.setdefault(key, [])
        bucket.append(sample)
        self._count += 1
        if len(bucket) == self._batch:
            return self._out(key)
        if self._count > WAITING * self._batch:
            return self._out(max(self._held, key=lambda key: len(self._held[key])))
        return None

    def rest(self) -> Iterator[Batch]:
        """What is left, the largest first: if it does not fit into memory, that shows at once."""
        while self._held:
            yield self._out(max(self._held, key=lambda key: key[1:]))

    def size(self, sample: Sample) -> tuple[int, int]:
        """(pixels, pictures) of a sample, pixels in steps of a fifth; 0 pixels where they do not matter."""
        pixels = sum(image.width * image.height for image in sample.media) if self._shaped else 0
        return (round(math.log(pixels, 1.2)) if pixels else 0, len(sample.media))

    def _out(self, key: Key) -> Batch:
        samples = self._held.pop(key)
        self._count -= len(samples)
        return key, samples
