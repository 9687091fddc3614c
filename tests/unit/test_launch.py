"""Processes of one launch: who is heard, and who is blamed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from limner import launch
from limner.errors import UserError


def processes(*codes: str) -> list[subprocess.Popen[bytes]]:
    return [subprocess.Popen([sys.executable, "-c", code]) for code in codes]


def test_rank_0_alone_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert launch.launch(2, ["list", "objectives"]) == 0
    assert capfd.readouterr().out.count("clipped_ratio") == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_mistake_that_all_ranks_find_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert launch.launch(2, ["list", "rewords"]) == 2
    assert capfd.readouterr().err.count("did you mean") == 1


@pytest.mark.parametrize(
    ("codes", "blamed"),
    [
        (("import time; time.sleep(99)", "raise SystemExit(3)"), 1),
        (("raise SystemExit(1)", "import os; os.kill(os.getpid(), 9)"), 1),
        (("import os; os.kill(os.getpid(), 11)", "raise SystemExit(1)"), 0),
        (("raise SystemExit(2)", "raise SystemExit(2)"), 0),
        (("raise SystemExit(1)", "raise SystemExit(2)"), 1),
        (("pass", "pass"), None),
    ],
)
def test_the_first_that_failed_is_blamed(codes: tuple[str, ...], blamed: int | None) -> None:
    ranks = processes(*codes)
    for rank, code in zip(ranks, codes, strict=True):
        if "sleep" not in code:
            rank.wait()
    assert launch._watch(ranks) == blamed
    launch._end(ranks)
    assert all(rank.returncode is not None for rank in ranks)


def test_a_rank_that_fails_alone_is_quoted(tmp_path) -> None:
    (tmp_path / "rank-1.txt").write_text("Traceback\nKeyError: 'x'\n")
    (tmp_path / "run").write_text("runs/mine")
    said = launch._said(1, 1, 2, tmp_path)
    assert said == [
        "rank 1 of 2 failed with exit code 1; the other ranks were ended",
        "go on from the last checkpoint: limner train --resume runs/mine --launch 2",
        "the last lines of rank 1:",
        "Traceback",
        "KeyError: 'x'",
    ]


def test_launching_from_the_command_line_says_what_ended_a_rank(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(launch, "_started", lambda *_: processes("import os; os.kill(os.getpid(), 9)")[0])
    with pytest.raises(UserError, match="rank 0 of 2 was ended by SIGKILL, as the system does"):
        launch.launch(2, ["list", "rewards"])
