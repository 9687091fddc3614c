"""A folder of video files, and the folders in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limner.data import base, walk
from limner.data.video import SUFFIXES
from limner.data.video_stills import FRAME_SUFFIXES
from limner.errors import Reject
from limner.types import Sample

_BESIDE_VIDEOS = (".txt", ".caption", ".json", ".jsonl", ".srt", ".vtt")
"""Captions, metadata and subtitles: files that stand beside videos on purpose."""


@dataclass(frozen=True, kw_only=True)
class Source(base.VideoSource):
    """Every video of a folder and the folders in it, in the order of their paths.

    Files are chosen by name: video suffixes (GIF and WebP among them) and names without a suffix are tried;
    captions, metadata, subtitles (.txt, .caption, .json, .jsonl, .srt, .vtt) and hidden files are passed
    over; anything else is rejected. A folder with images in it (JPEG, PNG, TIFF, BMP) and no video is a
    video itself: its images are the frames, in the order of the numbers in their names.
    """

    path: str
    """The folder, or one video file."""

    def ids(self) -> Sequence[str]:
        """Paths below the folder, with forward slashes, sorted.

        Raises:
            UserError: no such folder, it cannot be read, or it holds nothing that could be a video.
        """
        return self._ids

    def read(self, index: int) -> Sample:
        """One video, unopened.

        Raises:
            Reject: its name or its folder tells that it cannot be used.
        """
        entry = self._entries[index]
        if entry.refused is not None:
            raise Reject(entry.refused)
        return self.video(entry.id, entry.path)

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        return tuple(entry.id for entry in self._entries)

    @cached_property
    def _entries(self) -> tuple[walk.Entry, ...]:
        return walk.entries(self.path, _videos, what="video", suffixes=SUFFIXES)


def _videos(folder: Path, files: Sequence[Path]) -> Iterator[walk.Kept]:
    """The videos among the files of a folder; the folder itself where they are frames."""
    files = [path for path in files if not path.name.lower().endswith(_BESIDE_VIDEOS)]
    kinds = {path.suffix.lower() for path in files}
    if kinds & set(FRAME_SUFFIXES) and not kinds & set(SUFFIXES):
        yield folder, None
        return
    for path in files:
        suffix = path.suffix.lower()
        yield path, None if suffix in SUFFIXES or not suffix else "not a video file"
