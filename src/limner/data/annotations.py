"""Annotation files of published data sets, read strictly: what is wrong is said with file, row and key.

A row that cannot be used becomes an item that is rejected, named by its place ("info.json: sentences[5]"), so
that what comes in is what comes out plus what is rejected. Only a file that is none at all is a `UserError`.
"""

import contextlib
import csv
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Self, cast

from limner.errors import Reject, UserError

Kind = Literal[
    "shape", "encoding", "no references", "no questions", "mismatch", "missing", "not listed", "broken"
]  # fmt: skip
"""What can be wrong with an item: a row of another shape; text that is no UTF-8; nobody captioned it; not one
usable question; two rows disagree; listed and not there; there and not listed; there and not usable."""

_WORDS = {list: "a list", dict: "a mapping", str: "text"}
_SHOWN = 60


class Wrong(Reject):
    """An item that cannot be used for a reason of a known kind."""

    def __init__(self, kind: Kind, reason: str):
        """Keep both."""
        super().__init__(reason)
        self.kind: Kind = kind

    def __reduce__(self) -> tuple[type[Self], tuple[Kind, str]]:
        """Processes hand it to one another."""
        return type(self), (self.kind, self.reason)


class Row(NamedTuple):
    """A value in an annotation file, and where it stands."""

    value: object
    above: "Row | str"
    """What it stands in; of a whole file or line its name."""
    key: str | int = ""
    """Its key there, or its number in a list."""

    @property
    def place(self) -> str:
        """File and keys: "info.json: sentences[5].caption"."""
        if isinstance(self.above, str):
            return self.above
        above = self.above.place
        if isinstance(self.key, int):
            return f"{above}[{self.key}]" if isinstance(self.above.above, Row) else f"{above}: [{self.key}]"
        return f"{above}.{self.key}" if isinstance(self.above.above, Row) else f"{above}: {self.key}"

    def get(self, key: str, kind: type = object) -> "Row":
        """What stands under a key.

        Raises:
            Wrong: this is no mapping, it has no such key, or what stands there is not of this kind.
        """
        mapping = cast(Mapping[str, object], self.of(dict).value)
        below = Row(mapping.get(key), self, key)
        if key not in mapping:
            raise Wrong("shape", f"{below.place}: missing")
        return below.of(kind)

    def of(self, kind: type) -> "Row":
        """The same, which must be of this kind: list, dict, str or object.

        Raises:
            Wrong: it is not.
        """
        if not isinstance(self.value, kind):
            raise Wrong("shape", f"{self.place}: {shown(self.value)}: must be {_WORDS[kind]}")
        return self

    def rows(self) -> Iterator["Row"]:
        """What is in a list."""
        for number, value in enumerate(cast(list[object], self.of(list).value)):
            yield Row(value, self, number)

    def text(self) -> str:
        """Text with single blanks between its words and none around it.

        Raises:
            Wrong: it is no text, has nothing in it, or was no UTF-8.
        """
        return " ".join(readable(self).split())

    def name(self) -> str:
        """An id: text, or a whole number as text.

        Raises:
            Wrong: it is neither.
        """
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            return str(self.value)
        return readable(self)


def shown(value: object) -> str:
    """A value in a message: JSON, cut short."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def readable(row: Row) -> str:
    """The text without the blanks around it.

    Raises:
        Wrong: it is no text, there is nothing in it, or it came from bytes that are no UTF-8.
    """
    stripped = cast(str, row.of(str).value).strip()
    if not stripped:
        raise Wrong("shape", f"{row.place}: empty")
    try:
        stripped.encode()
    except UnicodeEncodeError:
        raise Wrong("encoding", f"{row.place}: not UTF-8: {shown(_spelled_out(stripped))}") from None
    return stripped


def _spelled_out(text: str) -> str:
    r"""Text with lone surrogates spelled out: as bytes (\xff) where they stand for bytes, else as \ud800."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # written as such in JSON: half of an emoji that was cut in two
        return text.encode("utf-8", "backslashreplace").decode()


def content(path: Path) -> str:
    """The text of a file; bytes that are no UTF-8 stay in it as lone surrogates, which `readable` refuses.

    Raises:
        UserError: the file cannot be read, or is UTF-16.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: is UTF-16; save it as UTF-8")
    return data.decode("utf-8-sig", "surrogateescape")


def lines(path: Path) -> Iterator[Row]:
    """The lines of a text file that are not blank, without line ends.

    Raises:
        UserError: the file cannot be read, or is UTF-16.
    """
    for number, line in enumerate(content(path).split("\n"), 1):
        if line.strip():
            yield Row(line.rstrip("\r"), f"{file_name(path)}: line {number}")


def read_json(path: Path) -> Row:
    """A JSON file.

    Raises:
        UserError: it cannot be read or is no JSON.
    """
    try:
        return Row(json.loads(content(path)), file_name(path))
    except RecursionError:
        raise UserError(f"{path}: no valid JSON (nested too deeply)") from None
    except ValueError as error:
        raise UserError(f"{path}: no valid JSON ({error})") from None


def file_name(path: Path) -> str:
    """The name of a file in a message; bytes that are no UTF-8 are spelled out."""
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[None]:
    """What is wrong in here is wrong with the whole file: a `UserError` with the file's path."""
    try:
        yield
    except Wrong as wrong:
        raise UserError(f"{path.parent / wrong.reason}") from wrong


