"""Compares two evaluations of the same images, pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from limner.errors import UserError
from limner.evaluation import Evaluation, number
from limner.metrics.bootstrap import Interval, Summed, intervals, paired
from limner.metrics.captions import caption_measures
from limner.metrics.coco import CIDER
from limner.metrics.measures import GROUPS, MEASURES, ratios, written, written_change

NAMED = 3
"""Ids named in a message."""
OVER_THE_SET = ("distinct_captions", "vocabulary")
"""Row values that depend on the other rows; known again from the captions."""

OF_THE_SET = (
    (GROUPS["clip_recall"], "clip_recall", "captions were looked up among different images"),
    (GROUPS["diversity"], "diversity", "captions were held against those of different images"),
    (CIDER, "CIDEr", "words were weighed by the references of different images"),
)
"""Measures of an image that depend on the other images: names, what they are together, and why."""


@dataclass(frozen=True)
class Difference:
    """One measure in both evaluations."""

    measure: str
    """Its name."""
    a: float
    """Its value in the first, over the images both share."""
    b: float
    """Its value in the second."""
    change: Interval
    """b - a with its paired 95% interval."""
    verdict: str
    """The same in words: "clearly higher: +61.2 points [59.0, 63.1]"."""


@dataclass(frozen=True)
class Comparison:
    """All measures that two evaluations share."""

    a: str
    """Who wrote the first captions."""
    b: str
    """Who wrote the second ones."""
    images: int
    """Images in both."""
    only_a: tuple[str, ...]
    """Ids that only the first has; left out."""
    only_b: tuple[str, ...]
    """Ids that only the second has; left out."""
    differences: tuple[Difference, ...]
    """One a measure, in the order of tables."""
    left_out: tuple[str, ...]
    """Sentences about measures that cannot be compared."""

    def table(self) -> Table:
        """For the terminal."""
        title = Text(f"A: {self.a}\nB: {self.b}\n{self.images} images")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.caption, table.caption_justify = Text("\n".join(self.left_out)), "left"
        table.add_column("measure")
        table.add_column("A", justify="right", no_wrap=True)
        table.add_column("B", justify="right", no_wrap=True)
        table.add_column("B - A, 95% interval", no_wrap=True)
        for row in self.differences:
            values = written(row.measure, row.a), written(row.measure, row.b)
            table.add_row(MEASURES[row.measure].title, *values, Text(row.verdict))
        return table

    def plain(self) -> dict[str, Any]:
        """For JSON; NaN is null."""
        differences = [
            {
                "measure": row.measure,
                "a": number(row.a),
                "b": number(row.b),
                "change": {name: number(value) for name, value in asdict(row.change).items()},
                "verdict": row.verdict,
            }
            for row in self.differences
        ]
        return asdict(self) | {"differences": differences}


def compare(a: Path, b: Path, *, allow_missing: bool = False, seed: int = 0) -> Comparison:
    """Compare two files of `limner evaluate`.

    Args:
        a: the first, for example before training.
        b: the second; differences are b - a.
        allow_missing: compare the images that both have, where the two have not the same ones.
        seed: of the bootstrap.

    Raises:
        UserError: a file cannot be read, or the two are not of the same images.
    """
    first, second = Evaluation.load(a), Evaluation.load(b)
    only_a = tuple(id for id in first.ids if id not in set(second.ids))
    only_b = tuple(id for id in second.ids if id not in set(first.ids))
    shared = [id for id in first.ids if id in set(second.ids)]
    if not shared or ((only_a or only_b) and not allow_missing):
        raise UserError(_other_images(a, b, only_a, only_b, len(shared)))
    left_out = _left_out(first, second, whole=not only_a and not only_b)
    left, right = (_measured(evaluation, shared) for evaluation in (first, second))
    names = [name for name in MEASURES if name in left and name in right and name not in left_out]
    left, right = ({name: side[name] for name in names} for side in (left, right))
    changes = paired(left, right, seed=seed)
    differences = tuple(_difference(name, left[name], right[name], changes[name]) for name in names)
    titles = first.model or str(a), second.model or str(b)
    reasons = tuple(dict.fromkeys(left_out.values()))
    return Comparison(*titles, len(shared), only_a, only_b, differences, reasons)


def _measured(evaluation: Evaluation, ids: Sequence[str]) -> dict[str, Summed]:
    """The measures of the given images, in that order."""
    place = {id: number for number, id in enumerate(evaluation.ids)}
    chosen = [place[id] for id in ids]
    columns = {name: values[chosen] for name, values in evaluation.columns().items()}
    if len(chosen) < len(evaluation.rows):
        again = caption_measures([evaluation.rows[number].caption for number in chosen])
        columns |= {name: again[name] for name in OVER_THE_SET if name in columns}
    return ratios(columns)


def _left_out(first: Evaluation, second: Evaluation, *, whole: bool) -> dict[str, str]:
    """Why measures cannot be compared, by measure."""
    wrong: list[tuple[Sequence[str], str]] = []
    for group, judge in (("clip_recall", "clip"), ("clip_score", "clip"), ("itm", "itm")):
        models = first.settings.get(judge), second.settings.get(judge)
        if None not in models and models[0] != models[1]:
            reason = f"{group} is not compared: measured with {models[0]} and with {models[1]}"
            wrong.append((GROUPS[group], reason))
    unlike = _unlike(first.settings.get("qa"), second.settings.get("qa"))
    if unlike:
        wrong.append((GROUPS["qa"], f"qa is not compared: asked in two ways, unlike in {', '.join(unlike)}"))
    if not whole:
        wrong += [(names, f"{what} is not compared: {why}") for names, what, why in OF_THE_SET]
    reasons: dict[str, str] = {}
    for names, reason in wrong:
        if any(name in first.summary and name in second.summary for name in names):
            reasons |= dict.fromkeys(names, reason)
    for name in MEASURES:
        if (name in first.summary) != (name in second.summary):
            holder = first if name in first.summary else second
            reasons[name] = f"{name} is not compared: only in the evaluation of {holder.model}"
    return reasons


def _unlike(first: Any, second: Any) -> list[str]:
    """Settings of two mappings that differ; none where one of them is no mapping."""
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return []
    return [key for key in {**first, **second} if first.get(key) != second.get(key)]


def _difference(name: str, a: Summed, b: Summed, change: Interval) -> Difference:
    both = a.scored & b.scored
    values = intervals({"a": a.only(both), "b": b.only(both)}, resamples=0)
    return Difference(name, values["a"].value, values["b"].value, change, written_change(name, change))


def _other_images(a: Path, b: Path, only_a: Sequence[str], only_b: Sequence[str], shared: int) -> str:
    lines = [f"{a} and {b} are not of the same images: {shared} are in both"]
    for path, ids in ((a, only_a), (b, only_b)):
        if ids:
            more = ", ..." if len(ids) > NAMED else ""
            lines.append(f"  {len(ids)} only in {path}: {', '.join(ids[:NAMED])}{more}")
    if shared:
        lines.append("  --allow-missing compares those that are in both")
    return "\n".join(lines)
