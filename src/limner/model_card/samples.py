"""Pictures of a run with captions for its card, evenly spaced over those that the evaluation looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.model_card.facts import Facts
from limner.report import images
from limner.report.files import Absent, RunFiles
from limner.report.gallery import spaced


@dataclass(frozen=True)
class Shown:
    """A picture and what was said of it."""

    picture: Path
    """A PNG file of the run's folder, no side longer than that of a page's picture."""
    before: str | None
    """By the model before training; None where that is not known."""
    after: str
    """By this model."""


def choose(run: Path, known: Facts, count: int) -> tuple[Shown, ...]:
    """At most `count` pictures; none where the run kept none of this checkpoint's."""
    files = RunFiles(run)
    found = _evaluated(files) if known.shown_from_evaluation else _drawn(files, known.step)
    places = spaced([str(place) for place in range(len(found))], count)
    return tuple(found[int(place)] for place in places)


def _evaluated(files: RunFiles) -> list[Shown]:
    """Captions of the test samples."""
    after, before = files.after, files.before
    first = {} if before is None else {row.id: row.caption for row in before.rows}
    folder = files.folder / "evaluation" / "images"
    rows = [] if after is None else after.rows
    made = [Shown(folder / images.file_name(row.id), first.get(row.id), row.caption) for row in rows]
    return [one for one in made if one.picture.is_file()]


def _drawn(files: RunFiles, step: int) -> list[Shown]:
    """Captions drawn in training at the checkpoint's step."""
    try:
        rows = [row for file in files.samples if file.step == step for row in file.rows]
    except Absent:
        return []
    return [Shown(path, None, str(row["caption"])) for row in rows if (path := _inside(files.folder, row))]


def _inside(run: Path, row: Any) -> Path | None:
    """The picture of a row; None where that is no file of the run."""
    folder = run / "samples"
    path = folder / str(row.get("image", ""))
    return path if path.resolve().is_relative_to(folder.resolve()) and path.is_file() else None
