"""Shards of WebDataset: tar files in which the files of one sample follow each other, named alike."""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import NamedTuple

from limner.bulk import remote
from limner.bulk.media import IMAGE_SUFFIXES, ONLY_VIDEOS, Found, MediaSource
from limner.errors import Reject, UserError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_TEXTS = ("txt", "text", "caption", "prompt")
MAX_TEXT = 1_000_000
"""Most bytes of a text or JSON file of a sample that are read."""


class Part(NamedTuple):
    """One file of a sample, where it lies in the tar file."""

    start: int
    size: int


class Entry(NamedTuple):
    """One sample."""

    id: str
    shard: int
    parts: Mapping[str, Part]
    """Its files by what their names have behind the first dot, in lower case."""


@dataclass(frozen=True)
class Source(MediaSource):
    """Images and videos in tar files, each with its texts and its JSON as the columns of its row."""

    path: str
    """A tar file, a pattern ("shards/*.tar"), a range ("s3://bucket/cc-{00000..00331}.tar"), or a folder."""

    def ids(self) -> Sequence[str]:
        """SHARD/KEY, in the order of the shards.

        Raises:
            UserError: no shard there, or one that is no tar file.
        """
        return self._ids

    def found(self, index: int) -> Found:
        """The image or video of a sample, with its columns.

        Raises:
            Reject: it has neither, or cannot be read.
        """
        entry = self._entries[index]
        shard = self._shards[entry.shard]
        for name, part in entry.parts.items():
            if "." + name.rpartition(".")[2] in {*IMAGE_SUFFIXES, *ONLY_VIDEOS}:
                content = self._read(shard, part, self.max_bytes)
                return Found(entry.id, f"{entry.id}.{name}", content, self._row(entry))
        raise Reject(f"no image or video among its files: {', '.join(entry.parts)}")

    def _row(self, entry: Entry) -> Mapping[str, object]:
        row: dict[str, object] = {"key": entry.id.partition("/")[2]}
        for name, part in entry.parts.items():
            if name in _TEXTS:
                content = self._read(self._shards[entry.shard], part, MAX_TEXT)
                row[name] = content.decode("utf-8", "replace").strip()
            elif name == "json":
                try:
                    known = json.loads(self._read(self._shards[entry.shard], part, MAX_TEXT))
                except (ValueError, RecursionError) as error:
                    raise Reject(f"its JSON cannot be read ({error})") from None
                row |= known if isinstance(known, dict) else {}
        return row

    def _read(self, shard: str, part: Part, max_bytes: int) -> bytes:
        return remote.read(shard, start=part.start, size=part.size, max_bytes=max_bytes)

    @cached_property
    def _shards(self) -> list[str]:
        found = list(_shards(self.path))
        if not found:
            raise UserError(f"{self.path}: no shard there; shards are files that end in .tar")
        return found

    @cached_property
    def _entries(self) -> list[Entry]:
        return [entry for number, shard in enumerate(self._shards) for entry in _index(shard, number)]

    @cached_property
    def _ids(self) -> list[str]:
        ids = [entry.id for entry in self._entries]
        if len(set(ids)) < len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise UserError(f"{self.path}: two samples are called {twice}; shards need names of their own")
        return ids


def is_folder(path: str) -> bool:
    """Whether it is a folder with shards in it."""
    return os.path.isdir(path) and bool(glob.glob(os.path.join(glob.escape(path), "*.tar")))


def _shards(path: str) -> Iterator[str]:
    numbers = _RANGE.search(path)
    if numbers is not None:
        low, high = numbers.groups()
        for number in range(int(low), int(high) + 1):
            yield from _shards(f"{path[: numbers.start()]}{number:0{len(low)}d}{path[numbers.end() :]}")
    elif remote.is_address(path) and ("*" in path or not path.endswith(".tar")):
        system, place = remote.file_system(path)
        names = system.glob(place if "*" in place else f"{place.rstrip('/')}/*.tar")
        yield from map(system.unstrip_protocol, sorted(names))
    elif remote.is_address(path) or os.path.isfile(path):
        yield path
    else:
        yield from sorted(
            glob.glob(f"{glob.escape(path)}/*.tar" if os.path.isdir(path) else path, recursive=True)
        )


def _index(shard: str, number: int) -> Iterator[Entry]:
    """The samples of a shard by its headers alone: nothing is kept of the files but where they lie.

    A shard that ends in the middle, as a download that broke off does, has the samples before that.
    """
    name = PurePosixPath(shard).name.removesuffix(".tar")
    key, parts = None, dict[str, Part]()
    try:
        with remote.opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                here = f"{folder}/{stem}".removeprefix("./").lstrip("/")
                if here != key:
                    if key is not None:
                        yield Entry(f"{name}/{key}", number, parts)
                    key, parts = here, {}
                parts[suffix.lower()] = Part(member.offset_data, member.size)
    except tarfile.TarError as error:
        if key is None:
            raise UserError(f"{shard}: no tar file ({error}); compressed ones have to be unpacked") from error
    if key is not None:
        yield Entry(f"{name}/{key}", number, parts)
