"""One run in depth for the terminal: rewards, length, alarms, and what was written last."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from limner.alarms import WATCHED
from limner.evaluation import Evaluation
from limner.live.follow import Followed
from limner.live.spark import BARS, ends, spark
from limner.live.table import STYLES, clean, left, pace, step
from limner.report import labels
from limner.report.curves import ordered
from limner.report.files import Absent, number
from limner.report.gallery import spaced
from limner.report.watched import sentence

GROUPS = {
    "reward": "Rewards",
    "watch": "Watched, rewarded by nothing",
    "evaluate": "Measured on held-out samples",
}
"""What is shown, by the start of the key."""
PLACES = {f"watch/{name}": place for place, name in enumerate(WATCHED)}
"""What is watched, in the order in which it is shown: length first."""
SAMPLES, PAIRS = 3, 2
"""Captions shown."""
MOST_TITLE, NUMBER, MOST_COURSE = 30, 9, 60
"""Widths of columns."""


def detail(run: Followed, *, width: int, bars: str = BARS) -> RenderableType:
    """All of it, the most urgent first.

    Args:
        run: after a look.
        width: characters of the terminal.
        bars: of the courses.
    """
    parts: list[RenderableType] = [*_head(run, width), *_alarms(run)]
    keys = sorted(ordered(run.history.keys), key=lambda key: PLACES.get(key, 0))
    for group, title in GROUPS.items():
        if chosen := [key for key in keys if key.partition("/")[0] == group]:
            parts += [Text(), *_courses(run, title, chosen, width, bars)]
    with contextlib.suppress(Absent, OSError):
        last = run.files.last_samples
        parts += [Text(), Text(f"Drawn in step {last.step:,}", "bold"), *_drawn(last.rows[:SAMPLES])]
    parts += _pairs(run.files.before, run.files.after)
    return Group(*parts)


def _head(run: Followed, width: int) -> Iterator[RenderableType]:
    """Name, state, and how far it is."""
    yield Text.assemble((clean(run.name), "bold"), "  ", (clean(str(run.state)), STYLES[run.state.name]))
    said = [clean(run.method), f"step {step(run)}"]
    said += [f"{pace(run)} a step"] * bool(pace(run)) + [f"{left(run)} left"] * bool(left(run))
    yield Text(" · ".join(part for part in said if part))
    if run.steps:
        bar = Table.grid()
        bar.add_row(ProgressBar(total=run.steps, completed=run.history.step, width=min(width, MOST_COURSE)))
        yield bar
    if run.broken:
        lines = "1 line" if run.broken == 1 else f"{run.broken:,} lines"
        yield Text(f"{lines} of metrics.jsonl cannot be read and are left out", "yellow")


def _alarms(run: Followed) -> Iterator[RenderableType]:
    """Those that stand first."""
    standing, spells = run.history.standing, run.history.spells
    for key in sorted(spells, key=lambda key: key not in standing):
        now = key in standing
        yield Text(
            f"{'ALARM' if now else 'earlier alarm'}  {clean(sentence(spells[key]))}",
            "bold red" if now else "red",
        )


def _courses(
    run: Followed, title: str, keys: Sequence[str], width: int, bars: str
) -> Iterator[RenderableType]:
    """A line a number: its course, its start and where it is."""
    titles = {key: clean(labels.label(key).title) for key in keys}
    numbers = 2 * (NUMBER + 1)
    wide = max(4, min(MOST_TITLE, max(map(len, titles.values())), width - numbers))
    course = min(width - wide - numbers - 1, MOST_COURSE)
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=wide, no_wrap=True, overflow="ellipsis")
    if course > 0:
        table.add_column(width=course, no_wrap=True)
    for _ in range(2):
        table.add_column(width=NUMBER, justify="right", no_wrap=True)
    for key in keys:
        values = run.history.column(key)
        label, red = labels.label(key), "bold red" if key in run.history.standing else ""
        start, now = (label.text(value) for value in ends(values))
        row = [Text(titles[key], red), Text(spark(values, course, bars=bars), red or "cyan")]
        table.add_row(*row[: 1 + (course > 0)], Text(start, "dim"), Text(now, red))
    heads = f"{'start':>{NUMBER}} {'now':>{NUMBER}}"
    room = wide + max(course + 1, 0)
    yield Text.assemble((f"{title:<{room}} ", "bold"), (heads if len(title) <= room else "", "dim"))
    yield table


def _drawn(rows: Sequence[Mapping[str, object]]) -> Iterator[RenderableType]:
    """Captions with what they earned."""
    for row in rows:
        parts = row.get("parts")
        earned = parts.items() if isinstance(parts, Mapping) else ()
        labelled = ((labels.label(f"reward/{name}"), number(value)) for name, value in earned)
        said = "  ".join(f"{label.title} {label.text(value)}" for label, value in labelled)
        yield Text(clean(f"{row.get('id', '')}  {said}"), "dim")
        yield Text(clean(str(row.get("caption", ""))))


def _pairs(before: Evaluation | None, after: Evaluation | None) -> Iterator[RenderableType]:
    """Captions of the same samples before and after training."""
    sides = {name: made for name, made in (("before", before), ("after", after)) if made is not None}
    if not sides:
        return
    yield Text()
    yield Text(
        "Before and after training" if len(sides) == 2 else f"{next(iter(sides)).title()} training", "bold"
    )
    captions = {name: {row.id: row.caption for row in made.rows} for name, made in sides.items()}
    for id in spaced([*sides.values()][-1].ids, PAIRS):
        yield Text(clean(id), "dim")
        for name, texts in captions.items():
            yield Text.assemble((f"{name:<7}", "dim"), clean(texts.get(id, "not captioned")))
