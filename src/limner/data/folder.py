"""A folder of image files, and the folders in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limner.data import base, walk
from limner.data.media import SUFFIXES
from limner.errors import Reject
from limner.types import Sample

_BESIDE_IMAGES = (".txt", ".caption", ".json", ".jsonl")
"""Captions and metadata: files that stand beside images on purpose."""


@dataclass(frozen=True)
class Source(base.FileSource):
    """Every image of a folder and the folders in it, in the order of their paths.

    Files are chosen by name: image suffixes and names without a suffix are tried; captions and metadata
    (.txt, .caption, .json, .jsonl) and hidden files are passed over; anything else is rejected.
    """

    path: str
    """The folder, or one image file."""

    def ids(self) -> Sequence[str]:
        """Paths below the folder, with forward slashes, sorted.

        Raises:
            UserError: no such folder, it cannot be read, or it holds nothing that could be an image.
        """
        return self._ids

    def read(self, index: int) -> Sample:
        """One image.

        Raises:
            Reject: it cannot be used.
        """
        entry = self._entries[index]
        if entry.refused is not None:
            raise Reject(entry.refused)
        return self.sample(entry.id, entry.path)

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        return tuple(entry.id for entry in self._entries)

    @cached_property
    def _entries(self) -> tuple[walk.Entry, ...]:
        return walk.entries(self.path, _images, what="image", suffixes=SUFFIXES)


def _images(folder: Path, files: Sequence[Path]) -> Iterator[walk.Kept]:
    for path in files:
        suffix = path.suffix.lower()
        if suffix not in _BESIDE_IMAGES:
            yield path, None if suffix in SUFFIXES or not suffix else "not an image file"
