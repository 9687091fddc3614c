"""Signs that a run went astray, read from what was logged: reward hacking shows in these first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from limner.report import labels
from limner.report.files import RunFiles

MOST_CUT = 0.05
"""Share of captions cut by the length limit at the end."""
LEAST_DISTINCT = 0.5
"""Distinct captions at the end, as a share of those at the start."""
MOST_REPETITION = 0.4
"""Share of words of a caption that occurred before in it, articles included, at the end."""
LESS_LIKELY = 1.0
"""Fall of the language model's log-probability a token."""
MOST_ZERO_SPREAD = 0.5
"""Share of groups at the end whose captions all earned the same."""
MOST_BAD = 0.1
"""Share of measured captions with a bad phrase at the end."""


@dataclass(frozen=True)
class Watched:
    """The section."""

    alarms: tuple[str, ...]
    """One sentence each; none where all is well."""
    looked_at: tuple[str, ...]
    """What was logged and looked at."""


@dataclass(frozen=True)
class Reject:
    """Items that could not be used for one reason."""

    reason: str
    """As recorded."""
    count: int
    """How many."""
    share: float
    """Of the most frequent reason, for the bar."""
    example: str
    """The first such item."""


def build(run: RunFiles) -> Watched:
    """What the logged measures say. Raises Absent where nothing was logged."""
    rows = run.metrics
    keys = dict.fromkeys(key for row in rows for key in row)
    series = {key: [v for row in rows if (v := row.get(key)) is not None] for key in keys}
    ends = {key: _ends(values) for key, values in series.items() if values}
    alarms = _steps_lost(rows) + [text for rule in _RULES if (text := rule(ends))]
    looked_at = [labels.label(key).title for key in series if key in _LOOKED_AT]
    return Watched(tuple(alarms), tuple(looked_at))


def rejects(run: RunFiles) -> tuple[Reject, ...]:
    """Reasons by how often they were given. Raises Absent where rejects.jsonl cannot be read."""
    counts = Counter(row["reason"] for row in run.rejects)
    examples = {row["reason"]: row["id"] for row in reversed(run.rejects)}
    most = max(counts.values(), default=1)
    return tuple(Reject(reason, n, n / most, examples[reason]) for reason, n in counts.most_common())


Ends = dict[str, tuple[float, float]]
"""Mean of the first and of the last tenth of a series, by key."""

_LOOKED_AT = (
    "refused", "unscored", "watch/cut", "watch/distinct", "watch/repetition", "watch/lm_logprob",
    "watch/zero_spread", "evaluate/bad_phrases",
)  # fmt: skip


def _steps_lost(rows: Sequence[dict[str, float | None]]) -> list[str]:
    refused = [f"{row['step']:.0f}" for row in rows if row.get("refused")]
    unscored = [share for row in rows if (share := row.get("unscored"))]
    alarms = []
    if refused:
        named = ", ".join(refused[:8]) + (", …" if len(refused) > 8 else "")
        count = "1 step was" if len(refused) == 1 else f"{len(refused)} steps were"
        alarms.append(f"{count} refused because a loss or reward was not finite: {named}.")
    if unscored:
        steps = "1 step" if len(unscored) == 1 else f"{len(unscored)} steps"
        alarms.append(
            f"In {steps} captions could not be scored, up to {max(unscored):.1%} of a step; "
            "those took no part in the updates."
        )
    return alarms


def _cut(ends: Ends) -> str:
    _, last = ends.get("watch/cut", (0.0, 0.0))
    return f"At the end {last:.0%} of captions are cut by the length limit." if last > MOST_CUT else ""


def _distinct(ends: Ends) -> str:
    first, last = ends.get("watch/distinct", (0.0, 0.0))
    text = f"Distinct captions fell from {first:.0%} to {last:.0%} of a step: they are becoming the same."
    return text if last < LEAST_DISTINCT * first else ""


def _repetition(ends: Ends) -> str:
    first, last = ends.get("watch/repetition", (0.0, 0.0))
    text = f"Repeated words went from {first:.0%} to {last:.0%} of a caption."
    return text if last > MOST_REPETITION else ""


def _unlikely(ends: Ends) -> str:
    first, last = ends.get("watch/lm_logprob", (0.0, 0.0))
    numbers = labels.signed(f"{first:.2f} to {last:.2f}")
    text = f"The language model finds the captions less likely, {numbers} a token: grammar may be suffering."
    return text if last < first - LESS_LIKELY else ""


def _zero_spread(ends: Ends) -> str:
    _, last = ends.get("watch/zero_spread", (0.0, 0.0))
    text = f"At the end {last:.0%} of groups earn the same for every caption and teach nothing."
    return text if last > MOST_ZERO_SPREAD else ""


def _bad(ends: Ends) -> str:
    _, last = ends.get("evaluate/bad_phrases", (0.0, 0.0))
    return f"At the end {last:.0%} of measured captions hold a bad phrase." if last > MOST_BAD else ""


_RULES = (_cut, _distinct, _repetition, _unlikely, _zero_spread, _bad)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Mean of the first and of the last tenth."""
    tenth = max(1, len(values) // 10)
    return fmean(values[:tenth]), fmean(values[-tenth:])
