"""A new column beside the input: the table again, row by row, with a caption in each."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limner.bulk import rows, tables
from limner.bulk.journal import Journal, replacing, writing
from limner.bulk.outputs import Output, parquet
from limner.data.base import Source
from limner.data.rows import line_of
from limner.errors import Reject, UserError

_FORMS = {tables.Lines: (".jsonl", ".csv", ".tsv"), tables.Parquet: (".parquet",), tables.DataSet: ("",)}
"""How the names of outputs end, by the kind of input."""
_TEXTS = {"string", "large_string", "string_view", "null"}
"""Types of columns that hold text."""


class Column(Output):
    """The input with one column more, written whole when the job is done.

    Rows without a caption (rejected ones) have none: null, or nothing in CSV. Where the column is there
    already, what stands in it is kept, unless it is written over.
    """

    def __init__(self, out: Path, *, source: Source, column: str, overwrite: bool):
        """Prepare to write the source's table with the column.

        Raises:
            UserError: the source is no table, or would be replaced by the output.
        """
        super().__init__(out)
        if not isinstance(source, rows.Source):
            raise UserError(f"{source}: is no table, so it has no columns; leave --column out")
        self._source, self._column, self._overwrite = source, column, overwrite
        self._form = out.suffix.lower()
        forms = next(forms for kind, forms in _FORMS.items() if isinstance(source.table, kind))
        if self._form not in forms:
            wanted = " or ".join(forms).strip() or "a folder, without an ending"
            raise UserError(f"{out}: {source.path} with a column more is written as {wanted}")
        if os.path.realpath(out) == os.path.realpath(source.path):
            raise UserError(f"{out}: is the input itself; write the new table beside it")

    def check(self) -> None:
        """Parquet needs pyarrow; a column that is there and typed has to be one of text.

        Raises:
            UserError: it is not.
        """
        super().check()
        if self._form == ".parquet":
            parquet(self.out)
        table = self._source.table
        if isinstance(table, tables.Parquet | tables.DataSet):
            other = table.kinds(self._column) - _TEXTS
            if other:
                raise UserError(
                    f"{self._source.path}: column {self._column!r} is of {other.pop()}, not of text; "
                    "give --column another name"
                )
        if isinstance(table, tables.Parquet) and not table.alike:
            raise UserError(f"{self._source.path}: the files have different columns; name one at a time")

    def there(self) -> set[str]:
        """Ids of the rows that have a caption already; none where they are written over."""
        if self._overwrite:
            return set()
        cells = zip(self._source.ids(), self._source.table.cells([self._column]), strict=True)
        return {id for id, row in cells if isinstance(row, dict) and row.get(self._column)}

    def finish(self, journal: Journal) -> None:
        """Write the table; one that an earlier job wrote is replaced."""
        captions = {str(row["id"]): str(row["caption"]) for row in journal.rows()}
        if self._form == ".parquet":
            self._write_parquet(captions)
        elif self._form == ".jsonl":
            self._write_lines(captions)
        elif self._form:
            self._write_csv(captions)
        else:
            self._write_data_set(captions)

    def _row(self, index: int, captions: Mapping[str, str]) -> dict[str, Any] | None:
        """A row of the input with its caption; None where it is no row."""
        try:
            row = dict(self._source.table.row(index))
        except Reject:
            return None
        return {**row, self._column: self._caption(index, row.get(self._column), captions)}

    def _caption(self, index: int, old: object, captions: Mapping[str, str]) -> object:
        new = captions.get(self._source.ids()[index])
        return old if new is None or (old and not self._overwrite) else new

    def _write_lines(self, captions: Mapping[str, str]) -> None:
        with replacing(self.out) as file:
            for index in range(len(self._source.table)):
                row = self._row(index, captions)
                if row is not None:
                    file.write(line_of(row).encode())

    def _write_csv(self, captions: Mapping[str, str]) -> None:
        names = list(dict.fromkeys([*self._source.table.columns, self._column]))
        with replacing(self.out) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            separator = "\t" if self._form == ".tsv" else ","
            writer = csv.DictWriter(text, names, delimiter=separator, extrasaction="ignore")
            writer.writeheader()
            for index in range(len(self._source.table)):
                row = self._row(index, captions)
                if row is not None:
                    writer.writerow(row)
            text.detach()

    def _write_parquet(self, captions: Mapping[str, str]) -> None:
        """Groups of rows as they are, with their types and metadata."""
        arrow, pq = parquet(self.out)
        assert isinstance(self._source.table, tables.Parquet)
        index = 0
        writer = None
        with replacing(self.out) as file:
            for group in self._source.table.groups():
                olds = (
                    group[self._column].to_pylist() if self._column in group.column_names
                    else [None] * group.num_rows
                )  # fmt: skip
                values = [self._caption(index + place, old, captions) for place, old in enumerate(olds)]
                index += len(olds)
                column = arrow.array(values, arrow.string())
                if self._column in group.column_names:
                    place = group.column_names.index(self._column)
                    group = group.set_column(place, self._column, column)
                else:
                    group = group.append_column(self._column, column)
                writer = writer or pq.ParquetWriter(file, group.schema)
                writer.write_table(group)
            if writer is not None:
                writer.close()

    def _write_data_set(self, captions: Mapping[str, str]) -> None:
        data: Any = self._source.table
        values = [
            self._caption(index, old, captions)
            for index, old in enumerate(
                data.data[self._column] if self._column in data.columns else [None] * len(data)
            )
        ]
        kept = data.stored.remove_columns(self._column) if self._column in data.columns else data.stored
        hidden = self.out.with_name(f".{self.out.name}.partial")
        with writing(self.out):
            shutil.rmtree(hidden, ignore_errors=True)
            kept.add_column(self._column, values).save_to_disk(str(hidden))
            if self.out.exists():
                shutil.rmtree(self.out)
            hidden.replace(self.out)
