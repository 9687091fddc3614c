"""A folder of video files, and the folders in it."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from limner.data import base
from limner.data.video import SUFFIXES
from limner.data.video_stills import FRAME_SUFFIXES
from limner.errors import Reject, UserError
from limner.types import Sample

_BESIDE_VIDEOS = (".txt", ".caption", ".json", ".jsonl", ".srt", ".vtt")
"""Captions, metadata and subtitles: files that stand beside videos on purpose."""


class _Entry(NamedTuple):
    id: str
    path: Path
    refused: str | None
    """Why it cannot be used, where its name or its folder tells."""


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
    def _entries(self) -> tuple[_Entry, ...]:
        root = Path(self.path).expanduser()
        if root.is_file():
            return (_Entry(root.name, root, None),)
        if not root.is_dir():
            raise UserError(f"{self.path}: no such folder; give a folder of videos, or one video file")
        entries = sorted(_walk(root))
        if not entries:
            raise UserError(
                f"{self.path}: no video in this folder or below it; videos end in {', '.join(SUFFIXES)}"
            )
        if entries[0].path == root and entries[0].refused:
            raise UserError(f"{self.path}: {entries[0].refused}")
        return tuple(entries)


def _walk(root: Path) -> Iterator[_Entry]:
    """Entries of a folder and all below it, hidden ones left out, in no order.

    Each real folder is read once, however many links lead to it, so links in circles end; those that are
    reached without a link come first.
    """
    folders, seen = deque([root]), set[tuple[int, int]]()
    while folders:
        folder = folders.popleft()
        files: list[Path] = []
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as children:
                for child in children:
                    if child.name.startswith("."):
                        continue
                    if child.is_dir(follow_symlinks=False):
                        folders.appendleft(Path(child))
                    elif child.is_symlink() and os.path.isdir(child):
                        folders.append(Path(child))
                    elif not child.name.lower().endswith(_BESIDE_VIDEOS):
                        files.append(Path(child))
        except OSError as error:
            yield _entry(root, folder, f"folder cannot be read: {str(error.strerror).lower()}")
        else:
            yield from _found(root, folder, files)


def _found(root: Path, folder: Path, files: Sequence[Path]) -> Iterator[_Entry]:
    """The videos among the files of a folder; the folder itself where they are frames."""
    kinds = {path.suffix.lower() for path in files}
    if kinds & set(FRAME_SUFFIXES) and not kinds & set(SUFFIXES):
        yield _entry(root, folder, None)
        return
    for path in files:
        suffix = path.suffix.lower()
        yield _entry(root, path, None if suffix in SUFFIXES or not suffix else "not a video file")


def _entry(root: Path, path: Path, refused: str | None) -> _Entry:
    """Names that are no valid UTF-8 have their odd bytes spelled out in the id."""
    name = os.fsencode(path.relative_to(root).as_posix() if path != root else root.resolve().name)
    return _Entry(name.decode("utf-8", "backslashreplace"), path, refused)
