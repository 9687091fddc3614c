"""Image and video files of a folder, a pattern or an address: "photos", "photos/*/*.jpg", "s3://bucket/photos"."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limner.bulk import remote
from limner.bulk.media import IMAGE_SUFFIXES, ONLY_VIDEOS, Found, MediaSource
from limner.data import walk
from limner.errors import Reject, UserError

_WILD = frozenset("*?[")
_SUFFIXES = (*IMAGE_SUFFIXES, *sorted(ONLY_VIDEOS))
_BESIDE = frozenset((".txt", ".caption", ".json", ".jsonl", ".srt", ".vtt"))
"""Captions, metadata and subtitles: files that stand beside images and videos on purpose."""
_WHAT = "image or video"


@dataclass(frozen=True)
class Source(MediaSource):
    """Files of a folder, or named by a pattern, here or at an address; images and videos together.

    Files are chosen by name: image and video suffixes and names without a suffix are tried; captions,
    metadata, subtitles (.txt, .caption, .json, .jsonl, .srt, .vtt) and hidden files are passed over;
    anything else is rejected.
    """

    path: str
    """A folder, a pattern (* within a folder, ** through folders), or one file; a path or an address."""

    def ids(self) -> Sequence[str]:
        """Paths below the folder, or the folder in front of the pattern, with forward slashes, sorted.

        Raises:
            UserError: nothing there that could be an image or video.
        """
        return self._ids

    def found(self, index: int) -> Found:
        """One file.

        Raises:
            Reject: its name or its folder tells that it cannot be used.
        """
        id, place, refused = self._files[index]
        if refused is not None:
            raise Reject(refused)
        return Found(id, id, place, {})

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        return tuple(id for id, _, _ in self._files)

    @cached_property
    def _files(self) -> Sequence[tuple[str, Path | str, str | None]]:
        """(id, path or address, why it cannot be used), sorted by id."""
        if not remote.is_address(self.path):
            if os.path.isdir(os.path.expanduser(self.path)):
                return walk.entries(self.path, _media, what=_WHAT, suffixes=_SUFFIXES)
            found = self._matching()
        else:
            found = self._at_address()
        if not found:
            raise UserError(f"{self.path}: no {_WHAT} there; their names end in {', '.join(_SUFFIXES)}")
        return found

    def _matching(self) -> list[tuple[str, Path | str, str | None]]:
        """What a pattern names."""
        pattern = os.path.expanduser(self.path)
        top = _fixed(pattern)
        if "**" in pattern.split("/"):
            # glob would follow links in circles, and name a file once for every way that leads to it
            parts = os.path.relpath(pattern, top).split("/")
            below = walk.entries(top, _media, what=_WHAT, suffixes=_SUFFIXES)
            return [(id, path, refused) for id, path, refused in below if _fits(id.split("/"), parts)]
        paths = [Path(name) for name in glob.glob(pattern) if not os.path.isdir(name)]
        return sorted((_id(path, top), path, refused) for path, refused in _media(Path(top), paths))

    def _at_address(self) -> list[tuple[str, Path | str, str | None]]:
        system, path = remote.file_system(self.path)
        try:
            if _WILD & set(path):
                names = system.glob(path)
            else:
                names = system.find(path) if system.isdir(path) else [path][: system.exists(path)]
        except Exception as error:  # file systems of others raise what they like
            raise UserError(f"{self.path}: cannot be listed ({error})") from error
        top = _fixed(path) if _WILD & set(path) or names == [path] else path
        ids = {os.path.relpath(name, top): name for name in names}
        shown = [Path(id) for id in ids if not any(part.startswith(".") for part in id.split("/"))]
        kept = ((path.as_posix(), refused) for path, refused in _media(Path(), shown))
        return sorted((id, system.unstrip_protocol(ids[id]), refused) for id, refused in kept)


def _media(folder: Path, files: Iterable[Path]) -> Iterator[walk.Kept]:
    for path in files:
        suffix = path.suffix.lower()
        if suffix not in _BESIDE:
            yield path, None if suffix in _SUFFIXES or not suffix else f"not an {_WHAT} file"


def _id(path: Path, top: str) -> str:
    """The path below a folder; names that are no valid UTF-8 have their odd bytes spelled out."""
    return os.fsencode(os.path.relpath(path, top)).decode("utf-8", "backslashreplace")


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a pattern names the path of these parts; ** stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[gone:], pattern[1:]) for gone in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def is_pattern(path: str) -> bool:
    """Whether a path names many files."""
    return bool(_WILD & set(path)) and not os.path.exists(path)


def _fixed(pattern: str) -> str:
    """The folder in front of what varies."""
    parts = pattern.split("/")
    wild = next((n for n, part in enumerate(parts) if _WILD & set(part)), len(parts) - 1)
    return "/".join(parts[:wild]) or ("/" if pattern.startswith("/") else ".")
