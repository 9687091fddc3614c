"""How far a job is: a bar, and a line with what is left for logs that show no bar."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Self

from rich import progress
from rich.console import Console
from rich.text import Text

_log = logging.getLogger("limner.bulk")
FIRST, EVERY = 10.0, 300.0
"""Seconds until the first estimate is told, and between those that follow where there is no bar."""


class Progress:
    """Counts items, with rate and time left; the start-up of the captioner is not counted in."""

    def __init__(self, name: str, *, total: int, done: int, price: tuple[float, float] | None = None):
        """Begin.

        Args:
            name: of the output.
            total: items of the source.
            done: those that are there already.
            price: of a million tokens read and written.
        """
        self._console = Console(stderr=True)
        self._bar = progress.Progress(
            *(progress.TextColumn("{task.description}"), progress.BarColumn()),
            *(progress.MofNCompleteColumn(), _Rate(), progress.TimeElapsedColumn()),
            *(progress.TimeRemainingColumn(), progress.TextColumn("{task.fields[rejected]}")),
            console=self._console,
        )
        self._task = self._bar.add_task(name, total=total, completed=done, rejected="")
        self._name, self._total, self._done, self._price = name, total, done, price
        self._began = self._told = time.monotonic()
        self._counted = 0
        """Items that were done."""
        self._first = 0
        """Those of the first group, which holds the start-up and is not in the rate."""
        self._tokens = (0, 0)
        self._estimated = False

    def advance(self, count: int, *, rejected: int, tokens: tuple[int, int] = (0, 0)) -> None:
        """A group of items is done; so many tokens were read and written for all that are done."""
        self._tokens = tokens
        now = time.monotonic()
        self._counted += count
        if self._counted == count:
            self._began, self._first = now, count
        self._done += count
        self._bar.update(self._task, advance=count, rejected=f"{rejected} rejected" if rejected else "")
        pause = EVERY if self._estimated else FIRST
        if now - self._told > pause and now > self._began and (not self._estimated or self._quiet):
            self._told, self._estimated = now, True
            self._console.print(self.line(now - self._began), highlight=False)

    def line(self, seconds: float) -> str:
        """Rate and time left after so many seconds."""
        rate = (self._counted - self._first) / max(seconds, 1e-9)
        left = timedelta(seconds=round((self._total - self._done) / rate)) if rate else None
        line = f"{self._name}: {self._done:,} of {self._total:,}, {rate:.1f}/s, about {left} left"
        return line + self._cost()

    def _cost(self) -> str:
        """Tokens that are still to be paid for, by those of the items so far."""
        if not any(self._tokens) or not self._counted:
            return ""
        share = (self._total - self._done) / self._counted
        read, written = (round(count * share) for count in self._tokens)
        text = f"; about {read:,} tokens to be read and {written:,} to be written"
        if self._price is not None:
            cost = (read * self._price[0] + written * self._price[1]) / 1e6
            text += f", which cost {cost:,.2f}"
        return text

    @property
    def _quiet(self) -> bool:
        """Whether nobody sees the bar."""
        return not self._console.is_terminal

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it as it is."""
        self._bar.stop()


class _Rate(progress.ProgressColumn):
    """Items a second."""

    def render(self, task: progress.Task) -> Text:
        """Nothing until there is something to measure."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="progress.data.speed")
