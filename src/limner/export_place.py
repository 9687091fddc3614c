"""Where an export goes: whole or not at all, and over an older one only where that is asked."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError

from limner.errors import UserError

CARD = "README.md"
"""The model card: every export has one, which is how an older export is known."""
MARKS = ("config.json", "adapter_config.json")
"""What an export holds beside its card."""


def check_folder(out: Path, *, overwrite: bool, keep: Sequence[Path]) -> None:
    """Refuse a folder that is not free.

    Args:
        out: the folder to be written.
        overwrite: whether an older export there may be replaced.
        keep: files and folders that must not go with it: the run, the checkpoint it started from.

    Raises:
        UserError: something else is there, or an export and `overwrite` is not set.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        what = "is not empty" if out.is_dir() else "is a file"
        raise UserError(f"{out}: {what}; give a new folder, or --overwrite where it holds an older export")
    if not (out / CARD).is_file() or not any((out / mark).is_file() for mark in MARKS):
        raise UserError(
            f"{out}: --overwrite replaces an older export only, and this holds no {CARD} with "
            f"{' or '.join(MARKS)}; give a new folder"
        )
    for path in keep:
        if path.exists() and path.resolve().is_relative_to(out.resolve()):
            raise UserError(f"{out}: would remove {path}, which this export is made from; give a new folder")


def check_file(out: Path, *, overwrite: bool) -> None:
    """Refuse a file that is there.

    Raises:
        UserError: it is, and `overwrite` is not set, or it is a folder.
    """
    if out.is_dir() or (out.exists() and not overwrite):
        raise UserError(f"{out}: is there already; give a new name, or --overwrite")


@contextlib.contextmanager
def written(out: Path) -> Iterator[Path]:
    """A path beside `out` that takes its place when all inside went well, folder or file.

    Raises:
        UserError: it cannot be written.
    """
    out = out.resolve()
    beside, old = (out.with_name(f".{out.name}.{what}") for what in ("writing", "old"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in (beside, old):
            _remove(left)
        yield beside
        if out.exists():
            out.rename(old)
        beside.rename(out)
        _remove(old)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{out}: cannot be written: {error}") from error
    finally:
        _remove(beside)


def _remove(path: Path) -> None:
    """Remove a folder or a file, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
