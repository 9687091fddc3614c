"""Several processes of this command on one machine, the ranks of one run, watched until they end.

Imports no torch: the process that watches has nothing else to do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from limner.errors import UserError

STORE = "LIMNER_STORE"
"""Environment variable with the folder through which the ranks of one launch meet."""
NOTICE = 0.1
"""Seconds between looks at the ranks."""
GRACE = 10.0
"""Seconds in which rank 0 may say itself what is wrong, and in which ranks may end when asked to."""
TAIL = 30
"""Lines that are shown of a failed rank other than 0, whose output is otherwise kept back."""


def speaks() -> bool:
    """Whether this process is the one of its ranks that a person hears."""
    return os.environ.get("RANK", "0") == "0"


def announce(run: Path) -> None:
    """Tell the launcher, where there is one, which folder the run has."""
    store = os.environ.get(STORE)
    if store is not None:
        (Path(store) / "run").write_text(str(run), encoding="utf8")


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run `limner ARGUMENTS` in `count` processes; rank 0 alone is heard, unless another fails.

    Returns:
        The exit code of the ranks: 0, or that of the one that failed first.

    Raises:
        UserError: a rank was ended from outside or failed; it says which and how to go on.
    """
    with tempfile.TemporaryDirectory(prefix="limner-") as folder:
        logs = [Path(folder) / f"rank-{rank}.txt" for rank in range(count)]
        ranks: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(count):
                ranks.append(_started(rank, count, arguments, folder=folder, log=logs[rank]))
            failed = _watch(ranks)
        except KeyboardInterrupt:
            return 130
        finally:
            _end(ranks)
        if failed is None:
            return 0
        code = ranks[failed].returncode
        if failed == 0 and code > 0:
            return code  # it has said why
        run = Path(folder) / "run"
        shown = logs[failed].read_text(encoding="utf8", errors="replace").splitlines() if failed else []
        raise UserError(
            "\n".join(
                [
                    f"rank {failed} of {count} {_ended(code)}; the other ranks were ended",
                    *_resume(run, count),
                    *([f"the last lines of rank {failed}:", *shown[-TAIL:]] if shown else []),
                ]
            )
        )


def _started(
    rank: int, count: int, arguments: Sequence[str], *, folder: str, log: Path
) -> subprocess.Popen[bytes]:
    """The process of a rank; all but rank 0 write what they say into their log."""
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), STORE: folder}
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    command = [sys.executable, "-m", "limner", *arguments]
    environment = {**threads, **os.environ, **shared, **place}
    if rank == 0:
        return subprocess.Popen(command, env=environment)
    with log.open("wb") as out:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def _watch(ranks: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all ranks; returns the number of the first that failed, None where none did."""
    while True:
        codes = [rank.poll() for rank in ranks]
        failed = [number for number, code in enumerate(codes) if code]
        if failed:
            return _speaker(ranks, failed[0])
        if all(code == 0 for code in codes):
            return None
        time.sleep(NOTICE)


def _speaker(ranks: Sequence[subprocess.Popen[bytes]], failed: int) -> int:
    """Rank 0 where it too ends by itself: all ranks find the same mistakes in a recipe, and it says them."""
    code = ranks[failed].returncode
    if failed and code > 0:
        try:
            return 0 if ranks[0].wait(GRACE) == code else failed
        except subprocess.TimeoutExpired:
            return failed
    return failed


def _end(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs: asked first, forced afterwards."""
    for rank in ranks:
        if rank.poll() is None:
            rank.terminate()
    end = time.monotonic() + GRACE
    for rank in ranks:
        try:
            rank.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()


def _ended(code: int) -> str:
    if code >= 0:
        return f"failed with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _resume(run: Path, count: int) -> list[str]:
    if not run.is_file():
        return []
    folder = run.read_text(encoding="utf8")
    return [f"go on from the last checkpoint: limner train --resume {folder} --launch {count}"]
