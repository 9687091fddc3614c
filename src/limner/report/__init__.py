"""The report of a run: one self-contained HTML file to look at. Sections that can't be shown say why."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from limner.errors import UserError
from limner.report import about, curves, gallery, heat, measured, questions, watched
from limner.report.files import Absent, RunFiles

SECTIONS: dict[str, Callable[[RunFiles], Any]] = {
    "headline": measured.headline,
    "state": about.state,
    "table": measured.table,
    "gallery": gallery.build,
    "questions": questions.build,
    "curves": curves.build,
    "times": about.times,
    "heat": heat.build,
    "watched": watched.build,
    "rejects": watched.rejects,
    "recipe": about.recipe,
    "environment": about.environment,
}
"""What the page is made of, by the name in the template."""

MARKS = ("resolved.json", "recipe.yaml", "metrics.jsonl", "evaluation", "samples")
"""A folder with none of these is no run."""


@dataclass(frozen=True)
class Section:
    """A part of the page, or why it is left out."""

    content: Any
    """What the template draws; None where it is left out."""
    reason: str
    """One line; empty where there is content."""


def write(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run, finished or not.

    Args:
        run: a run directory.
        out: the HTML file; `report.html` in the run where None.

    Returns:
        The file.

    Raises:
        UserError: the folder is no run, or the file cannot be written.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; give the folder of a run, as `limner train` names it")
    if not any((run / name).exists() for name in MARKS):
        raise UserError(f"{run}: is not the folder of a run: it holds none of {', '.join(MARKS)}")
    out = out or run / "report.html"
    beside = out.with_name(out.name + ".writing")
    try:
        beside.write_text(page(run), encoding="utf-8", errors="replace")
        os.replace(beside, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    return out


def page(run: Path) -> str:
    """The report as HTML. It loads nothing: all it needs is inside, and its policy forbids the rest."""
    files = RunFiles(run)
    loader = PackageLoader("limner.report", "page")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    style = Markup("").join(_own(environment, name) for name in ("style.css", "questions.css"))
    script = _own(environment, "script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.jinja").render(
        name=run.resolve().name,
        version=metadata.version("limner"),
        style=style,
        script=script,
        script_digest=digest,
        chart=curves,
        **{name: _section(build, files) for name, build in SECTIONS.items()},
    )


def _section(build: Callable[[RunFiles], Any], files: RunFiles) -> Section:
    try:
        return Section(build(files), "")
    except Absent as absent:
        return Section(None, str(absent))


def _own(environment: Environment, name: str) -> Markup:
    """A file of this package, put into the page as it is: nothing of the run is in it."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])
