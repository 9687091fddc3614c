"""What Prism found: scores of every question, the numbers of every set with intervals, as table and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from rich import box
from rich.table import Table
from rich.text import Text

from limner.errors import UserError
from limner.evaluation import number, write_whole
from limner.metrics.bootstrap import Compound, Interval, Ratio, Summed, intervals

Floats = npt.NDArray[np.float64]
MACRO = "mean over sets"
"""Title of the last row of tables."""


@dataclass(frozen=True)
class Scored:
    """One question with what its n captions let the answerer say."""

    id: str
    """SET/ROW."""
    scores: tuple[float, ...]
    """(n,) 0..1; NaN where a caption or an answer is missing."""
    answers: tuple[str | None, ...]
    """(n,) what was read out of each reply; None where nothing was found or there is no reply."""
    published: tuple[float, ...] = ()
    """(n,) the published scorer's, where it was asked for."""

    @property
    def mean(self) -> float:
        """Over the answers that there are; NaN where there is none."""
        return _mean(self.scores)

    @property
    def best(self) -> float:
        """Best of n; NaN where an answer is missing that could have been better."""
        return _best(self.scores)


@dataclass(frozen=True)
class SetResult:
    """The numbers of one set."""

    name: str
    """Of the set."""
    title: str
    """As tables name it."""
    questions: tuple[Scored, ...]
    """Those that were asked."""
    rejected: int
    """Rows of its file that cannot be asked."""
    summary: Mapping[str, Interval]
    """"mean" (M_acc) and "best" (BoN) with intervals; "published_mean" and "published_best"."""

    @property
    def unscored(self) -> int:
        """Answers that are missing."""
        return sum(math.isnan(score) for question in self.questions for score in question.scores)

    @property
    def unread(self) -> int:
        """Replies in which no answer was found; they count as wrong."""
        return sum(
            answer is None and not math.isnan(score)
            for question in self.questions
            for answer, score in zip(question.answers, question.scores, strict=True)
        )


@dataclass(frozen=True)
class PrismResult:
    """All sets."""

    model: str
    """Who wrote the captions."""
    answerer: str
    """Who answered."""
    captions: int
    """n, captions an image."""
    sets: tuple[SetResult, ...]
    """In the order given."""
    macro: Mapping[str, Interval]
    """The mean over sets, by the names of their summaries."""
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    """Images, and captions that failed."""
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    """How captions were written and questions asked."""
    environment: Mapping[str, object] = field(default_factory=dict[str, object])
    """What it ran on."""
    errors: Mapping[str, int] = field(default_factory=dict[str, int])
    """Why answers are missing, and how many, the most frequent first."""

    def table(self) -> Table:
        """For the terminal; per cent."""
        title = Text(f"Prism: {self.model}, answered by {self.answerer}, {self.captions} captions an image")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        both = "published_mean" in self.macro
        heads = ["mean, 95% interval", f"best of {self.captions}", *(["published"] if both else [])]
        for head in ["set", *heads, "questions"]:
            table.add_column(head, justify="left" if head == "set" else "right")
        for made in self.sets:
            table.add_row(Text(made.title), *_cells(made.summary, both), _counted(made))
        if len(self.sets) > 1:
            table.add_row(MACRO, *_cells(self.macro, both), "", style="bold")
        table.caption, table.caption_justify = Text("\n".join(self.notes())), "left"
        return table

    def notes(self) -> list[str]:
        """Sentences about what is not scored or could not be read."""
        said: list[str] = []
        unread, unscored = (sum(getattr(made, name) for made in self.sets) for name in ("unread", "unscored"))
        if unread:
            said.append(f"in {unread} replies no answer was found; they count as wrong")
        if unscored:
            said.append(f"{unscored} answers are missing and left out; the same command asks for them again")
            said += [f"  {count} x {error}" for error, count in list(self.errors.items())[:3]]
        if any(made.rejected for made in self.sets):
            said.append("rejects.jsonl names the rows that cannot be asked")
        return said

    def plain(self) -> dict[str, object]:
        """For JSON; NaN is null."""
        return {
            "model": self.model,
            "answerer": self.answerer,
            "captions": self.captions,
            "macro": _plain(self.macro),
            "sets": {made.name: _plain_set(made) for made in self.sets},
            "counts": dict(self.counts),
            "errors": dict(self.errors),
            "settings": dict(self.settings),
            "environment": dict(self.environment),
        }

    def save(self, path: Path) -> None:
        """Write `plain` as JSON, whole or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        write_whole(path, json.dumps(self.plain(), ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, or is no result of Prism.
        """
        try:
            return cls.of(json.loads(path.read_text(encoding="utf8")))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: is not a file of `limner evaluate prism`: {error}") from error

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        """From `plain`.

        Raises:
            KeyError, TypeError, AttributeError: it is something else.
        """
        sets = tuple(_read_set(name, row) for name, row in value["sets"].items())
        return cls(
            value["model"], value["answerer"], value["captions"], sets, _read(value["macro"]),
            value["counts"], value["settings"], value["environment"], value.get("errors", {}),
        )  # fmt: skip


