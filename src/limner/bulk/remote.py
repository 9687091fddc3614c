"""Files at addresses: s3://, gs://, hf://, https://, zip://..., whatever fsspec knows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from limner.errors import Reject, UserError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+(::|://)", re.IGNORECASE)


def is_address(text: str) -> bool:
    """Whether it is an address rather than a path."""
    return _ADDRESS.match(text) is not None


def file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        UserError: there is none for such addresses, or it cannot be reached.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError, OSError) as error:
        raise UserError(f"{address}: cannot be opened ({_plain(error)})") from error


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file at a path or address, open for reading, with seeks.

    Raises:
        UserError: it cannot be opened.
    """
    import fsspec

    try:
        at: Any = fsspec.open(path, "rb") if is_address(path) else None
        file = open(path, "rb") if at is None else at.open()  # noqa: SIM115
    except (ImportError, ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({_plain(error)})") from error
    with file:
        yield cast(BinaryIO, file)


def read(path: str, *, start: int = 0, size: int | None = None, max_bytes: int) -> bytes:
    """The content of a file at a path or address, or a part of it.

    Raises:
        Reject: it cannot be read, or is too large.
    """
    try:
        with opened(path) as file:
            if size is None:
                content = file.read(max_bytes + 1)
            else:
                file.seek(start)
                content = file.read(min(size, max_bytes + 1))
    except UserError as error:
        raise Reject(str(error)) from None
    except Exception as error:  # file systems of others raise what they like
        raise Reject(f"{path}: cannot be read ({_plain(error)})") from None
    if len(content) > max_bytes:
        raise Reject(f"file of more bytes than the limit of {max_bytes:,}")
    if size is not None and len(content) < size:
        raise Reject("the file ends before it should")
    return content


def _plain(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    return (strerror or str(error) or type(error).__name__).partition("\n")[0]
