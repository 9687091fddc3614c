"""What a job has written: JSONL rows that only grow. All other outputs are made from it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from limner.data.rows import Row, line_of
from limner.errors import UserError


class Journal:
    """The rows {"id", "caption", ...} of a job, one process at a time.

    A batch of rows is appended at once. A process that is killed meanwhile leaves a beginning of it, maybe
    with a torn last line, which the next one drops: whole rows stay, and no row is written twice.
    """

    def __init__(self, path: Path, *, each: Callable[[Row], None] | None = None):
        """Take up the file, and make its folder; nobody else can until it is closed.

        Args:
            path: the file.
            each: is told of every row that is there.

        Raises:
            UserError: another process writes the file, it holds something else (and is left as it is), or
                it cannot be written.
        """
        self.path = path
        self.done: set[str] = set()
        """Ids that have a row."""
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            with self._explained():
                self._lock()
                self._recover(each)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows; neither a kill nor a power failure can lose what this has returned from.

        Raises:
            UserError: the disk is full or gone; none of the rows is in the file then.
        """
        rows = list(rows)
        left = memoryview("".join(map(line_of, rows)).encode())
        if not left:
            return
        size = os.fstat(self._file).st_size
        with self._explained():
            try:
                while left:
                    left = left[os.write(self._file, left) :]
                os.fsync(self._file)
            except OSError:
                with contextlib.suppress(OSError):  # if this fails too, the next job drops the torn line
                    os.ftruncate(self._file, size)
                raise
        self.done.update(str(row["id"]) for row in rows)

    def rows(self) -> Iterator[Row]:
        """All rows, in the order in which they were written; only one at a time is held."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield self._parse(line, number)

    def close(self) -> None:
        """Let others have the file."""
        os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self.path}: another process is writing it; wait for it, end it, or choose another output"
            ) from None

    def _recover(self, each: Callable[[Row], None] | None) -> None:
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    self._refuse_foreign_end(line, number)
                    break
                row = self._parse(line, number)
                whole += len(line)
                self.done.add(str(row["id"]))
                if each is not None:
                    each(row)
            size = file.seek(0, os.SEEK_END)
        if whole < size:
            os.ftruncate(self._file, whole)

    def _parse(self, line: bytes, number: int) -> Row:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("id", "caption")):
            raise self._foreign(number)
        return row

    def _refuse_foreign_end(self, torn: bytes, number: int) -> None:
        """What is no beginning of a row is not dropped."""
        start = b'{"id"'
        if not (torn.startswith(start) or start.startswith(torn)):
            raise self._foreign(number)

    def _foreign(self, number: int) -> UserError:
        return UserError(
            f"{self.path}: line {number} is no row with id and caption; "
            "the file was left as it is: choose another name, or move it away"
        )

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return writing(self.path)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A disk that is full, gone or read-only is the user's to mend.

    Raises:
        UserError: with the file in it.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({(error.strerror or str(error))})") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when it is whole; a kill leaves what was there.

    Raises:
        UserError: it cannot be written.
    """
    hidden = path.with_name(f".{path.name}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with hidden.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                hidden.unlink()
            raise
