"""Rows of JSONL and parquet files at any place, of which only ids and places are kept."""

from __future__ import annotations

import bisect
import json
import threading
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from limner.data.annotations import Wrong
from limner.errors import Reject, UserError

BATCH = 8
"""Rows of a parquet file that are decoded together."""
KEPT = 4
"""Batches that are held, so that threads that read ahead a little out of order decode nothing twice."""


class Rows(ABC):
    """Numbered rows with ids. Reading is safe from several threads."""

    def __init__(self) -> None:
        """Without rows; a subclass adds them."""
        self._ids: dict[str, str] = {}
        self.refused: dict[int, str] = {}
        """Why a row cannot be used, where its id tells."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids in order; a row that cannot have one is named by its place, as in "rows.jsonl:17"."""
        return tuple(self._ids)

    @abstractmethod
    def place(self, index: int) -> str:
        """Where a row stands, for people."""

    @abstractmethod
    def row(self, index: int) -> Mapping[str, object]:
        """A row.

        Raises:
            Reject: it cannot be read.
        """

    def _add(self, id: object, place: str, name: str, problem: str = "") -> None:
        """One more row: its id, or why it cannot have one."""
        if (
            not problem
            and id is not None
            and (isinstance(id, bool) or not isinstance(id, str | int) or id == "")
        ):
            problem = "`id` is neither a text nor a whole number"
        if not problem and id is not None and str(id) in self._ids:
            problem = f"the id {str(id)!r} is that of {self._ids[str(id)]}"
        if problem:
            self.refused[len(self._ids)] = problem
        text = name if problem or id is None else str(id)
        while text in self._ids:
            text += "'"
        self._ids[text] = place


class JsonlRows(Rows):
    """Rows of a JSONL file."""

    def __init__(self, path: Path):
        """Read through the file once.

        Raises:
            UserError: it cannot be read, or holds no row.
        """
        super().__init__()
        self._path = path
        self._lines, self._offsets = array("q"), array("q")
        try:
            with path.open("rb") as file:
                offset = 0
                for number, line in enumerate(file, 1):
                    if line.strip():
                        self._lines.append(number)
                        self._offsets.append(offset)
                        self._name(line, number)
                    offset += len(line)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        if not self._ids:
            raise UserError(f"{path}: no row in this file")

    def _name(self, line: bytes, number: int) -> None:
        place, name = f"line {number}", f"{self._path.name}:{number}"
        try:
            self._add(_object(line).get("id"), place, name)
        except Reject as reject:
            self._add(None, place, name, reject.reason)

    def place(self, index: int) -> str:
        """File and line."""
        return f"{self._path.name}: line {self._lines[index]}"

    def row(self, index: int) -> Mapping[str, object]:
        """One line."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offsets[index])
                return _object(file.readline())
        except OSError as error:
            raise Reject(f"cannot be read: {error.strerror}") from None


class ParquetRows(Rows):
    """Rows of parquet files, decoded a few at a time.

    Rows in order cost no more than reading the files once. A row out of order costs decoding its row group
    up to there, so files to shuffle are best written with small row groups, as `limner data convert` does.
    """

    def __init__(self, paths: Sequence[Path]):
        """Read the ids of all files.

        Raises:
            UserError: a file cannot be read, or pyarrow is not installed.
        """
        super().__init__()
        self._parquet = parquet()
        self._paths = paths
        self._groups: list[tuple[int, int]] = []
        """(file, row group) of every group."""
        self._starts: list[int] = []
        """Number of the first row of every group."""
        self._file_starts: list[int] = []
        self._lock = threading.Lock()
        self._open: tuple[int, Any] | None = None
        self._cursor: tuple[int, int, Iterator[Any]] | None = None
        """Row group, its next row, and the batches from there on."""
        self._held: dict[int, Any] = {}
        """Batches by the number of their first row, the newest last."""
        for number in range(len(paths)):
            self._add_file(number)
        if not self._ids:
            raise UserError(f"{paths[0]}: no row in this file")

    def _add_file(self, number: int) -> None:
        path, start = self._paths[number], len(self._ids)
        self._file_starts.append(start)
        try:
            with self._parquet.ParquetFile(path, memory_map=True) as file:
                for group in range(file.metadata.num_row_groups):
                    self._groups.append((number, group))
                    self._starts.append(len(self._ids))
                    rows = file.metadata.row_group(group).num_rows
                    named = "id" in file.schema_arrow.names
                    ids = (
                        file.read_row_group(group, columns=["id"])["id"].to_pylist()
                        if named
                        else [None] * rows
                    )
                    for id in ids:
                        row = len(self._ids) - start + 1
                        self._add(id, f"{path.name}: row {row}", f"{path.name}:{row}")
        except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own errors are among these
            raise UserError(f"{path}: cannot be read as parquet ({_line(error)})") from error

    def place(self, index: int) -> str:
        """File and row, from 1."""
        file = bisect.bisect_right(self._file_starts, index) - 1
        return f"{self._paths[file].name}: row {index - self._file_starts[file] + 1}"

    def row(self, index: int) -> Mapping[str, object]:
        """One row."""
        with self._lock:
            try:
                return self._find(index)
            except (OSError, ValueError, NotImplementedError) as error:
                self._open = self._cursor = None
                raise Reject(f"cannot be read: {_line(error)}") from None

    def _find(self, index: int) -> Mapping[str, object]:
        for start, batch in self._held.items():
            if start <= index < start + batch.num_rows:
                return _row_of(batch, index - start)
        group = bisect.bisect_right(self._starts, index) - 1
        if self._cursor is None or self._cursor[0] != group or self._cursor[1] > index:
            self._cursor = (group, self._starts[group], self._batches(*self._groups[group]))
        _, at, batches = self._cursor
        while True:
            batch = next(batches)
            start, at = at, at + batch.num_rows
            self._cursor = (group, at, batches)
            if at > index:
                self._held[start] = batch
                if len(self._held) > KEPT:
                    self._held.pop(next(iter(self._held)))
                return _row_of(batch, index - start)

    def _batches(self, number: int, group: int) -> Iterator[Any]:
        if self._open is None or self._open[0] != number:
            if self._open is not None:
                self._open[1].close()
            self._open = (number, self._parquet.ParquetFile(self._paths[number], memory_map=True))
        return self._open[1].iter_batches(batch_size=BATCH, row_groups=[group], use_threads=False)


def rows(path: Path) -> Rows:
    """The rows of a file, or of all parquet files in a folder and below it, by name.

    Raises:
        UserError: there is nothing to read.
    """
    if path.is_dir():
        found = sorted(path.rglob("*.parquet"))
        if not found:
            raise UserError(f"{path}: no .parquet file in this folder; a JSONL file is named itself")
        return ParquetRows(found)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    return ParquetRows([path]) if path.suffix == ".parquet" else JsonlRows(path)


def parquet() -> Any:
    """pyarrow.parquet.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise UserError("parquet files need pyarrow: pip install 'limner[parquet]'") from error


def _row_of(batch: Any, place: int) -> Mapping[str, object]:
    return batch.slice(place, 1).to_pylist()[0]


def _object(line: bytes) -> Mapping[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Wrong("shape", f"no valid JSON ({_line(error)})") from None
    if not isinstance(row, dict):
        raise Wrong("shape", "no JSON object")
    return row


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
