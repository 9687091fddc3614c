"""Rows of files, read one at a time: JSONL and CSV by the places of lines, parquet by row groups."""

from __future__ import annotations

import bisect
import contextlib
import csv
import glob
import io
import json
import os
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from limner.bulk import remote
from limner.errors import Reject, UserError

csv.field_size_limit(2**27)
LOOKED = 100
"""Rows of a JSONL file that are looked at for the names of columns."""


class Table(Protocol):
    """Rows with named columns."""

    columns: Sequence[str]
    """Their names; of JSONL those of the first rows."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def cells(self, columns: Sequence[str]) -> Iterator[dict[str, Any] | Reject]:
        """The given columns of all rows, in order; a column that there is none of is left out."""
        ...

    def row(self, number: int) -> dict[str, Any]:
        """All columns of a row.

        Raises:
            Reject: it cannot be read.
        """
        ...


def table(path: str) -> Table:
    """The table of a .jsonl, .csv, .tsv or .parquet file, of a pattern of parquet files, or of a data set.

    Raises:
        UserError: it cannot be read, or the package that reads it is missing.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".parquet":
        return Parquet(path)
    if is_data_set(path):
        return DataSet(path)
    return Lines(path, {".csv": ",", ".tsv": "\t"}.get(suffix))


def is_data_set(path: str) -> bool:
    """Whether it is a folder that `datasets` wrote with `save_to_disk`."""
    return all(os.path.isfile(os.path.join(path, name)) for name in ("state.json", "dataset_info.json"))