def summed_up(questions: Sequence[Scored], *, seed: int = 0) -> dict[str, Interval]:
    """The numbers of a set with 95% intervals, resampling its questions."""
    return intervals({name: Ratio.mean(column) for name, column in _columns(questions).items()}, seed=seed)


def macro(sets: Sequence[Sequence[Scored]], *, seed: int = 0) -> dict[str, Interval]:
    """The mean over sets with 95% intervals, resampling the questions of all sets together."""
    columns = [_columns(questions) for questions in sets]
    measures: dict[str, Summed] = {
        name: _mean_of_means([column[name] for column in columns]) for name in (columns[0] if columns else ())
    }
    return intervals(measures, seed=seed)


def _columns(questions: Sequence[Scored]) -> dict[str, Floats]:
    columns = {"mean": [q.mean for q in questions], "best": [q.best for q in questions]}
    if any(q.published for q in questions):
        columns["published_mean"] = [_mean(q.published) for q in questions]
        columns["published_best"] = [_best(q.published) for q in questions]
    return {name: np.array(values, dtype=np.float64) for name, values in columns.items()}


def _mean_of_means(columns: Sequence[Floats]) -> Compound:
    """Sets without a scored question are left out."""
    used = [column for column in columns if not np.isnan(column).all()]
    counts = np.zeros((sum(map(len, used)), 2 * len(used)))
    start = 0
    for place, column in enumerate(used):
        rows = slice(start, start + len(column))
        counts[rows, 2 * place], counts[rows, 2 * place + 1] = column, np.where(np.isnan(column), np.nan, 1.0)
        start += len(column)

    def mean(sums: Floats) -> Floats:
        values, drawn = sums[:, 0::2], sums[:, 1::2]
        means = np.divide(values, drawn, out=np.full(values.shape, np.nan), where=drawn > 0)
        # NaN where a set was not drawn: such a resample is left out
        return means.mean(1) if used else np.full(len(sums), np.nan)

    return Compound(counts, mean)


def _mean(scores: Sequence[float]) -> float:
    kept = [score for score in scores if not math.isnan(score)]
    return sum(kept) / len(kept) if kept else math.nan


def _best(scores: Sequence[float]) -> float:
    kept = [score for score in scores if not math.isnan(score)]
    best = max(kept, default=math.nan)
    return best if len(kept) == len(scores) or best == 1.0 else math.nan


def _cells(summary: Mapping[str, Interval], both: bool) -> list[str]:
    cells = [
        f"{_percent(made.value)} [{_percent(made.low)}, {_percent(made.high)}]" if made.n else "-"
        for made in (summary["mean"], summary["best"])
    ]
    if both:
        cells.append(" / ".join(_percent(summary[f"published_{name}"].value) for name in ("mean", "best")))
    return [cell.replace(" [", "\N{NO-BREAK SPACE}[").replace(", ", ",\N{NO-BREAK SPACE}") for cell in cells]


def _counted(made: SetResult) -> str:
    counts = {"unscored": made.unscored, "rejected": made.rejected}
    return ", ".join([str(len(made.questions)), *(f"{n} {word}" for word, n in counts.items() if n)])


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else "-"


def _plain_set(made: SetResult) -> dict[str, object]:
    rows = [
        {"id": q.id, "scores": [*map(number, q.scores)], "answers": list(q.answers)}
        | ({"published": [*map(number, q.published)]} if q.published else {})
        for q in made.questions
    ]
    counts = {"unscored": made.unscored, "unread": made.unread, "rejected": made.rejected}
    return {"title": made.title, **_plain(made.summary), **counts, "questions": rows}


def _plain(summary: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {
        name: {key: number(value) for key, value in asdict(made).items()} for name, made in summary.items()
    }


def _read_set(name: str, row: Mapping[str, Any]) -> SetResult:
    questions = tuple(
        Scored(q["id"], _floats(q["scores"]), tuple(q["answers"]), _floats(q.get("published", ())))
        for q in row["questions"]
    )
    summary = _read({key: value for key, value in row.items() if isinstance(value, dict)})
    return SetResult(name, row["title"], questions, row["rejected"], summary)


def _read(summary: Mapping[str, Mapping[str, float | None]]) -> dict[str, Interval]:
    found: dict[str, Interval] = {}
    for name, made in summary.items():
        value, low, high = _floats([made["value"], made["low"], made["high"]])
        found[name] = Interval(value, low, high, int(made["n"] or 0))
    return found


def _floats(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in values)
