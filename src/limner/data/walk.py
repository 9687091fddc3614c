"""A folder and all below it, read once: what sources of files share."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from limner.errors import UserError


class Entry(NamedTuple):
    """A file or folder that could be a sample."""

    id: str
    """Its path below the folder, with forward slashes."""
    path: Path
    """Where it is."""
    refused: str | None
    """Why it cannot be used, where its name or its folder tells."""


Kept = tuple[Path, str | None]
"""A path, and why it cannot be used."""


def entries(
    path: str, found: Callable[[Path, Sequence[Path]], Iterable[Kept]], *, what: str, suffixes: Iterable[str]
) -> tuple[Entry, ...]:
    """What a folder and the folders in it hold, in the order of their paths; of a file that file.

    Args:
        path: the folder, or one file.
        found: what the files of one folder are, by their names; a folder may be named itself.
        what: for messages: "image".
        suffixes: for messages, how such files end.

    Raises:
        UserError: no such folder, it cannot be read, or there is nothing in it.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return (Entry(root.name, root, None),)
    if not root.is_dir():
        raise UserError(f"{path}: no such folder; give a folder of {what}s, or one {what} file")
    rows = sorted(_walk(root, found))
    if not rows:
        raise UserError(f"{path}: no {what} in this folder or below it; {what}s end in {', '.join(suffixes)}")
    if rows[0].path == root and rows[0].refused:
        raise UserError(f"{path}: {rows[0].refused}")
    return tuple(rows)


def _walk(root: Path, found: Callable[[Path, Sequence[Path]], Iterable[Kept]]) -> Iterator[Entry]:
    """Entries of a folder and all below it, hidden ones left out, in no order.

    Each real folder is read once, however many links lead to it, so links in circles end; those that are
    reached without a link come first.
    """
    folders, seen = deque([root]), set[tuple[int, int]]()
    while folders:
        folder = folders.popleft()
        files: list[Path] = []
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as children:
                for child in children:
                    if child.name.startswith("."):
                        continue
                    if child.is_dir(follow_symlinks=False):
                        folders.appendleft(Path(child))
                    elif child.is_symlink() and os.path.isdir(child):
                        folders.append(Path(child))
                    else:
                        files.append(Path(child))
        except OSError as error:
            yield _entry(root, folder, f"folder cannot be read: {str(error.strerror).lower()}")
        else:
            for path, refused in found(folder, files):
                yield _entry(root, path, refused)


def _entry(root: Path, path: Path, refused: str | None) -> Entry:
    """Names that are no valid UTF-8 have their odd bytes spelled out in the id."""
    name = os.fsencode(path.relative_to(root).as_posix() if path != root else root.resolve().name)
    return Entry(name.decode("utf-8", "backslashreplace"), path, refused)
