"""Keys as they are pressed, where there is a keyboard."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import Any, Self

NAMES = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"k": "up",
    b"\x1b[B": "down", b"\x1bOB": "down", b"j": "down",
    b"\r": "in", b"\n": "in", b"\x1b[C": "in", b"\x1bOC": "in", b"l": "in",
    b"\x1b": "out", b"\x7f": "out", b"\x1b[D": "out", b"\x1bOD": "out", b"h": "out",
    b"q": "quit", b"\x04": "quit",
}  # fmt: skip
"""What keys mean."""
_KEY = re.compile(rb"\x1b[\[O][0-9;]*.|.", re.DOTALL)
"""One key as a terminal sends it."""


class Keys:
    """Takes keys without Enter and without showing them, until it is left; a context manager."""

    def __init__(self):
        """Nothing is taken yet."""
        self._terminal: tuple[int, Any] | None = None
        self._pressed: list[bytes] = []

    def __enter__(self) -> Self:
        """Take keys from standard input, if it is a terminal."""
        if sys.stdin is None or not sys.stdin.isatty():
            return self
        try:
            import termios
            import tty
        except ImportError:  # Windows
            return self
        number = sys.stdin.fileno()
        self._terminal = number, termios.tcgetattr(number)
        tty.setcbreak(number)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        if self._terminal is not None:
            import termios

            termios.tcsetattr(self._terminal[0], termios.TCSADRAIN, self._terminal[1])

    @property
    def taken(self) -> bool:
        """Whether there is a keyboard."""
        return self._terminal is not None

    def wait(self, seconds: float) -> str:
        """What the next key means; empty where none that is known was pressed for so long."""
        if self._terminal is None:
            time.sleep(seconds)
            return ""
        import select

        number = self._terminal[0]
        if not self._pressed and select.select([number], [], [], seconds)[0]:
            self._pressed = _KEY.findall(os.read(number, 256)) or [b"q"]  # nothing to read: it was closed
        return NAMES.get(self._pressed.pop(0), "") if self._pressed else ""
