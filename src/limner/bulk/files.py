"""Image and video files that a pattern or an address names: "photos/*/*.jpg", "s3://bucket/photos"."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limner.bulk import remote
from limner.bulk.media import IMAGE_SUFFIXES, ONLY_VIDEOS, Found, MediaSource
from limner.errors import UserError

_WILD = frozenset("*?[")


@dataclass(frozen=True)
class Source(MediaSource):
    """Files named by a pattern, or all of a folder, here or at an address; images and videos together."""

    path: str
    """A pattern (* within a folder, ** through folders), a folder, or one file; a path or an address."""

    def ids(self) -> Sequence[str]:
        """Paths below the folder in front of the pattern, with forward slashes, sorted.

        Raises:
            UserError: no image or video there.
        """
        return self._ids

    def found(self, index: int) -> Found:
        """One file."""
        id, place = self._files[index]
        where = place if remote.is_address(place) else Path(place)
        return Found(id, id, where, {})

    @cached_property
    def _ids(self) -> list[str]:
        return [id for id, _ in self._files]

    @cached_property
    def _files(self) -> list[tuple[str, str]]:
        """(id, path or address), sorted."""
        found = self._at_address() if remote.is_address(self.path) else self._here()
        suffixes = ONLY_VIDEOS | frozenset(IMAGE_SUFFIXES)
        kept = sorted((id, place) for id, place in found if os.path.splitext(id)[1].lower() in suffixes)
        if not kept:
            raise UserError(f"{self.path}: no image or video there; their names end in .jpg, .png, .mp4, ...")
        return kept

    def _here(self) -> list[tuple[str, str]]:
        path = os.path.expanduser(self.path)
        pattern = os.path.join(path, "**", "*") if os.path.isdir(path) else path
        names = [name for name in glob.glob(pattern, recursive=True) if os.path.isfile(name)]
        return [(os.path.relpath(name, _fixed(pattern)).replace(os.sep, "/"), name) for name in names]

    def _at_address(self) -> list[tuple[str, str]]:
        system, path = remote.file_system(self.path)
        try:
            if _WILD & set(path):
                names = system.glob(path)
            else:
                names = system.find(path) if system.isdir(path) else [path]
        except Exception as error:  # file systems of others raise what they like
            raise UserError(f"{self.path}: cannot be listed ({error})") from error
        top = _fixed(path) if _WILD & set(path) or names == [path] else path
        return [(os.path.relpath(name, top), system.unstrip_protocol(name)) for name in names]


def is_pattern(path: str) -> bool:
    """Whether a path names many files."""
    return bool(_WILD & set(path)) and not os.path.exists(path)


def _fixed(pattern: str) -> str:
    """The folder in front of what varies."""
    parts = pattern.split("/")
    wild = next((n for n, part in enumerate(parts) if _WILD & set(part)), len(parts) - 1)
    return "/".join(parts[:wild]) or ("/" if pattern.startswith("/") else ".")
