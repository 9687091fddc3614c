"""Images and videos that the rows of a table name or hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from limner.bulk import remote
from limner.bulk.media import Found, MediaSource, suffix_of
from limner.bulk.tables import Table, table
from limner.errors import Reject, UserError

_COLUMNS = ("image", "video", "file_name", "image_path", "path", "filename", "jpg", "img")
"""Where images are looked for, the first that there is."""


@dataclass(frozen=True)
class Source(MediaSource):
    """Rows of a JSONL, CSV, TSV or parquet file, or of a `datasets` folder; all columns can be in prompts.

    The image is a path, or what parquet files and `datasets` hold: bytes, or {"bytes", "path"}. A row
    without an id is named by its path, or by its number, as in "rows.parquet:17".
    """

    path: str
    """The file, its address, a pattern of parquet files, or a folder of `save_to_disk`."""
    image: str | None = None
    """Column with the image or video; the first of image, video, file_name, image_path, path, filename, jpg,
    img if None."""
    id: str = "id"
    """Column with the id, a string or an integer; may be missing."""
    root: str | None = None
    """Folder or address that paths start from; that of the file if None."""

    def ids(self) -> Sequence[str]:
        """The ids of the rows; a row that cannot have its own is named by its number, from 1.

        Raises:
            UserError: the table cannot be read, has no row, or no column with an image.
        """
        return self._index[0]

    def found(self, index: int) -> Found:
        """A row's image or video, with its other columns.

        Raises:
            Reject: it has none, or its id is another row's.
        """
        ids, refused = self._index
        if index in refused:
            raise Reject(refused[index])
        row = self.table.row(index)
        media = row.pop(self.column, None)
        name, place = self._place(media)
        known = {key: value for key, value in row.items() if not isinstance(value, bytes | dict)}
        if isinstance(media, str):
            known[self.column] = media
        return Found(ids[index], name, place, known)

    @cached_property
    def table(self) -> Table:
        """The rows."""
        return table(self.path)

    @cached_property
    def column(self) -> str:
        """The column with the image.

        Raises:
            UserError: there is none.
        """
        known = list(self.table.columns)
        if self.image is not None:
            if self.image not in known:
                raise UserError(f"{self.path}: has no column {self.image!r}; it has {', '.join(known)}")
            return self.image
        for name in _COLUMNS:
            if name in known:
                return name
        raise UserError(
            f"{self.path}: which column has the image? --image NAME; it has {', '.join(known) or 'none'}"
        )

    def _place(self, value: Any) -> tuple[str, Path | str | bytes]:
        """(name, where it is) of what stands in the column."""
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            name = value.get("path")
            value = value["bytes"]
            if isinstance(name, str) and os.path.splitext(name)[1]:
                return name, value
        elif isinstance(value, dict):
            value = value.get("path")
        if isinstance(value, bytes):
            return "content" + suffix_of(value), value
        if not isinstance(value, str) or not value:
            raise Reject(f"no image in the column {self.column!r}")
        if remote.is_address(value):
            raise Reject(f"{value} is an address: rows may name files only, relative to where the table is")
        if remote.is_address(self._root):
            return value, f"{self._root.rstrip('/')}/{value}"
        return value, Path(self._root) / value

    @cached_property
    def _root(self) -> str:
        if self.root is not None:
            return self.root if remote.is_address(self.root) else os.path.expanduser(self.root)
        if remote.is_address(self.path):
            return self.path.rpartition("/")[0]
        return str(Path(self.path).expanduser().parent)

    @cached_property
    def _index(self) -> tuple[list[str], Mapping[int, str]]:
        """(ids, why rows cannot be used as far as that shows here)."""
        name = PurePosixPath(self.path).name
        ids: dict[str, int] = {}
        refused: dict[int, str] = {}
        column = self.column if len(self.table) else ""
        wanted = [self.id, *([column] if self._named_by_path(column) else [])]
        for number, row in enumerate(self.table.cells(wanted)):
            id = None
            if isinstance(row, Reject):
                refused[number] = row.reason
            else:
                id = self._own(row, column, refused, number)
            if id is not None and id in ids:
                refused[number] = f"the id {id!r} is that of row {ids[id] + 1}"
                id = None
            while id is None or id in ids:
                id = f"{name}:{number + 1}" if id is None else id + "'"
            ids[id] = number
        if not ids:
            raise UserError(f"{self.path}: no row in it")
        return list(ids), refused

    def _own(self, row: Mapping[str, Any], column: str, refused: dict[int, str], number: int) -> str | None:
        value = row.get(self.id)
        if value is None:
            value = row.get(column)
            return value if isinstance(value, str) and value else None
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            refused[number] = f"the column {self.id!r} is neither a string nor an integer"
            return None
        return str(value)

    def _named_by_path(self, column: str) -> bool:
        """Whether the column is worth reading for names: not where it holds the images themselves."""
        try:
            return isinstance(self.table.row(0).get(column), str | None)
        except Reject:
            return True
