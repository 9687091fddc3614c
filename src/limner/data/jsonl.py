"""Rows of a JSONL file that name image files."""

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from limner.data import base
from limner.errors import Reject, UserError
from limner.types import Sample


class _Index(NamedTuple):
    ids: tuple[str, ...]
    lines: array
    """The number of each row's line in the file, from 1."""
    offsets: array
    """Where each row's line begins, in bytes."""
    refused: Mapping[int, str]
    """Why a row cannot be used, where the first look tells."""


@dataclass(frozen=True)
class Source(base.FileSource):
    """Images named by the rows of a JSONL file, with captions where the rows have them.

    A row is one JSON object a line: {"id": "17", "image": "photos/a.jpg", "captions": ["a dog", ...]}. A
    row without an id is named by its image. Blank lines are passed over. Rows are read when they are
    needed: only their ids and places are kept.
    """

    path: str
    """The JSONL file."""
    image: str = "image"
    """Column with the path of the image file."""
    captions: str = "captions"
    """Column with reference captions, a string or a list of strings; may be missing."""
    prompt: str = "prompt"
    """Column with what is asked about the image, kept as the sample's `extra["prompt"]`; may be missing."""
    id: str = "id"
    """Column with the id, a string or an integer; may be missing."""
    root: str | None = None
    """Folder that image paths start from; that of the JSONL file if None."""

    def ids(self) -> Sequence[str]:
        """The ids of the rows; a row that cannot have one is named by its line, as in "rows.jsonl:17".

        Raises:
            UserError: no such file, or no row in it.
        """
        return self._index.ids

    def read(self, index: int) -> Sample:
        """The image and captions of a row.

        Raises:
            Reject: the row is not as described above, or its image cannot be used; with the line's number.
        """
        with self._row(index) as row:
            prompt = row.get(self.prompt)
            if not isinstance(prompt, str | None):
                raise Reject(f"the column {self.prompt!r} is no string")
            sample = self.sample(self._index.ids[index], self._image(row), self._references(row))
            return sample if prompt is None else replace(sample, extra={**sample.extra, "prompt": prompt})

    def references(self, index: int) -> tuple[str, ...]:
        """The captions of a row; its image is not opened.

        Raises:
            Reject: the row is not as described above; with the line's number.
        """
        with self._row(index) as row:
            self._image(row)
            return self._references(row)

    @contextmanager
    def _row(self, index: int) -> Iterator[Mapping[str, object]]:
        """A row of the file; what is rejected inside has the line's number in front."""
        rows, line = self._index, self._index.lines[index]
        if index in rows.refused:
            raise Reject(f"line {line}: {rows.refused[index]}")
        try:
            with self._file.open("rb") as file:
                file.seek(rows.offsets[index])
                row = _parse(file.readline())
            yield row
        except OSError as error:
            raise Reject(f"line {line}: {self.path} cannot be read: {error.strerror}") from None
        except Reject as reject:
            raise Reject(f"line {line}: {reject.reason}") from None

    def _image(self, row: Mapping[str, object]) -> Path:
        name = row.get(self.image)
        if not isinstance(name, str) or not name:
            raise Reject(f"no image path in the column {self.image!r}")
        if "://" in name:
            raise Reject(f"{name} is an address on the network; only files are read")
        root = self._file.parent if self.root is None else Path(self.root).expanduser()
        return root / name

    def _references(self, row: Mapping[str, object]) -> tuple[str, ...]:
        captions = row.get(self.captions)
        if captions is None:
            return ()
        if isinstance(captions, str):
            return (captions,)
        if isinstance(captions, list) and all(isinstance(caption, str) for caption in captions):
            return tuple(captions)
        raise Reject(f"the column {self.captions!r} is neither a string nor a list of strings")

    def _id(self, row: Mapping[str, object]) -> str:
        id = row.get(self.id)
        if id is None:
            return str(row.get(self.image) or "")
        if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
            raise Reject(f"the column {self.id!r} is neither a string nor an integer")
        return str(id)

    @cached_property
    def _file(self) -> Path:
        return Path(self.path).expanduser()

    @cached_property
    def _index(self) -> _Index:
        ids: dict[str, int] = {}
        lines, offsets, refused = array("q"), array("q"), dict[int, str]()
        try:
            with self._file.open("rb") as file:
                offset = 0
                for number, line in enumerate(file, 1):
                    if line.strip():
                        id, problem = self._name(line, number, ids)
                        if problem is not None:
                            refused[len(ids)] = problem
                        ids[id] = number
                        lines.append(number)
                        offsets.append(offset)
                    offset += len(line)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from error
        if not ids:
            raise UserError(f"{self.path}: no row in this file")
        return _Index(tuple(ids), lines, offsets, refused)

    def _name(self, line: bytes, number: int, taken: Mapping[str, int]) -> tuple[str, str | None]:
        """The id of a row; with the problem, where it cannot be used."""
        problem = None
        try:
            id = self._id(_parse(line))
            if id and id not in taken:
                return id, None
            problem = f"the id {id!r} is that of line {taken[id]}" if id else "neither an id nor an image"
        except Reject as reject:
            problem = reject.reason
        id = f"{self._file.name}:{number}"
        while id in taken:
            id += "'"
        return id, problem


def _parse(line: bytes) -> Mapping[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Reject(f"no valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise Reject("no JSON object")
    return row
