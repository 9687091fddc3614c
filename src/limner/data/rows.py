"""JSONL files that only grow, and that can be gone on with after a kill."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from limner.errors import UserError

Row = Mapping[str, object]


def line_of(row: Row) -> str:
    """A row as one line of JSON, readable wherever its text is valid Unicode.

    File names that are not (undecodable bytes, kept as lone surrogates) are escaped.
    """
    line = json.dumps(row, ensure_ascii=False)
    if any("\ud800" <= character <= "\udfff" for character in line):
        line = json.dumps(row)
    return line + "\n"


class GrowingRows:
    """A JSONL file to which rows are appended.

    A process that is killed while it writes leaves a torn last line; taking up the file again drops it.
    """

    def __init__(self, path: Path, keys: tuple[str, ...]):
        """Take up the file and make its folder.

        Args:
            path: the file.
            keys: what every row has, with string values; the first of them opens every line.

        Raises:
            UserError: the file holds something else, which is left as it is, or cannot be written.
        """
        self.path = path
        self.keys = keys
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.existing: list[Row] = self._recover() if path.exists() else []
            """The rows that stood in the file before."""
            path.touch()
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows; a kill cannot lose what this has returned from.

        Raises:
            UserError: the disk is full or gone.
        """
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write("".join(map(line_of, rows)))
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _recover(self) -> list[Row]:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        lines = content[:whole].splitlines()
        rows = [self._parse(line, number) for number, line in enumerate(lines, 1)]
        torn, start = content[whole:], b'{"' + self.keys[0].encode()
        if not (torn.startswith(start) or start.startswith(torn)):
            raise self._foreign(len(lines) + 1)
        if torn:
            with self.path.open("r+b") as file:
                file.truncate(whole)
        return rows

    def _parse(self, line: bytes, number: int) -> Row:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in self.keys):
            raise self._foreign(number)
        return row

    def _foreign(self, number: int) -> UserError:
        return UserError(
            f"{self.path}: line {number} is no row with {' and '.join(self.keys)}; "
            "the file was left as it is: choose another name, or move it away"
        )
