"""Waiting in tests, the one place where they look at a clock: a busy machine may take minutes for a moment.

No test says how long something may take. What must not hang is waited for as long as `SECONDS`; what must
not be slow is counted, or measured in seconds of this thread on a core, whatever else the machine does.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from random import SystemRandom

SECONDS = 600.0
"""Nothing that ends takes longer."""
CORE_SECONDS = 60.0
"""Far above what anything takes that is linear, far below what a square takes at the size of the tests."""


def until(true: Callable[[], object], *, every: float = 0.01, otherwise: Callable[[], str] = str) -> None:
    """Return when it is true.

    Args:
        true: asked again and again.
        every: seconds between.
        otherwise: what the test is to say when it never comes true.
    """
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(every)


def cheap(work: Callable[[], object]) -> None:
    """Do some work that grows with the square of something if it is done badly."""
    before = time.thread_time()
    work()
    assert time.thread_time() - before < CORE_SECONDS


def free_port() -> int:
    """A port of this machine for a server that is started soon, or started again.

    Below those that the system gives to whoever asks for any, so that nobody takes it in between.
    """
    while True:
        port = SystemRandom().randrange(20_000, 32_768)  # tests in other processes draw too
        with socket.socket() as held:
            try:
                held.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when a process that was started takes connections."""

    def connected() -> bool:
        assert process.poll() is None, f"the server ended with {process.returncode} before it listened"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=SECONDS).close()
        except OSError:
            return False
        return True

    until(connected)
