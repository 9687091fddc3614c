"""A file of lines that another process writes: what was added is read, once."""

from __future__ import annotations

import os
from pathlib import Path

CHUNK = 1_000_000
"""About how many bytes are read at a time."""
MARK = 128
"""Bytes before the place that was reached by which a file that was written anew is told."""


class Tail:
    """Reads whole lines that were added to a file since the last look.

    A last line without its end is left for later. A file that was replaced, cut or written anew, as that of a
    run that is resumed, is read from its start again. One that did not change is not opened.
    """

    def __init__(self, path: Path):
        """Nothing is read yet; the file need not be there."""
        self.path = path
        self.bytes_read = 0
        """Of the file, since this began."""
        self.more = False
        """Whether the last look left lines for another."""
        self.forget()

    def forget(self) -> None:
        """Begin at the file's start again."""
        self._file: tuple[int, int] | None = None
        self._seen: tuple[int, int] | None = None
        self._offset, self._mark = 0, b""

    def look(self) -> tuple[bool, list[bytes]]:
        """Lines that were added.

        Returns:
            Whether what was read before does not hold any more, and the new lines, with their ends. There
            may be more of them: `more`.
        """
        self.more = False
        try:
            found = os.stat(self.path)
            if (found.st_dev, found.st_ino) == self._file and _state(found) == self._seen:
                return False, []
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                renewed = self._offset > 0 and not self._same(file, found)
                if renewed:
                    self._offset, self._mark = 0, b""
                file.seek(self._offset)
                lines = file.readlines(CHUNK)
        except OSError:  # gone, or not to be read now
            renewed = self._offset > 0
            self.forget()
            return renewed, []
        self.bytes_read += sum(map(len, lines))
        whole = [line for line in lines if line.endswith(b"\n")]
        self._offset += sum(map(len, whole))
        self._mark = (self._mark + b"".join(whole[-MARK:]))[-MARK:]
        self._file = found.st_dev, found.st_ino
        self.more = bool(whole) and self._offset < found.st_size and len(whole) == len(lines)
        self._seen = None if self.more else _state(found)
        return renewed, whole

    def _same(self, file, found: os.stat_result) -> bool:
        """Whether the file is the one that was read, up to the place that was reached."""
        if (found.st_dev, found.st_ino) != self._file or found.st_size < self._offset:
            return False
        file.seek(self._offset - len(self._mark))
        self.bytes_read += len(self._mark)
        return file.read(len(self._mark)) == self._mark


def _state(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns
