"""Runs as pieces of HTML, with everything escaped; the curves are the report's."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from limner.live.follow import Followed
from limner.live.table import REWARD, STYLES, alarms, left, pace, step
from limner.report import curves, heat, labels
from limner.report.files import Absent, RunFiles
from limner.report.watched import sentence

POINTS = 60
"""Places of a small course."""
Sample = tuple[heat.Drawn, str]


def all_runs(runs: Sequence[Followed], *, folder: str, chosen: str = "") -> str:
    """A table of runs; `folder` is its heading, `chosen` the name of the run that is marked."""
    counts = Counter(run.state.name for run in runs)
    said = ", ".join(f"{counts[name]} {name}" for name in STYLES if counts[name])
    return _environment().get_template("runs.html.jinja").render(
        runs=runs, folder=folder, said=said or "no runs yet", chosen=chosen,
        step=step, left=left, alarms=alarms, last=_last, course=_course,
    )  # fmt: skip


def one_run(run: Followed) -> str:
    """A run in depth: progress, alarms, curves, the captions drawn last with their pictures."""
    history, standing = run.history, run.history.standing
    spells = sorted(history.spells.items(), key=lambda item: item[0] not in standing)
    facts = [run.method, f"step {step(run)}"]
    facts += [f"{pace(run)} a step"] * bool(pace(run)) + [f"{left(run)} left"] * bool(left(run))
    drawn = None
    if len(history):
        drawn = curves.drawn(
            history.steps, history.columns(), chosen=_chosen(run.files), alarms=history.spells
        )
    at, samples, no_samples = _samples(run.files)
    return _environment().get_template("run.html.jinja").render(
        run=run, facts=[fact for fact in facts if fact],
        alarms=[(sentence(found), key in standing) for key, found in spells],
        curves=drawn, chart=curves, learning=curves.GROUPS[""],
        samples=samples, samples_step=at, no_samples=no_samples,
    )  # fmt: skip


def style() -> str:
    """What the pieces look like, inside of a Gradio page."""
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), "style.css")[0]


@functools.cache
def _environment() -> Environment:
    loader = ChoiceLoader([PackageLoader("limner.live", "template"), PackageLoader("limner.report", "page")])
    return Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )


@functools.lru_cache(maxsize=16)
def _samples(files: RunFiles) -> tuple[int, tuple[Sample, ...], str]:
    """Step and captions with pictures, or why there are none; kept until the run's files changed."""
    try:
        last = files.last_samples
    except Absent as absent:
        return 0, (), str(absent)
    except OSError as error:
        return 0, (), f"samples/ cannot be read: {error.strerror}."
    return last.step, tuple((heat.drawn(files, row), str(row.get("caption", ""))) for row in last.rows), ""


def _chosen(files: RunFiles) -> int | None:
    try:
        return files.chosen_step
    except (Absent, OSError):
        return None


def _last(run: Followed, key: str) -> str:
    return labels.label(key).text(run.history.last(key))


def _course(run: Followed, width: int, height: int) -> str:
    """The reward as a path: thinned by means, from edge to edge; empty before two values."""
    values = run.history.column(REWARD)
    seen = values[np.isfinite(values)]
    if len(seen) < 2:
        return ""
    means = np.array([part.mean() for part in np.array_split(seen, min(POINTS, len(seen)))])
    x = np.linspace(1, width - 1, len(means))
    y = height - 2 - (height - 4) * (means - means.min()) / (np.ptp(means) or 1.0)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
