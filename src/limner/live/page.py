"""The tab of a Gradio page that follows runs."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context

from limner.live import view
from limner.live.follow import Runs

CSS = view.style()
"""For the page's style sheet."""
EVERY = 2.0
"""Seconds between looks."""
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}


class Board:
    """The runs of a folder for all who look at the page: read once, drawn once for every change."""

    def __init__(self, folder: Path):
        """Read them for the first time.

        Raises:
            UserError: there is no such folder.
        """
        self.runs = Runs(folder)
        self._lock = threading.Lock()
        self._looked, self._changes = 0.0, 0
        self._drawn: dict[str, tuple[int, str]] = {}
        self.look()

    def look(self) -> tuple[int, list[str]]:
        """Read what was added, at most once in `EVERY` seconds; how often anything changed, and all names."""
        with self._lock:
            now = time.time()
            if self.runs.behind or not self._looked or now - self._looked >= EVERY / 2:
                self._looked = now
                self._changes += self.runs.look(now)
            return self._changes, [run.name for run in self.runs]

    def drawn(self, name: str) -> tuple[str, str]:
        """HTML of all runs with that one marked, and of that one in depth."""
        with self._lock:
            runs = list(self.runs)
            table = view.all_runs(runs, folder=str(self.runs.folder), chosen=name)
            run = next((run for run in runs if run.name == name), None)
            if run is None:
                return table, ""
            if self._drawn.get(name, (-1, ""))[0] != self._changes:
                self._drawn = {key: value for key, value in self._drawn.items() if value[0] == self._changes}
                self._drawn[name] = self._changes, view.one_run(run)
            return table, self._drawn[name][1]


def build(runs: Path) -> None:
    """Put the tab's controls where this is called: inside of a `gr.Blocks`.

    Args:
        runs: the folder of a run, or one that holds runs.

    Raises:
        UserError: there is no such folder.
    """
    board = Board(runs)
    seen = gr.State(())
    table = gr.HTML(elem_id="limner-all-runs")
    chosen = gr.Dropdown(
        label="Look into", choices=[], value=None, interactive=True, elem_id="limner-which-run"
    )
    depth = gr.HTML(elem_id="limner-one-run")

    def update(name: str | None, seen: tuple[Any, ...]) -> tuple[Any, ...]:
        """What changed since this browser was told."""
        changes, names = board.look()
        chosen = name if name in names else next(iter(names), None)
        now = changes, chosen, names
        if now == seen:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        listed = gr.skip() if now[1:] == seen[1:] else gr.Dropdown(choices=names, value=chosen)
        return (*board.drawn(chosen or ""), listed, now)

    page = Context.root_block
    assert page is not None, "build is called inside of a gr.Blocks"
    gr.on(
        [page.load, gr.Timer(EVERY).tick, chosen.input], update, [chosen, seen], [table, depth, chosen, seen],
        **_QUIET,
    )  # fmt: skip
