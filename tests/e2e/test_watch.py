"""`limner watch` as it is called: in a pipe, and in a terminal with keys."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios

import pytest

from made_up_run import make
from patience import until

COMMAND = [sys.executable, "-m", "limner", "watch"]


def test_once_prints_and_ends(tmp_path):
    make(tmp_path, name="mine")
    environment = {**os.environ, "COLUMNS": "60"}
    said = subprocess.run(
        [*COMMAND, tmp_path, "--once"], capture_output=True, text=True, env=environment, check=True
    )
    assert said.stdout.startswith("mine  finished")
    assert "Total reward" in said.stdout
    assert said.stderr == ""
    wrong = subprocess.run([*COMMAND, tmp_path / "no"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "no such folder" in wrong.stderr


class Terminal:
    """A terminal of 100 x 30 with `limner watch` in it."""

    def __init__(self, *options):
        self.ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (30, 100))
        self.before = termios.tcgetattr(theirs)
        self.theirs, self.said = theirs, b""
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        for name in ("COLUMNS", "LINES", "CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [*COMMAND, *options],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )

    def wait(self, text):
        """Read until the text has come; forget what was read."""

        def come():
            if select.select([self.ours], [], [], 0.2)[0]:
                self.said += os.read(self.ours, 65536)
            return text.encode() in self.said

        until(come, every=0, otherwise=lambda: self.said.decode(errors="replace"))
        self.said = b""

    def press(self, keys):
        os.write(self.ours, keys)

    def ended(self):
        """Its exit code, with the rest of what it said."""
        while self.process.poll() is None:
            if select.select([self.ours], [], [], 0.1)[0]:
                self.said += os.read(self.ours, 65536)
        while select.select([self.ours], [], [], 0)[0]:
            self.said += os.read(self.ours, 65536)
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.mark.parametrize("end", ["q", signal.SIGINT, signal.SIGTERM])
def test_in_a_terminal(tmp_path, end):
    make(tmp_path, name="first")
    run = make(tmp_path, name="second")
    with Terminal(str(tmp_path), "--every", "0.2") as terminal:
        terminal.wait("2 finished")
        if end == "q":
            terminal.press(b"j")
            terminal.press(b"\r")
            terminal.wait("Total reward")
            with (run / "metrics.jsonl").open("a") as file:
                file.write('{"step": 999, "reward/later": 1.0}\n')
            terminal.press(b"\x1b")
            terminal.wait("999/60")
            terminal.press(b"q")
        else:
            terminal.process.send_signal(end)
        assert terminal.ended() == 0
        assert b"Traceback" not in terminal.said
        assert terminal.said.endswith(b"\x1b[?25h\x1b[?1049l")  # the cursor and the screen are given back
        assert termios.tcgetattr(terminal.theirs) == terminal.before
