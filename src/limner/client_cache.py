"""Answers of endpoints on disk, by all that decides them: address, model, conversation, decoding settings.

One SQLite file: a run asks millions of questions, which as a file each would fill a file system's tables.
Keys (the secret ones) are no part of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from limner.answering.base import Reply
from limner.errors import UserError

NAME = "answers.sqlite"
FLUSH_SECONDS = 1.0
"""A killed process loses the answers of at most this time."""
LOCK_SECONDS = 10.0
"""How long other processes that write are waited for."""
_AT_ONCE = 500
"""Keys a query; SQLite takes 999 values at the least."""
_log = logging.getLogger(__name__)


def key_of(base_url: str, body: Mapping[str, Any]) -> str:
    """The name of an answer: SHA-256 of all that decides it."""
    text = json.dumps([base_url.rstrip("/"), body], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Cache:
    """Answers in one file of a folder, which several processes of one machine may share.

    What is damaged is a miss: a row, or the whole file, which is then moved aside.
    """

    def __init__(self, folder: Path):
        """Make the folder.

        Raises:
            UserError: it cannot be made or written to.
        """
        self.path = folder / NAME
        self._waiting: dict[str, Reply] = {}
        self._flushed = time.monotonic()
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._open():
                pass
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"cache: {folder}: cannot be written to ({error})") from error

    def get(self, keys: Sequence[str]) -> dict[str, Reply]:
        """The answers that are known and whole."""
        found: dict[str, Reply] = {}
        try:
            with self._open() as file:
                for start in range(0, len(keys), _AT_ONCE):
                    asked = keys[start : start + _AT_ONCE]
                    marks = ",".join("?" * len(asked))
                    rows = file.execute(f"SELECT key, reply, crc FROM answers WHERE key IN ({marks})", asked)
                    for key, text, crc in rows:
                        reply = _reply(text, crc)
                        if reply is not None:
                            found[key] = reply
        except sqlite3.Error as error:
            self._trouble(error)
        return found

    def put(self, key: str, reply: Reply) -> None:
        """Keep an answer; it is on disk within `FLUSH_SECONDS` if more follow, or after `flush`."""
        with self._lock:
            self._waiting[key] = reply
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits, in one transaction. A full or locked disk costs the answers, never the run."""
        with self._lock:
            rows = [(key, *_row(reply)) for key, reply in self._waiting.items()]
            self._waiting.clear()
            self._flushed = time.monotonic()
        for _ in range(2 if rows else 0):
            try:
                with self._open() as file, file:
                    file.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
                return
            except sqlite3.Error as error:
                self._trouble(error)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file, with its table; one that is damaged is moved aside and begun anew."""
        try:
            file = self._connect()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            self._trouble(error)
            file = self._connect()
        with closing(file):
            yield file

    def _connect(self) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, timeout=LOCK_SECONDS)
        try:
            columns = "key TEXT PRIMARY KEY, reply BLOB, crc INTEGER"
            file.execute(f"CREATE TABLE IF NOT EXISTS answers ({columns}) WITHOUT ROWID")
            file.commit()
        except sqlite3.Error:
            file.close()
            raise
        return file

    def _trouble(self, error: sqlite3.Error) -> None:
        """Move a damaged file aside; of anything else only tell."""
        if isinstance(error, sqlite3.OperationalError):
            _log.warning("%s: %s; going on without its answers", self.path, error)
            return
        _log.warning("%s: damaged (%s): moved aside, and begun anew", self.path, error)
        self.path.with_name(NAME + "-journal").unlink(missing_ok=True)
        if self.path.exists():
            self.path.replace(self.path.with_name(NAME + ".damaged"))


def _row(reply: Reply) -> tuple[bytes, int]:
    text = json.dumps([reply.text, reply.prompt_tokens, reply.completion_tokens]).encode()
    return text, zlib.crc32(text)


def _reply(text: Any, crc: Any) -> Reply | None:
    """The answer of a row; None if the row is damaged."""
    if not isinstance(text, bytes) or zlib.crc32(text) != crc:
        return None
    answer, prompt_tokens, completion_tokens = json.loads(text)
    return Reply(answer, "", prompt_tokens, completion_tokens)
