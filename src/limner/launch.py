"""Several processes of this command on one machine, the ranks of one run, watched until they end.

Imports no torch: the process that watches has nothing else to do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from limner.errors import USER_ERROR, UserError

STORE = "LIMNER_STORE"
"""Environment variable with the folder through which the ranks of one launch meet."""
NOTICE = 0.1
"""Seconds between looks at the ranks."""
GRACE = 10.0
"""Seconds in which rank 0 may find the mistake that another found, and in which ranks may end when asked."""
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
        The exit code: 0, or that of rank 0 where it has said itself what is wrong.

    Raises:
        UserError: a rank was ended from outside or failed; it says which, and how to go on.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="limner-") as name:
        folder = Path(name)
        ranks: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(count):
                ranks.append(_started(rank, count, arguments, folder))
            failed = _watch(ranks)
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        finally:
            _end(ranks)
            signal.signal(signal.SIGTERM, before)
        if failed is None:
            return 0
        code = ranks[failed].returncode
        if failed == 0 and code > 0:
            return code
        raise UserError("\n".join(_said(failed, code, count, folder)))


def _started(rank: int, count: int, arguments: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """The process of a rank; all but rank 0 write what they say into their log."""
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
    ranks = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), STORE: str(folder)}
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    command = [sys.executable, "-m", "limner", *arguments]
    environment = {**threads, **os.environ, **ranks, **own}
    if rank == 0:
        return subprocess.Popen(command, env=environment)
    with _log(folder, rank).open("wb") as out:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def _log(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.txt"


def _watch(ranks: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all ranks; returns the number of the one to blame, None where none failed."""
    while True:
        codes = [rank.poll() for rank in ranks]
        if any(codes):
            return _blamed(ranks)
        if all(code == 0 for code in codes):
            return None
        time.sleep(NOTICE)


def _blamed(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    """The rank that failed first, as far as that can be told.

    One that was ended from outside, for others fail when they miss it. Rank 0 where all found the same
    mistake in a recipe. Otherwise one whose words nobody has read yet.
    """
    failed = {number: code for number, rank in enumerate(ranks) if (code := rank.poll())}
    killed = [number for number, code in failed.items() if code < 0]
    if killed:
        return killed[0]
    if set(failed.values()) == {USER_ERROR}:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if ranks[0].wait(GRACE) == USER_ERROR:
                return 0
    return max(failed)


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


def _said(rank: int, code: int, count: int, folder: Path) -> list[str]:
    """What a person is told of a rank that failed."""
    how = f"failed with exit code {code}"
    if code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    if -code == signal.SIGKILL:
        how += ", as the system does where memory runs out"
    lines = [f"rank {rank} of {count} {how}; the other ranks were ended"]
    if (folder / "run").is_file():
        run = (folder / "run").read_text(encoding="utf8")
        lines.append(f"go on from the last checkpoint: limner train --resume {run} --launch {count}")
    if -code != signal.SIGKILL and _log(folder, rank).is_file():
        said = _log(folder, rank).read_text(encoding="utf8", errors="replace").splitlines()[-TAIL:]
        lines += [f"the last lines of rank {rank}:", *said] if said else []
    return lines
