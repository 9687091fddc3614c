"""`limner watch`: shows runs in the terminal until it is told to stop."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from limner.live.detail import detail
from limner.live.follow import Followed, Runs
from limner.live.keys import Keys
from limner.live.spark import BARS, PLAIN
from limner.live.table import table

HELP = {False: "↑ ↓ choose   Enter look into it   q quit", True: "↑ ↓ other runs   Esc all runs   q quit"}
"""Keys, by whether one run is shown."""
AROUND = 7
"""Lines about the table's rows."""


def watch(folder: Path, *, run: str = "", once: bool = False, every: float = 2.0) -> None:
    """Show a folder's runs, or one of them, as they go on.

    Args:
        folder: of a run or of runs.
        run: name of the run to show in depth; all where empty.
        once: print it one time.
        every: seconds between looks.

    Raises:
        UserError: there is no such folder or run.
    """
    runs = Runs(folder)
    runs.look(time.time())
    view = View(runs, run)
    console = Console()
    if console.file is sys.stdout and not console.encoding.startswith("utf"):
        sys.stdout.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    if once:
        _catch_up(runs)
        console.print(view.drawn(console))
        return
    with _stopped_quietly():
        if console.is_terminal and not console.is_dumb_terminal:
            _live(view, console, every)
        else:
            _plain(view, console, every)


class View:
    """What is shown: all runs, or one of them in depth."""

    def __init__(self, runs: Runs, run: str = ""):
        """Show all, or the run of a name; where there is a single run, that one.

        Raises:
            UserError: there is no run of the name.
        """
        self.runs = runs
        names = [each.name for each in runs]
        alone = names[0] if len(names) == 1 and not run else ""
        self.chosen = runs.named(run).name if run else alone
        self.deep = bool(self.chosen)

    def press(self, key: str) -> None:
        """Do what a key means."""
        order = list(self.runs)
        if key == "out":
            self.deep = False
        elif key == "in":
            self.deep = bool(order)
        elif key in ("up", "down") and order:
            place = order.index(self._run(order)) + (1 if key == "down" else -1)
            self.chosen = order[max(0, min(place, len(order) - 1))].name

    def drawn(self, console: Console, *, keys: bool = False) -> RenderableType:
        """For a terminal as wide, and with keys as high, as this one."""
        bars = BARS if console.encoding.startswith("utf") else PLAIN
        order, width = list(self.runs), console.width
        help = [Text(), Text(HELP[self.deep], "dim", no_wrap=True)] if keys else []
        if self.deep and order:
            run = self._run(order)
            return Group(*help[::-1], detail(run, width=width, bars=bars))
        chosen = self._run(order).name if keys and order else ""
        rows = max(1, console.height - AROUND) if keys else None
        shown = table(order, folder=str(self.runs.folder), width=width, rows=rows, chosen=chosen, bars=bars)
        return Group(shown, *help)

    def _run(self, order: list[Followed]) -> Followed:
        """The chosen run; the first where it is gone."""
        return next((run for run in order if run.name == self.chosen), order[0])


def _live(view: View, console: Console, every: float) -> None:
    """On the whole screen of a terminal."""
    with Keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(view.drawn(console, keys=keys.taken), refresh=True)
            key = keys.wait(0 if view.runs.behind else every)
            if key == "quit":
                return
            view.press(key)
            if not key:
                view.runs.look(time.time())


def _plain(view: View, console: Console, every: float) -> None:
    """Into a file or pipe: again whenever something changed."""
    changed = True
    while True:
        if changed:
            _catch_up(view.runs)
            console.print(view.drawn(console), Text())
        time.sleep(every)
        changed = view.runs.look(time.time())


def _catch_up(runs: Runs) -> None:
    """Read what long runs have left."""
    while runs.behind:
        runs.look(time.time())


@contextmanager
def _stopped_quietly() -> Iterator[None]:
    """Ctrl-C and SIGTERM are how watching ends; the terminal is left as it was."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
