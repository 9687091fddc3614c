"""Where captions go: JSONL, which is the journal itself, and what is made from it."""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from pathlib import Path

from limner.bulk.journal import Journal, replacing
from limner.bulk.remote import is_address
from limner.data.rows import Row
from limner.errors import UserError

JOURNAL = ".journal.jsonl"
"""How the name of the journal ends that stands beside an output which is no JSONL file itself."""
_TOGETHER = 10_000
"""Rows written to a parquet file at a time."""


class Output(abc.ABC):
    """A file or files made from a journal. Everything in them can be made again from it, whole or in part."""

    def __init__(self, out: Path):
        """Remember where."""
        self.out = out

    @property
    def journal(self) -> Path:
        """The file of the journal."""
        return self.out.with_name(self.out.name + JOURNAL)

    def exists(self) -> bool:
        """Whether something is there."""
        return self.out.exists()

    def check(self) -> None:
        """Refuse what cannot be written before anything is captioned.

        Raises:
            UserError: it cannot be written so, or would replace what no job wrote.
        """
        if self.exists() and not self.journal.exists():
            raise UserError(
                f"{self.out}: is there, and its journal {self.journal.name} is not; choose another name, "
                "or move it away"
            )

    def seen(self, row: Row) -> None:  # noqa: B027 (many outputs need not know)
        """A row that an earlier job left in the journal."""

    def add(self, rows: Sequence[Row]) -> None:  # noqa: B027
        """Rows that are in the journal now."""

    @abc.abstractmethod
    def finish(self, journal: Journal) -> None:
        """Write what is missing; the journal will not grow any more."""


class Jsonl(Output):
    """The journal is the output."""

    @property
    def journal(self) -> Path:
        """The output."""
        return self.out

    def check(self) -> None:
        """What is there is taken up, or refused when it is read."""

    def finish(self, journal: Journal) -> None:
        """Nothing is missing."""


class Parquet(Output):
    """One parquet file, written whole when the job is done."""

    def check(self) -> None:
        """The package pyarrow is needed."""
        super().check()
        parquet(self.out)

    def finish(self, journal: Journal) -> None:
        """Write all rows; a file that an earlier job wrote is replaced."""
        arrow, pq = parquet(self.out)
        names = dict.fromkeys(name for row in journal.rows() for name in row)
        types = {name: _type(arrow, name, journal) for name in names or ("id", "caption")}
        schema = arrow.schema(list(types.items()))
        with replacing(self.out) as file, pq.ParquetWriter(file, schema) as writer:
            held: list[Row] = []
            for row in journal.rows():
                held.append(row)
                if len(held) == _TOGETHER:
                    writer.write_table(arrow.Table.from_pylist(held, schema))
                    held = []
            writer.write_table(arrow.Table.from_pylist(held, schema))


def parquet(path: Path):
    """The packages pyarrow and pyarrow.parquet.

    Raises:
        UserError: they are missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"{path}: parquet files need the package pyarrow: pip install 'limner[parquet]'"
        ) from error
    return pyarrow, pyarrow.parquet


def _type(arrow, name: str, journal: Journal):
    """Of a column, by its first value."""
    value = next((row[name] for row in journal.rows() if row.get(name) is not None), "")
    if isinstance(value, bool):
        return arrow.bool_()
    if isinstance(value, int | float):
        return arrow.float64()
    return arrow.list_(arrow.string()) if isinstance(value, list) else arrow.string()


def relative(place: str, folder: str) -> str:
    """A path as a program reads it from a folder; an address as it is."""
    return place if is_address(place) else Path(os.path.relpath(place, folder)).as_posix()
