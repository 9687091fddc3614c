"""The headline and the table: measures before and after training, with intervals and paired differences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from limner.evaluation import Evaluation
from limner.metrics.bootstrap import Interval
from limner.report import labels
from limner.report.files import Absent, RunFiles


@dataclass(frozen=True)
class Headline:
    """What the run did, in one line."""

    title: str
    """Name of the measure."""
    before: str
    """Its value at first; empty where there is only one."""
    after: str
    """Its value at last."""
    said: str
    """Where the numbers come from and how sure they are."""
    beside: tuple[tuple[str, str, str], ...] = ()
    """(title, before, after) of measures that keep it honest; before is empty where there is none."""


@dataclass(frozen=True)
class Cell:
    """One value of the table."""

    text: str
    """The value."""
    interval: str
    """Its 95% interval; empty where there is none."""
    low: float
    """Place of the interval's lower end on the row's axis, in per cent."""
    at: float
    """Place of the value."""
    high: float
    """Place of the upper end."""


@dataclass(frozen=True)
class Row:
    """One measure."""

    title: str
    """Its name."""
    before: Cell | None
    """None where it was not measured."""
    after: Cell | None
    """None where it was not measured."""
    verdict: str
    """The paired difference in words: "clearly higher"; empty where the two can't be compared."""
    change: str
    """Its numbers: "+61.2 points [59.0, 63.1]"."""


@dataclass(frozen=True)
class Table:
    """The section."""

    rows: tuple[Row, ...]
    """Measures in the order of tables."""
    about: tuple[str, ...]
    """Sentences: what was measured on, why there is no before or no after, what could not be compared."""


def table(run: RunFiles) -> Table:
    """Measures of the captions before and after training. Raises Absent where neither was measured."""
    before, after = run.before, run.after
    main = after or before
    if main is None:
        raise Absent(f"The captions were not measured. {run.missing_evaluations}")
    verdicts, about = _verdicts(run)
    about = [f"{_captions_of(main)}.", *about]
    rows = [
        row(
            labels.measure(name),
            before and before.summary.get(name),
            after and after.summary.get(name),
            verdicts.get(name, ""),
        )
        for name in dict.fromkeys([*main.summary, *(before.summary if before else ())])
    ]
    return Table(tuple(rows), tuple(about))


def headline(run: RunFiles) -> Headline:
    """The first of `_headlines` that is known, else the reward. Raises Absent where nothing is."""
    before, after = run.before, run.after
    for name, title in _headlines(run).items():
        if after is None or not math.isfinite(_value(after, name)):
            continue
        label, start = labels.measure(name), _value(before, name)
        said = [f"{label.title}, {_captions_of(after)}."]
        verdicts, _ = _verdicts(run)
        if name in verdicts:
            words, _, change = labels.signed(verdicts[name]).partition(": ")
            said.append(
                f"{words.capitalize()}: {change}, the same pictures paired."
                if change
                else f"{words.capitalize()}."
            )
        first = label.text(start) if math.isfinite(start) else ""
        beside = _beside(before, after, name)
        return Headline(title, first, label.text(_value(after, name)), " ".join(said), beside)
    return _from_metrics(run)


def _headlines(run: RunFiles) -> dict[str, str]:
    """Measures that can be the headline, with their titles, the first choice first.

    That is the measure by which the run chose its checkpoint, unless it is itself one of `labels.HEADLINES`:
    those are told in their own order, so that facts chosen by do not hide the retrieval measured besides.
    """
    try:
        best = run.settings.get("evaluate.best", {}).get("value")
    except Absent:
        best = None
    own = {} if best is None or best in labels.HEADLINES else {str(best): labels.measure(str(best)).title}
    return own | labels.HEADLINES


def _beside(before: Evaluation | None, after: Evaluation, headline: str) -> tuple[tuple[str, str, str], ...]:
    found = []
    for name in labels.BESIDE:
        if name != headline and math.isfinite(_value(after, name)):
            label, start = labels.measure(name), _value(before, name)
            first = label.text(start) if math.isfinite(start) else ""
            found.append((label.title, first, label.text(_value(after, name))))
    return tuple(found[:4])


def _from_metrics(run: RunFiles) -> Headline:
    """A headline from what was logged during training."""
    rows = run.metrics
    for key, title in [(f"evaluate/{name}", title) for name, title in _headlines(run).items()]:
        seen = [(int(row["step"] or 0), v) for row in rows if (v := row.get(key)) is not None]
        if len(seen) > 1:
            text = labels.label(key).text
            said = f"Held-out samples at step {seen[0][0]:,} and at step {seen[-1][0]:,}, during training."
            return Headline(title, text(seen[0][1]), text(seen[-1][1]), said)
    rewards = [v for row in rows if (v := row.get("reward/total")) is not None]
    if not rewards:
        raise Absent("No reward was logged yet.")
    tenth = max(1, len(rewards) // 10)
    ends = "step" if tenth == 1 else f"{tenth:,} steps"
    said = f"Mean reward of a caption in the first and the last {ends} of {len(rewards):,}."
    text = labels.label("reward/total").text
    return Headline("Reward", text(fmean(rewards[:tenth])), text(fmean(rewards[-tenth:])), said)


def _verdicts(run: RunFiles) -> tuple[dict[str, str], list[str]]:
    """Paired differences in words by measure, and sentences on what could not be compared."""
    if run.before is None or run.after is None:
        return {}, [run.missing_evaluations]
    try:
        compared = run.comparison
    except Absent as absent:
        return {}, [str(absent)]
    unpaired = len(compared.only_a) + len(compared.only_b)
    about = [f"{unpaired:,} captions without a partner are left out of differences."] if unpaired else []
    about += [f"{sentence}." for sentence in compared.left_out]
    return {row.measure: row.verdict for row in compared.differences}, about


def row(label: labels.Label, before: Interval | None, after: Interval | None, verdict: str) -> Row:
    """One measure: both values on one axis, and a verdict as `written_change` makes it."""
    ends = [
        x for cell in (before, after) if cell for x in (cell.low, cell.value, cell.high) if math.isfinite(x)
    ]
    low, high = (0.0, 1.0) if label.form == "share" else (min([0.0, *ends]), max([0.0, *ends]))
    words, _, change = verdict.partition(": ")

    def cell(interval: Interval | None) -> Cell | None:
        if interval is None:
            return None
        lower, value, upper = (
            round(100 * (x - low) / (high - low), 2) if math.isfinite(x) and high > low else 0.0
            for x in (interval.low, interval.value, interval.high)
        )
        known = math.isfinite(interval.low)
        between = f"{label.text(interval.low)} to {label.text(interval.high)}" if known else ""
        return Cell(label.text(interval.value), between, lower, value, upper)

    return Row(label.title, cell(before), cell(after), labels.signed(words), labels.signed(change))


def _captions_of(evaluation: Evaluation) -> str:
    return f"{len(evaluation.rows):,} captions of {evaluation.data or 'unnamed data'}"


def _value(evaluation: Evaluation | None, name: str) -> float:
    interval = evaluation.summary.get(name) if evaluation else None
    return math.nan if interval is None else interval.value
