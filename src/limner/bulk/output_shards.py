"""WebDataset shards as output: the image as it was, its caption and its row, under one key."""

from __future__ import annotations

import io
import json
import logging
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from limner.bulk.journal import Journal, replacing
from limner.bulk.media import content_of
from limner.bulk.outputs import Output
from limner.data.base import Source
from limner.data.rows import Row
from limner.errors import Reject, UserError

_log = logging.getLogger("limner.bulk")


class Shards(Output):
    """captions-000000.tar, captions-000001.tar, ... for captions.tar.

    Shard number k holds rows k * size to (k + 1) * size - 1 of the journal, and appears when it is whole; the
    last one appears when the job is done, and is written anew when there are more rows later.
    """

    def __init__(self, out: Path, *, source: Source, size: int):
        """Prepare to copy images from the source into shards of `size` samples."""
        super().__init__(out)
        self._source, self._size = source, size
        self._rows = 0
        """Rows that were seen."""
        self._held: list[Row] = []
        """Rows of the shard that is being filled."""
        self._whole = self._whole_shards()
        self._places: dict[str, int] | None = None

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.out.with_name(f"{self.out.stem}-{number:06d}.tar")

    def seen(self, row: Row) -> None:
        """Write shards that an earlier job did not come to."""
        self._rows += 1
        if self._rows > self._whole * self._size:
            self._held.append(row)
            self._write_if_full()

    def add(self, rows: Sequence[Row]) -> None:
        """Write shards that are full."""
        for row in rows:
            self.seen(row)

    def finish(self, journal: Journal) -> None:
        """Write the last shard."""
        if self._held:
            self._write()

    def _write_if_full(self) -> None:
        if len(self._held) == self._size:
            self._write()
            self._held = []

    def exists(self) -> bool:
        """Whether there are shards."""
        return bool(self._numbers())

    def _numbers(self) -> list[int]:
        name = re.compile(re.escape(self.out.stem) + r"-(\d{6})\.tar")
        files = self.out.parent.iterdir() if self.out.parent.is_dir() else ()
        return sorted(int(match[1]) for path in files if (match := name.fullmatch(path.name)))

    def _whole_shards(self) -> int:
        """How many shards there are that no row is missing in; they were written in order."""
        numbers = self._numbers()
        if not numbers:
            return 0
        if len(numbers) > 1 and self._samples(numbers[0]) != self._size:
            raise UserError(f"{self.path(numbers[0])}: was written with another --shard; take that again")
        return numbers[-1] + (self._samples(numbers[-1]) == self._size)

    def _samples(self, number: int) -> int:
        try:
            with tarfile.open(self.path(number)) as tar:
                return sum(member.name.endswith(".json") for member in tar)
        except tarfile.TarError as error:
            raise UserError(f"{self.path(number)}: is no shard ({error}); move it away") from error

    def _write(self) -> None:
        number = (self._rows - 1) // self._size
        with (
            replacing(self.path(number)) as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for place, row in enumerate(self._held):
                self._add(tar, f"{number * self._size + place:09d}", row)

    def _add(self, tar: tarfile.TarFile, key: str, row: Row) -> None:
        try:
            suffix, content = content_of(self._source, self._place(str(row["id"])))
            _put(tar, key + (suffix or ".jpg"), content)
        except (Reject, KeyError) as error:  # its file went away after it was captioned
            _log.warning("%s: %s is without its image: %s", self.out.name, row["id"], error)
        _put(tar, f"{key}.txt", str(row["caption"]).encode())
        _put(tar, f"{key}.json", json.dumps(dict(row), ensure_ascii=True).encode())

    def _place(self, id: str) -> int:
        if self._places is None:
            self._places = {id: index for index, id in enumerate(self._source.ids())}
        return self._places[id]


def _put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """The same bytes whenever and by whomever it is written."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    data: BinaryIO = io.BytesIO(content)
    tar.addfile(info, data)
