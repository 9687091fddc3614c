"""What a data source is: samples with stable ids in a stable order."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from limner.data.media import MAX_BYTES, MAX_PIXELS, open_image
from limner.errors import Reject
from limner.types import Sample


@dataclass(frozen=True)
class Source(ABC):
    """Samples to caption. A data source is one file in this folder with a subclass named `Source`.

    Its fields are its settings. Items are numbered from 0; the same settings on the same files give the
    same items in the same order, which is what lets a run be resumed.
    """

    @abstractmethod
    def ids(self) -> Sequence[str]:
        """Every item's id, each of them once, in the order of the items. Opens no image.

        Raises:
            UserError: there is nothing to read: no such file or folder, or nothing in it.
        """

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Item number `index`, whose id is `ids()[index]`. Called from several threads at once.

        Raises:
            Reject: this item cannot be used.
        """

    def __str__(self) -> str:
        """The source in a message."""
        return type(self).__module__

    def __len__(self) -> int:
        """Number of items, those that cannot be used included."""
        return len(self.ids())

    def __iter__(self) -> Iterator[Sample]:
        """The samples in order; items that cannot be used are left out."""
        for index in range(len(self)):
            try:
                yield self.read(index)
            except Reject:
                continue


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """A source whose images are files on disk, with the limits that all of them keep."""

    path: str
    """What to read."""
    max_side: Annotated[int, Ge(1)] | None = 1024
    """Longer side in pixels of what is kept: bigger images are reduced when read, so that a batch of
    photographs fits in memory. No limit if None."""
    max_pixels: Annotated[int, Ge(1)] = MAX_PIXELS
    """Images with more pixels are rejected from their header, before they are decoded."""
    max_bytes: Annotated[int, Ge(1)] = MAX_BYTES
    """Files with more bytes are rejected unread."""

    def __str__(self) -> str:
        """Its path."""
        return self.path

    def sample(self, id: str, path: Path, references: tuple[str, ...] = ()) -> Sample:
        """A sample of one image file. Its `extra["path"]` is the file.

        Raises:
            Reject: the file is no usable image.
        """
        image = open_image(path, max_side=self.max_side, max_pixels=self.max_pixels, max_bytes=self.max_bytes)
        return Sample(id, (image,), references, {"path": path})
