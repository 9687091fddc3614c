"""The record of items that could not be used."""

from collections import Counter
from collections.abc import Container
from pathlib import Path

from limner.data.rows import GrowingRows, line_of


class RejectLog:
    """`rejects.jsonl`: one row {"id", "reason"} for each item that was rejected.

    Made again on the same file it goes on where it stopped, and an id that stands in it is not
    written twice. A run that rejects nothing leaves no file.
    """

    def __init__(self, path: Path):
        """Take up what an earlier run left at `path`.

        Raises:
            UserError: the file holds something else.
        """
        self.path = path
        self._rows = GrowingRows(path, ("id", "reason")) if path.exists() else None
        existing = self._rows.existing if self._rows else []
        self._reasons = {str(row["id"]): str(row["reason"]) for row in existing}

    def add(self, id: str, reason: str) -> None:
        """Record an item, unless it is recorded."""
        if id not in self._reasons:
            self._reasons[id] = reason
            self._rows = self._rows or GrowingRows(self.path, ("id", "reason"))
            self._rows.append([{"id": id, "reason": reason}])

    def forget(self, ids: Container[str]) -> None:
        """Take out items that turned out usable after all: their files were mended."""
        kept = {id: reason for id, reason in self._reasons.items() if id not in ids}
        if len(kept) == len(self._reasons):
            return
        self._reasons = kept
        beside = self.path.with_name(self.path.name + ".partial")
        lines = [line_of({"id": id, "reason": reason}) for id, reason in kept.items()]
        beside.write_text("".join(lines), encoding="utf-8", newline="\n")
        beside.replace(self.path)

    @property
    def count(self) -> int:
        """Number of rejected items."""
        return len(self._reasons)

    @property
    def reasons(self) -> Counter[str]:
        """How often each reason was given."""
        return Counter(self._reasons.values())
