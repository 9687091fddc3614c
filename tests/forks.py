"""Forked processes: what was imported is there already, and one starts in a moment."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping


def forked(
    work: Callable[[], object],
    *,
    environment: Mapping[str, str] | None = None,
    dies: Callable[[], object] | None = None,
) -> int:
    """Run in a process of its own.

    Args:
        work: what it does; what that raises is printed, and its exit code is 1.
        environment: variables that are set there.
        dies: called in a thread of that process, which is killed when it returns. The process kills itself:
            another might not have its turn in time on a busy machine, and find it done.

    Returns:
        Its number; `finished` waits for it.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ.update(environment or {})
        if dies is not None:
            threading.Thread(target=_die, args=(dies,), daemon=True).start()
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _die(moment: Callable[[], object]) -> None:
    moment()
    os.kill(os.getpid(), signal.SIGKILL)


def finished(child: int) -> bool:
    """Whether a process came to its end, and was not killed before; it must not fail."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.waitstatus_to_exitcode(status) == 0, "the work itself failed"
    return True
