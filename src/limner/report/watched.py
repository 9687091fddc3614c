"""Signs that a run went astray, read from what was logged: reward hacking shows in these first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from limner.alarms import Spell
from limner.report import labels
from limner.report.files import RunFiles


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
    said = [sentence(spells) for spells in run.alarms.values()]
    logged = dict.fromkeys(key for row in rows for key in row)
    looked_at = [labels.label(key).title for key in logged if key in _LOST or key in run.watch.limits]
    return Watched(tuple(_steps_lost(rows) + said), tuple(looked_at))


def rejects(run: RunFiles) -> tuple[Reject, ...]:
    """Reasons by how often they were given. Raises Absent where rejects.jsonl cannot be read."""
    counts = Counter(row["reason"] for row in run.rejects)
    examples = {row["reason"]: row["id"] for row in reversed(run.rejects)}
    most = max(counts.values(), default=1)
    return tuple(Reject(reason, n, n / most, examples[reason]) for reason, n in counts.most_common())


_LOST = ("refused", "unscored")
MOST_SPELLS = 4
"""More than so many times are not all named."""


def sentence(spells: Sequence[Spell]) -> str:
    """The alarms of one number as a sentence: what, beyond what, when, and what it means."""
    raised = spells[-1].raised
    label, steps = labels.label(raised.key), [_steps(spell) for spell in spells]
    if len(steps) > MOST_SPELLS:
        steps[2:-1] = [f"{len(steps) - 3} more times"]
    numbers = f"{label.text(raised.value)} (at the start {label.text(raised.start)})"
    what = f": {raised.meaning}" if raised.meaning else ""
    return f"{label.title}: {numbers}, {raised.beyond}, {', '.join(steps)}{what}."


def _steps(spell: Spell) -> str:
    if spell.first == spell.last:
        return f"in step {spell.first:,}"
    return f"in steps {spell.first:,} to {spell.last:,}" if spell.over else f"from step {spell.first:,} on"


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
