"""What `limner score` found: the values of each image and of the corpus, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich import box
from rich.table import Table
from rich.text import Text

from limner.evaluation import number, write_whole
from limner.metrics.bootstrap import Interval
from limner.metrics.measures import MEASURES, written, written_change, written_interval
from limner.score_files import some

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class System:
    """The captions of one file, measured."""

    name: str
    """The file."""
    columns: Mapping[str, Floats]
    """(N,) values by measure, an image each; with BLEU also its counts."""
    summary: Mapping[str, Interval]
    """The values of the corpus."""


@dataclass(frozen=True)
class Scored:
    """One or two systems measured on the same images."""

    ids: tuple[str, ...]
    """Ids of the N images."""
    systems: tuple[System, ...]
    """One, or two."""
    changes: Mapping[str, Interval]
    """Of two systems: second minus first, with paired intervals."""
    missing: tuple[str, ...]
    """Ids that have references and lack a caption; left out."""
    surplus: tuple[str, ...]
    """Ids that have a caption and no references; left out."""
    empty: tuple[str, ...]
    """Ids with a caption of no words, scored as it is."""
    settings: Mapping[str, object]
    """How it was measured."""

    def plain(self) -> dict[str, object]:
        """For JSON; NaN is null. Two systems stand under "a" and "b", beside "change"."""
        parts = [self._plain(system) for system in self.systems]
        found: dict[str, object] = dict(parts[0])
        if len(parts) > 1:
            changes = {
                name: {key: number(value) for key, value in asdict(change).items()}
                | {"verdict": written_change(name, change)}
                for name, change in self.changes.items()
            }
            found = {"a": parts[0], "b": parts[1], "change": changes}
        return found | {
            "missing": list(self.missing),
            "surplus": list(self.surplus),
            "empty": list(self.empty),
            "settings": dict(self.settings),
        }

    def _plain(self, system: System) -> dict[str, object]:
        images = {
            id: {name: number(float(system.columns[name][place])) for name in system.summary}
            for place, id in enumerate(self.ids)
        }
        return {
            "corpus": {name: number(made.value) for name, made in system.summary.items()},
            "intervals": {
                name: [number(made.low), number(made.high)] for name, made in system.summary.items()
            },
            "images": images,
        }

    def table(self) -> Table:
        """For the terminal."""
        names = [system.name for system in self.systems]
        if len(names) > 1:
            names = [f"{letter}: {name}" for letter, name in zip("AB", names, strict=True)]
        title = Text("\n".join([*names, f"{len(self.ids)} images"]))
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.caption, table.caption_justify = Text("\n".join(self._notes())), "left"
        table.add_column("measure")
        for head in (
            ("A", "B", "B - A, 95% interval") if self.changes else ("value", "95% interval", "images")
        ):
            table.add_column(head, justify="left" if head.startswith("B -") else "right", no_wrap=True)
        for name, made in self.systems[0].summary.items():
            if self.changes:
                other = self.systems[1].summary[name].value
                cells = (
                    written(name, made.value),
                    written(name, other),
                    written_change(name, self.changes[name]),
                )
            else:
                cells = written(name, made.value), written_interval(name, made), str(made.n)
            table.add_row(MEASURES[name].title, *map(Text, cells))
        return table

    def save(self, path: Path) -> None:
        """Write `plain` as JSON, whole or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        write_whole(path, json.dumps(self.plain(), ensure_ascii=False, indent=1) + "\n")

    def _notes(self) -> Iterator[str]:
        if self.missing:
            yield f"left out, without a caption: {some(self.missing, 'image')}"
        if self.surplus:
            yield f"left out, without references: {some(self.surplus, 'image')}"
        if self.empty:
            yield f"captions of no words, scored as they are: {some(self.empty, 'image')}"
