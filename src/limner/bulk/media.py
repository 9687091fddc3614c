"""Images and videos wherever they lie: in files, at addresses, inside of tables and shards."""

from __future__ import annotations

import abc
import os
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

from annotated_types import Ge

from limner.bulk import remote
from limner.data import base
from limner.data.media import SUFFIXES as IMAGE_SUFFIXES
from limner.data.media import open_image
from limner.data.video import SUFFIXES as VIDEO_SUFFIXES
from limner.errors import Reject
from limner.types import Sample

ROW = "row"
"""Where a sample's `extra` has the columns of its row, for prompts."""
URL = "url"
"""Where it has the address of its file."""
ONLY_VIDEOS = frozenset(VIDEO_SUFFIXES) - frozenset(IMAGE_SUFFIXES)
"""How the names of files end that are videos and no images."""


class Found(NamedTuple):
    """One item of a source, unopened."""

    id: str
    """Its name in the source."""
    name: str
    """A file name, whose suffix tells videos from images."""
    place: Path | str | bytes
    """A file, an address, or the content itself."""
    row: Mapping[str, object]
    """What else is known of it."""

    @property
    def is_video(self) -> bool:
        """Whether its name is that of a video."""
        return os.path.splitext(self.name)[1].lower() in ONLY_VIDEOS


@dataclass(frozen=True, kw_only=True)
class MediaSource(base.VideoSource):
    """A source of images and videos that says where each item is; this class opens them."""

    max_side: Annotated[int, Ge(1)] | None = 1024
    """Longer side in pixels of what is kept: larger images are reduced when read. No limit if None."""

    @abc.abstractmethod
    def found(self, index: int) -> Found:
        """Item number `index`, unopened.

        Raises:
            Reject: it cannot be used.
        """

    def read(self, index: int) -> Sample:
        """An image, or a video that is not decoded yet.

        Raises:
            Reject: it cannot be used.
        """
        item = self.found(index)
        extra: dict[str, object] = {ROW: item.row}
        if isinstance(item.row.get("prompt"), str):
            extra["prompt"] = item.row["prompt"]
        if isinstance(item.place, Path):
            if item.is_video:
                return self.video(item.id, item.place, extra=extra)
            sample = self.sample(item.id, item.place)
            return replace(sample, extra={**sample.extra, **extra})
        if isinstance(item.place, str):
            extra[URL] = item.place
        content = self._content(item)
        if item.is_video:
            return self._kept(item, content, extra)
        image = open_image(
            content, max_side=self.max_side, max_pixels=self.max_pixels, max_bytes=self.max_bytes
        )
        return Sample(item.id, (image,), (), extra)

    def raw(self, index: int) -> tuple[str, bytes]:
        """(suffix in lower case, content) of the file of item number `index`, as it is.

        Raises:
            Reject: it cannot be read.
        """
        item = self.found(index)
        return os.path.splitext(item.name)[1].lower(), self._content(item)

    def _content(self, item: Found) -> bytes:
        if isinstance(item.place, bytes):
            return item.place
        return remote.read(str(item.place), max_bytes=self.max_bytes)

    def _kept(self, item: Found, content: bytes, extra: Mapping[str, object]) -> Sample:
        """A video that was in no file is put into one, which goes with the sample: decoders read files."""
        handle, name = tempfile.mkstemp(suffix=os.path.splitext(item.name)[1], prefix="limner-")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        sample = self.video(item.id, Path(name))
        sample = replace(sample, extra=extra)
        weakref.finalize(sample, Path(name).unlink, missing_ok=True)
        return sample


def suffix_of(content: bytes) -> str:
    """The suffix of an image of which only the content is known."""
    starts = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"II*\0": ".tif"}
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    if content[4:8] == b"ftyp":
        return ".mp4"
    return next((suffix for start, suffix in starts.items() if content.startswith(start)), ".jpg")


def content_of(source: base.Source, index: int) -> tuple[str, bytes]:
    """(suffix, content) of an item's file; a picture that is in no file becomes a PNG.

    Raises:
        Reject: it cannot be read.
    """
    import io

    if isinstance(source, MediaSource):
        return source.raw(index)
    sample = source.read(index)
    path = sample.extra.get("path")
    if isinstance(path, Path) and path.is_file():
        return path.suffix.lower(), remote.read(str(path), max_bytes=base.MAX_BYTES)
    if not sample.media:
        raise Reject("frames in a folder are no file")
    buffer = io.BytesIO()
    sample.image.save(buffer, "PNG")
    return ".png", buffer.getvalue()