class Lines:
    """A JSONL file, or a CSV file with names in its first row. Only the places of the rows are held."""

    def __init__(self, path: str, separator: str | None):
        """Find the rows.

        Args:
            path: the file or its address.
            separator: of the columns; None reads JSONL.

        Raises:
            UserError: it cannot be read.
        """
        self._path, self._separator = path, separator
        self._places, self._numbers = array("q"), array("q")
        self.columns: Sequence[str] = ()
        first: dict[str, Any] = {}
        with remote.opened(path) as file:
            for place, number, record in self._records(file):
                if separator is not None and not self.columns:
                    self.columns = self._cut(record)
                elif record.strip():
                    self._places.append(place)
                    self._numbers.append(number)
                    if separator is None and len(self._places) <= LOOKED:
                        with contextlib.suppress(Reject):
                            first |= self._row(record, number)
        self.columns = self.columns or list(first)
        if separator is not None and len(set(self.columns)) < max(1, len(self.columns)):
            raise UserError(f"{path}: its first row has to name the columns, each another name")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._places)

    def cells(self, columns: Sequence[str]) -> Iterator[dict[str, Any] | Reject]:
        """The given columns of all rows."""
        with remote.opened(self._path) as file:
            records = ((number, record) for _, number, record in self._records(file) if record.strip())
            for place, (number, record) in enumerate(records):
                if place == 0 and self._separator is not None:
                    continue
                try:
                    row = self._row(record, number)
                    yield {name: row[name] for name in columns if name in row}
                except Reject as reject:
                    yield reject

    def row(self, number: int) -> dict[str, Any]:
        """All columns of a row."""
        try:
            with remote.opened(self._path) as file:
                file.seek(self._places[number])
                _, _, record = next(self._records(file))
        except (UserError, OSError, StopIteration) as error:
            raise Reject(f"line {self._numbers[number]}: {self._path} cannot be read: {error}") from None
        return self._row(record, self._numbers[number])

    def _records(self, file: Any) -> Iterator[tuple[int, int, bytes]]:
        """(place in bytes, line, content) of every row; one of a CSV file goes on where quotes are open."""
        place = file.tell()
        start, first, record = place, 1, b""
        for number, line in enumerate(file, 1):
            place += len(line)
            record += line
            if self._separator is not None and record.count(b'"') % 2:
                continue
            yield start, first, record
            start, first, record = place, number + 1, b""
        if record:
            yield start, first, record

    def _cut(self, record: bytes) -> list[str]:
        text = record.decode("utf-8-sig", "replace")
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=self._separator or ","), [])

    def _row(self, record: bytes, number: int) -> dict[str, Any]:
        if self._separator is not None:
            cells = self._cut(record)
            if len(cells) != len(self.columns):
                raise Reject(f"line {number}: {len(cells)} columns where there should be {len(self.columns)}")
            return dict(zip(self.columns, cells, strict=True))
        try:
            row = json.loads(record)
        except (ValueError, RecursionError) as error:
            raise Reject(f"line {number}: no valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise Reject(f"line {number}: no JSON object")
        return row


class Parquet:
    """One or many parquet files; two row groups are held at a time."""

    def __init__(self, path: str):
        """Read the files' ends.

        Raises:
            UserError: no such file, no parquet, or pyarrow is missing.
        """
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise UserError(
                f"{path}: parquet files need the package pyarrow: pip install 'limner[parquet]'"
            ) from error
        self._files: list[Any] = []
        self._groups: list[tuple[int, int]] = []
        self._ends: list[int] = []
        end = 0
        for name in _matching(path):
            try:
                source: Any = name
                if remote.is_address(name):
                    system, place = remote.file_system(name)
                    source = system.open(place)
                file = parquet.ParquetFile(source)
            except Exception as error:
                raise UserError(f"{name}: is no parquet file that can be read ({error})") from error
            for group in range(file.num_row_groups):
                end += file.metadata.row_group(group).num_rows
                self._groups.append((len(self._files), group))
                self._ends.append(end)
            self._files.append(file)
        self.columns: Sequence[str] = list(self._files[0].schema_arrow.names)
        self._held: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of rows."""
        return self._ends[-1] if self._ends else 0

    def cells(self, columns: Sequence[str]) -> Iterator[dict[str, Any] | Reject]:
        """The given columns of all rows."""
        for file in self._files:
            names = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=names):
                yield from batch.to_pylist() if names else [{}] * batch.num_rows

    def row(self, number: int) -> dict[str, Any]:
        """All columns of a row."""
        group = bisect.bisect_right(self._ends, number)
        before = self._ends[group - 1] if group else 0
        try:
            return self._group(group).slice(number - before, 1).to_pylist()[0]
        except (OSError, ValueError) as error:
            raise Reject(f"row {number}: cannot be read ({error})") from None

    @property
    def alike(self) -> bool:
        """Whether all files have the same columns."""
        first = self._files[0].schema_arrow
        return all(file.schema_arrow.equals(first) for file in self._files)

    def kinds(self, column: str) -> set[str]:
        """The types of a column, one for all files unless they differ; none where there is no such column."""
        schemas = [file.schema_arrow for file in self._files]
        return {str(schema.field(column).type) for schema in schemas if column in schema.names}

    def groups(self) -> Iterator[Any]:
        """The row groups, as Arrow's tables."""
        for file, inside in self._groups:
            yield self._files[file].read_row_group(inside)

    def _group(self, group: int) -> Any:
        with self._lock:
            if group not in self._held:
                file, inside = self._groups[group]
                self._held[group] = self._files[file].read_row_group(inside)
                if len(self._held) > 2:
                    self._held.popitem(last=False)
            return self._held[group]


class DataSet:
    """A data set of Hugging Face `datasets` on disk; its images stay undecoded."""

    def __init__(self, path: str):
        """Map the files into memory.

        Raises:
            UserError: they cannot be read, or `datasets` is missing.
        """
        try:
            import datasets
        except ImportError as error:
            raise UserError(
                f"{path}: such folders need the package datasets: pip install 'limner[datasets]'"
            ) from error
        try:
            self.stored: Any = datasets.load_from_disk(path)
        except Exception as error:
            raise UserError(f"{path}: `datasets` cannot read it ({error})") from error
        if not hasattr(self.stored, "column_names") or isinstance(self.stored.column_names, dict):
            raise UserError(f"{path}: holds several splits; name the folder of one of them")
        self.data = self.stored
        """The rows, with undecoded images."""
        for name, feature in self.stored.features.items():
            if isinstance(feature, datasets.Image):
                self.data = self.data.cast_column(name, datasets.Image(decode=False))
        self.columns: Sequence[str] = list(self.data.column_names)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.data)

    def cells(self, columns: Sequence[str]) -> Iterator[dict[str, Any] | Reject]:
        """The given columns of all rows."""
        names = [name for name in columns if name in self.columns]
        if names:
            yield from self.data.select_columns(names)
        else:
            yield from ({} for _ in range(len(self)))

    def row(self, number: int) -> dict[str, Any]:
        """All columns of a row."""
        return self.data[number]

    def kinds(self, column: str) -> set[str]:
        """The type of a column; none where there is no such column."""
        schema = self.stored.data.schema
        return {str(schema.field(column).type)} if column in schema.names else set()


def _matching(path: str) -> list[str]:
    if remote.is_address(path):
        if "*" not in path:
            return [path]
        system, place = remote.file_system(path)
        found = [system.unstrip_protocol(name) for name in sorted(system.glob(place))]
    else:
        found = (
            [path] if Path(path).is_file() else sorted(glob.glob(os.path.expanduser(path), recursive=True))
        )
    if not found:
        raise UserError(f"{path}: no such file")
    return found