@dataclass
class Item:
    """One item of a listing, or one row that cannot be used."""

    wrong: Wrong | None = None
    """Why it cannot be used, where the annotations tell."""
    references: list[str] = field(default_factory=list[str])
    """Its captions, as they stand in the files."""
    extra: dict[str, object] = field(default_factory=dict[str, object])
    """What else is known about it."""


class Listing:
    """Items gathered from annotation files, by id, in the order of the files."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.items: dict[str, Item] = {}
        self.elsewhere: set[str] = set()
        """Ids that are listed for another split."""
        self._strangers: dict[str, tuple[str, int]] = {}

    def add(self, id: str, row: Row, **extra: object) -> bool:
        """An item of this split; the second of the same id is refused, and False is returned."""
        if id in self.items or id in self.elsewhere:
            self.refuse(row.place, Wrong("mismatch", f"{row.place}: {id!r} is listed twice"))
            return False
        self.items[id] = Item(extra=extra)
        return True

    def wants(self, id: str, row: Row) -> bool:
        """Whether this row's caption is of an item of this split; those of no split are noted."""
        if id not in self.items and id not in self.elsewhere:
            first, times = self._strangers.get(id, (row.place, 0))
            self._strangers[id] = (first, times + 1)
        return id in self.items

    def caption(self, id: str, row: Row) -> None:
        """A caption of an item; one that cannot be used is refused."""
        try:
            self.items[id].references.append(row.text())
        except Wrong as wrong:
            self.refuse(row.place, wrong)

    @contextlib.contextmanager
    def rejecting(self, row: Row | str) -> Iterator[None]:
        """What is wrong in here becomes a rejected item, named by this id or by the row's place."""
        try:
            yield
        except Wrong as wrong:
            self.refuse(row if isinstance(row, str) else row.place, wrong)

    def refuse(self, name: str, wrong: Wrong) -> None:
        """A rejected item; an item that is there already is rejected from now on if it wasn't."""
        if name in self.items and self.items[name].wrong is None:
            self.items[name].wrong = wrong
            return
        while name in self.items:
            name += "'"
        self.items[name] = Item(wrong)

    def finished(self, *, listed_in: str, need_references: bool) -> dict[str, Item]:
        """All items; captions of ids that nothing lists are rejected, as are items without captions."""
        for id, (place, times) in self._strangers.items():
            others = f" and {times - 1} more" if times > 1 else ""
            reason = f"{place}{others}: captions of {id!r}, which {listed_in} does not list"
            self.refuse(id, Wrong("mismatch", reason))
        self._strangers.clear()
        if need_references:
            for item in self.items.values():
                if item.wrong is None and not item.references:
                    item.wrong = Wrong("no references", "not one usable reference caption")
        return self.items


class Table:
    """A CSV file with a header, whose rows are read when they are wanted."""

    def __init__(self, path: Path, columns: Collection[str]):
        """Read the header.

        Raises:
            UserError: the file cannot be read, or lacks one of the columns.
        """
        self.path = path
        with self._open() as file:
            reader = csv.reader(map(_decoded, file))
            self.columns = next(reader, [])
            self._lines = reader.line_num
        if self.columns:
            self.columns[0] = self.columns[0].removeprefix("\ufeff")
        for column in columns:
            if column not in self.columns:
                there = ", ".join(self.columns) or "none"
                raise UserError(f"{path}: line 1: no column {column!r}; there are {there}")

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Every row with the place in bytes where it begins; blank lines are passed over.

        A row with more or fewer cells than the header, or over several lines, is no mapping.
        """
        with self._open() as file:
            counted = _Counted(file)
            for _ in range(self._lines):
                next(counted)
            reader = csv.reader(counted)
            while True:
                start, line = counted.bytes, self._lines + reader.line_num + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    cells = [f"no valid CSV: {error}"]
                if cells is None:
                    return
                if cells:
                    yield start, self._row(cells, line, self._lines + reader.line_num)

    def at(self, start: int) -> Row:
        """The row that begins at this place."""
        with self._open() as file:
            file.seek(start)
            cells = next((cells for cells in csv.reader(map(_decoded, file)) if cells), [])
        return Row(dict(zip(self.columns, cells, strict=True)), file_name(self.path))

    def _row(self, cells: list[str], first: int, last: int) -> Row:
        place = f"{file_name(self.path)}: line {first}"
        if first != last:
            return Row(f"a quotation mark that is not closed swallows lines {first} to {last}", place)
        same = len(cells) == len(self.columns)
        return Row(dict(zip(self.columns, cells, strict=True)) if same else cells, place)

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({str(error.strerror).lower()})") from error


class _Counted:
    """Lines of a file as text, and the bytes that were read so far."""

    def __init__(self, file: BinaryIO):
        self.file, self.bytes = file, 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = next(self.file)
        self.bytes += len(line)
        return _decoded(line)


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
