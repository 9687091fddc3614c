"""A text file with its caption beside each image or video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from limner.bulk.remote import is_address
from limner.data.media import SUFFIXES
from limner.data.rows import Row
from limner.data.video import SUFFIXES as VIDEO_SUFFIXES
from limner.errors import UserError


class Sidecars:
    """The text files of a job."""

    def __init__(self, folder: Path, *, overwrite: bool):
        """Write nothing yet.

        Args:
            folder: what the paths in the rows are relative to.
            overwrite: text files that hold something else are written over; otherwise left alone.
        """
        # Links are followed, as they are when a program reads "../photo.jpg" from there.
        self._folder = os.path.realpath(folder)
        self._overwrite = overwrite
        self.kept = 0
        """Text files that held something else and were left alone."""

    def seen(self, row: Row) -> None:
        """A row of an earlier job, which may not have come to its text file."""
        path = self._beside(row)
        if path is not None and not path.exists():
            _write(path, str(row["caption"]))

    def add(self, rows: Sequence[Row]) -> None:
        """Rows that are in the journal now."""
        for row in rows:
            path = self._beside(row)
            if path is not None:
                self._add(path, str(row["caption"]))

    def _add(self, path: Path, text: str) -> None:
        try:
            if path.read_text(encoding="utf-8", errors="replace") == text + "\n":
                return
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); leave --sidecar out") from error
        else:
            if not self._overwrite:
                self.kept += 1
                return
        _write(path, text)

    def _beside(self, row: Row) -> Path | None:
        file = row.get("image", row.get("video"))
        if not isinstance(file, str) or is_address(file):
            return None
        return beside(Path(self._folder, file))


def beside(image: Path) -> Path:
    """photo.txt for photo.jpg; photo.jpg.txt where there is a photo.png too."""
    own = image.suffix
    suffixes = (*SUFFIXES, *VIDEO_SUFFIXES, "")
    others = {case for suffix in suffixes for case in (suffix, suffix.upper())} - {own}
    if any(image.with_suffix(suffix).is_file() for suffix in others):
        return image.with_name(image.name + ".txt")
    return image.with_suffix(".txt")


def _write(path: Path, text: str) -> None:
    """All of the file or nothing, whenever the process is killed."""
    hidden = path.with_name(f".{os.getpid()}.partial")
    try:
        hidden.write_text(text + "\n", encoding="utf-8")
        hidden.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); leave --sidecar out") from error
