"""What the run was made of: its state, where the time went, the recipe with origins, the environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import yaml

from limner.report import labels
from limner.report.files import Absent, RunFiles


@dataclass(frozen=True)
class Line:
    """One line of the recipe as YAML."""

    indent: int
    """Levels."""
    key: str
    """Without the colon."""
    value: str
    """As YAML; empty on a section."""
    origin: str
    """`default`, `FILE:LINE`, `command line`; empty on a section."""


@dataclass(frozen=True)
class Recipe:
    """The section."""

    given: tuple[Line, ...]
    """What was set, without defaults."""
    all: tuple[Line, ...]
    """Every value."""
    text: str
    """recipe.yaml as given, where the values cannot be read; else empty."""


@dataclass(frozen=True)
class Share:
    """Where time went."""

    name: str
    """Part of a step."""
    text: str
    """Seconds a step."""
    share: float
    """Of the step, 0..1."""


def state(run: RunFiles) -> tuple[str, ...]:
    """A few words each on how far the run is. Raises Absent where nothing was logged."""
    rows = run.metrics
    step, planned = int(rows[-1]["step"] or 0), run.setting("update.steps")
    said = []
    if isinstance(planned, int) and step < planned and run.stopped_by_alarm:
        said.append(f"ended by an alarm at step {step:,} of {planned:,}")
    elif isinstance(planned, int) and step < planned and run.stopped_early:
        said.append(f"{step:,} steps of at most {planned:,}: evaluations got no better")
    elif isinstance(planned, int) and step < planned:
        said.append(f"unfinished: step {step:,} of {planned:,}")
    else:
        said.append(f"{step:,} steps")
    captions = run.setting("update.captions")
    if isinstance(captions, int):
        said.append(f"{step * captions:,} captions drawn")
    said.append(labels.seconds(sum(row.get("seconds") or 0.0 for row in rows)))
    return tuple(said)


def times(run: RunFiles) -> tuple[Share, ...]:
    """Mean seconds a step of every part, the longest first. Raises Absent where nothing was logged."""
    rows = run.metrics
    keys = {key: None for row in rows for key in row if key.startswith("time/")}
    means = {key: fmean([v for row in rows if (v := row.get(key)) is not None] or [0.0]) for key in keys}
    total = sum(means.values())
    if not total:
        raise Absent("metrics.jsonl holds no times.")
    ordered = sorted(means, key=lambda key: -means[key])
    return tuple(
        Share(labels.label(key).title, labels.seconds(means[key]), means[key] / total) for key in ordered
    )


def recipe(run: RunFiles) -> Recipe:
    """The recipe with the origin of every value. Raises Absent where there is none."""
    source = run.folder / "recipe.yaml"
    if not (run.folder / "resolved.json").exists() and source.is_file():
        return Recipe((), (), source.read_text(encoding="utf-8", errors="replace"))
    settings = run.settings
    given = {path: row for path, row in settings.items() if row["origin"] != "default"}
    return Recipe(_yaml_lines(given), _yaml_lines(settings), "")


def environment(run: RunFiles) -> tuple[tuple[str, str], ...]:
    """(name, value) of environment.json, one level deep. Raises Absent."""
    rows: list[tuple[str, str]] = []
    for name, value in run.environment.items():
        if isinstance(value, Mapping):
            rows += [(str(key), _plain(inner)) for key, inner in value.items()]
        elif value is not None:
            rows.append((str(name), _plain(value)))
    return tuple(rows)


def _yaml_lines(settings: Mapping[str, Mapping[str, Any]]) -> tuple[Line, ...]:
    """Dotted paths as nested YAML, in the order in which their sections first appear."""
    lines: list[Line] = []
    open_sections: tuple[str, ...] = ()
    for path in sorted(settings, key=_section_order(list(settings))):
        *sections, key = path.split(".")
        for depth, section in enumerate(sections):
            if open_sections[: depth + 1] != tuple(sections[: depth + 1]):
                lines.append(Line(depth, section, "", ""))
        open_sections = tuple(sections)
        lines.append(Line(len(sections), key, _yaml(settings[path]["value"]), settings[path]["origin"]))
    return tuple(lines)


def _section_order(paths: list[str]):
    """Key that keeps the paths of a section together, sections in the order of their first path."""
    first: dict[str, int] = {}
    for place, path in enumerate(paths):
        names = path.split(".")
        for depth in range(1, len(names) + 1):
            first.setdefault(".".join(names[:depth]), place)
    return lambda path: [first[".".join(path.split(".")[:depth])] for depth in range(1, path.count(".") + 2)]


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n...\n").strip()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
