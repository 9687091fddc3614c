"""All runs as a table for the terminal; a narrow one goes without the columns that can be missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from limner.live.follow import Followed
from limner.live.spark import BARS, spark
from limner.report import labels

STYLES = {"starting": "cyan", "running": "green", "finished": "", "stopped": "red", "stalled": "yellow"}
"""Of states."""
REWARD, WORDS = "reward/total", "watch/words"
GAP = 2
"""Spaces between columns; one of them is the table's own."""
LEAST_NAME, MOST_NAME, MOST_SPARK = 14, 40, 32
"""Widths; a longer name is cut, unless all else has its room."""


@dataclass(frozen=True)
class _Column:
    """One column."""

    title: str
    """Heading."""
    width: int
    """Characters."""
    missed: int
    """The higher, the sooner it is left out."""
    cell: Callable[[Followed], Text]
    """What it says of a run."""
    right: bool = False
    """Whether it is a number."""


def state(run: Followed) -> Text:
    """How a run is, in its colour."""
    return Text(run.state.name, STYLES[run.state.name])


def step(run: Followed) -> Text:
    """How far it is."""
    return Text(f"{run.history.step:,}" + (f"/{run.steps:,}" if run.steps is not None else ""))


def alarms(run: Followed) -> Text:
    """The numbers that are beyond their limits, in red."""
    return Text(
        ", ".join(clean(key.removeprefix("watch/").replace("_", " ")) for key in run.history.standing),
        "bold red",
    )


def left(run: Followed) -> Text:
    """Time to its last step."""
    return Text("" if run.seconds_left is None else labels.seconds(run.seconds_left))


def pace(run: Followed) -> Text:
    """Time a step."""
    seconds = run.history.step_seconds
    return Text("" if seconds is None else labels.seconds(seconds))


def _last(key: str) -> Callable[[Followed], Text]:
    return lambda run: Text(labels.label(key).text(run.history.last(key)))


COLUMNS = (
    _Column("Method", 14, 8, lambda run: Text(clean(run.method))),
    _Column("State", 8, 1, state),
    _Column("Step", 13, 2, step, right=True),
    _Column("A step", 8, 9, pace, right=True),
    _Column("Left", 11, 6, left, right=True),
    _Column("Reward", 7, 3, _last(REWARD), right=True),
    _Column("", 10, 5, lambda run: Text()),
    _Column("Words", 5, 7, _last(WORDS), right=True),
    _Column("Alarms", 12, 4, alarms),
)
"""All but the name, which comes first. The one without a title is the reward's course."""


def table(
    runs: Sequence[Followed],
    *,
    folder: str,
    width: int,
    rows: int | None = None,
    chosen: str = "",
    bars: str = BARS,
) -> RenderableType:
    """One line a run.

    Args:
        runs: in order.
        folder: what is watched, for the heading.
        width: characters of the terminal.
        rows: most runs shown, those about the chosen one; None is all.
        chosen: name of the run that is marked.
        bars: of the reward's course.
    """
    if not runs:
        return Text.assemble((clean(folder), "bold"), "\nno runs yet", overflow="fold")
    counts = Counter(run.state.name for run in runs)
    said = ", ".join(f"{counts[name]} {name}" for name in STYLES if counts[name])
    head = Text.assemble((clean(folder), "bold"), f"  {said}", overflow="ellipsis", no_wrap=True)
    names = {run.name: clean(run.name) for run in runs}
    columns, name, course = _fitting(width, max(map(len, names.values())))
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    drawn.add_column("Run", width=name, no_wrap=True, overflow="ellipsis")
    for column in columns:
        wide = column.width if column.title else course
        drawn.add_column(
            column.title,
            width=wide,
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if column.right else "left",
        )
    first, shown = _window(runs, rows, chosen)
    for run in shown:
        cells = [c.cell(run) if c.title else Text(_course(run, course, bars), "cyan") for c in columns]
        drawn.add_row(Text(names[run.name]), *cells, style="reverse" if run.name == chosen else "")
    more = len(runs) - len(shown)
    rest = [Text(f"and {more} more, {first} above", "dim")] if more else []
    return Group(head, Text(), drawn, *rest)


def clean(text: str) -> str:
    """A text without what would move the cursor or turn its letters round."""
    return "".join(each if each.isprintable() else " " for each in text)


def _course(run: Followed, width: int, bars: str) -> str:
    return spark(run.history.column(REWARD), width, bars=bars)


def _fitting(width: int, longest: int) -> tuple[list[_Column], int, int]:
    """The columns that fit, and the widths of the name and of the reward's course."""
    kept: list[_Column] = []
    room = width - min(longest, LEAST_NAME)
    for column in sorted(COLUMNS, key=lambda column: column.missed):
        if room < column.width + GAP:
            break
        kept.append(column)
        room -= column.width + GAP
    least = min(longest, LEAST_NAME)
    name = max(1, min(longest, least + room, max(least, MOST_NAME)))
    course = 10 + max(0, min(room - (name - least), MOST_SPARK - 10))
    name += max(0, min(longest - name, room - (name - least) - (course - 10)))
    return [column for column in COLUMNS if column in kept], name, course


def _window(runs: Sequence[Followed], rows: int | None, chosen: str) -> tuple[int, Sequence[Followed]]:
    """How many runs are left out above, and those that are shown."""
    if rows is None or len(runs) <= rows:
        return 0, runs
    place = next((place for place, run in enumerate(runs) if run.name == chosen), 0)
    first = max(0, min(place - rows // 2, len(runs) - rows))
    return first, runs[first : first + max(rows, 1)]
