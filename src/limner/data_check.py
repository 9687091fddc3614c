"""Looks at every item of data sources before anything is trained on them, and says what cannot be used."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from limner import config
from limner.data import mixture
from limner.data.annotations import Wrong
from limner.data.annotations_source import Listed
from limner.data.base import Source
from limner.data.batches import read_ahead
from limner.data.named import built
from limner.data.qa_rows import REJECTED
from limner.data.rows import line_of
from limner.errors import Reject, UserError
from limner.questions import questions_of
from limner.types import Sample

READERS = 4
"""Threads that open images, and processes that decode videos."""
SHOWN = 20
"""Findings below the table."""
_SECTIONS = ("data", "evaluate.data", "evaluate.test")


@dataclass(frozen=True)
class Finding:
    """One item that cannot be used."""

    source: str
    """The section of the recipe: `data`, `evaluate.test`, `data.parts.webvid`."""
    id: str
    """The item, or the row of a file."""
    kind: str
    """What is wrong, in one of the words of `limner.data.annotations.Kind`, "annotations" where the files of
    a whole source cannot be used, or "question" where one question of a usable item cannot."""
    reason: str
    """What exactly."""

    def row(self) -> dict[str, object]:
        """As a row of rejects.jsonl."""
        return {"id": self.id, "reason": self.reason, "kind": self.kind, "source": self.source}


@dataclass(frozen=True)
class Checked:
    """What was found in one source. `items` is `usable` plus the findings, always."""

    where: str
    """The section of the recipe."""
    source: str
    """The source in a few words."""
    usable: int
    """Items that can be used."""
    references: int
    """Reference captions of these."""
    findings: tuple[Finding, ...]
    """All others: rejected items, and media that no annotation file lists."""
    questions: int = 0
    """Questions about the usable items that can be asked."""
    unasked: tuple[Finding, ...] = ()
    """Questions about usable items that cannot be."""

    @property
    def items(self) -> int:
        """Everything that is listed or there."""
        return self.usable + len(self.findings)

    @property
    def kinds(self) -> Mapping[str, int]:
        """How often each kind was found."""
        return Counter(finding.kind for finding in (*self.findings, *self.unasked))

    def plain(self) -> dict[str, object]:
        """As JSON, without the findings themselves."""
        return {
            "where": self.where, "source": self.source, "in": self.items, "usable": self.usable,
            "references": self.references, "rejected": len(self.findings), "kinds": dict(self.kinds),
            "questions": self.questions, "rejected_questions": len(self.unasked),
        }  # fmt: skip


def check(
    sources: Mapping[str, Source], *, quick: bool = False, bar: Progress | None = None
) -> list[Checked]:
    """Look at every item of some sources; a mixture is looked at part by part.

    Args:
        sources: data sources by the section of a recipe that they stand in.
        quick: do not open the media of annotated sources, only look whether they are there.
        bar: shows how far it is.
    """
    named = [pair for where, source in sources.items() for pair in _parts(where, source)]
    unlisted = _unlisted([source for _, source in named])
    return [
        _check(where, source, unlisted.pop(id(source), []), quick=quick, bar=bar) for where, source in named
    ]


def _check(
    where: str, source: Source, strays: Sequence[Path], *, quick: bool, bar: Progress | None
) -> Checked:
    try:
        ids = source.ids()
    except UserError as error:
        lost = Finding(where, str(source), "annotations", " ".join(str(error).split()))
        return Checked(where, str(source), 0, 0, (lost,))
    findings: list[Finding] = []
    unasked: list[Finding] = []
    usable = references = questions = 0
    task = bar.add_task(where, total=len(ids)) if bar is not None else None
    for id, result in zip(ids, _results(source, len(ids), quick=quick), strict=True):
        if isinstance(result, Reject):
            kind = result.kind if isinstance(result, Wrong) else "broken"
            findings.append(Finding(where, id, kind, result.reason))
        else:
            usable, references, questions = (
                usable + 1,
                references + result.references,
                questions + result.asked,
            )
            unasked += [Finding(where, id, "question", reason) for reason in result.unasked]
        if bar is not None and task is not None:
            bar.advance(task)
    for path in strays:
        findings.append(Finding(where, path.name, "not listed", f"there and not listed: {path}"))
    return Checked(where, str(source), usable, references, tuple(findings), questions, tuple(unasked))


class _Usable(NamedTuple):
    """What is counted of a usable item."""

    references: int
    asked: int = 0
    unasked: tuple[str, ...] = ()

    @classmethod
    def of(cls, sample: Sample) -> _Usable:
        wrong = sample.extra.get(REJECTED)
        unasked = tuple(map(str, wrong)) if isinstance(wrong, tuple) else ()
        return cls(len(sample.references), len(questions_of(sample)), unasked)


def _results(source: Source, count: int, *, quick: bool) -> Iterator[_Usable | Reject]:
    """For every item what is counted of it, or why it cannot be used."""
    if quick and isinstance(source, Listed):
        for index in range(count):
            try:
                yield _Usable(len(source.look(index)[1].references))
            except Reject as reject:
                yield reject
        return
    with closing(read_ahead(source, range(count), workers=READERS, ahead=4 * READERS)) as items:
        for item in items:
            yield item.result if isinstance(item.result, Reject) else _Usable.of(item.result)


def _parts(where: str, source: Source) -> Iterator[tuple[str, Source]]:
    if isinstance(source, mixture.Source):
        for name, part in source.parts.items():
            yield from _parts(f"{where}.parts.{name}", part)
    else:
        yield where, source


def _unlisted(sources: Sequence[Source]) -> dict[int, list[Path]]:
    """Media that no source lists, under the id() of the first source that found them."""
    found: dict[Path, list[int]] = {}
    looked: list[tuple[int, set[Path]]] = []
    for source in sources:
        if isinstance(source, Listed):
            try:
                strays = source.strays()
                looked.append((id(source), {folder.absolute() for folder in source.folders}))
            except UserError:  # said when its ids are asked for
                continue
            for path in strays:
                found.setdefault(path.absolute(), []).append(id(source))
    first: dict[int, list[Path]] = {}
    for path, finders in sorted(found.items()):
        # WebVid's videos lie one folder further down.
        lookers = [name for name, folders in looked if folders & {path.parent, path.parent.parent}]
        if set(lookers) <= set(finders):
            first.setdefault(finders[0], []).append(path)
    return first


def check_command(
    given: Sequence[str], *, quick: bool = False, out: Path | None = None, as_json: bool = False
) -> bool:
    """What `limner data check` does: look, print a table or JSON, write the file.

    Args:
        given: a recipe and settings on top, or the settings of one data source: `kind=msrvtt path=...`.
        quick: do not open media.
        out: JSONL file for all findings.
        as_json: print JSON.

    Returns:
        Whether everything can be used.

    Raises:
        UserError: no such recipe or source, or the recipe names no data.
    """
    sources = _sources(given)
    console = Console(stderr=True)
    with Progress(console=console, transient=True) as bar:
        checked = check(sources, quick=quick, bar=bar)
    findings = [finding for one in checked for finding in (*one.findings, *one.unasked)]
    if out is not None:
        _write(out, findings)
    if as_json:
        rows = [finding.row() for finding in findings]
        plain = {"ok": not findings, "sources": [one.plain() for one in checked], "rejects": rows}
        sys.stdout.write(json.dumps(plain) + "\n")
    else:
        _print(checked, findings, out, quick=quick)
    return not findings


def _sources(given: Sequence[str]) -> dict[str, Source]:
    if "=" in given[0]:
        return {"data": built(given)}
    recipe = config.load(given[0], given[1:], complete=False)
    sections = (recipe.data, recipe.evaluate.data, recipe.evaluate.test)
    found = {where: source for where, source in zip(_SECTIONS, sections, strict=True) if source is not None}
    if not found:
        raise UserError(f"{given[0]}: names no data; give it: data.path=...")
    return found


def _write(out: Path, findings: Sequence[Finding]) -> None:
    beside = out.with_name(out.name + ".partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text("".join(line_of(finding.row()) for finding in findings), encoding="utf8")
        beside.replace(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from error


def _print(checked: Sequence[Checked], findings: Sequence[Finding], out: Path | None, *, quick: bool) -> None:
    console = Console()
    kinds = sorted({kind for one in checked for kind in one.kinds})
    table = Table(title="only looked at, not opened" if quick else None)
    table.add_column("section", no_wrap=True)
    table.add_column("source", overflow="fold")
    asked = ["questions"] if any(one.questions for one in checked) else []
    for column in ("in", "usable", "captions", *asked, *kinds):
        table.add_column(column, justify="right", no_wrap=True)
    for one in checked:
        questions = [one.questions] if asked else []
        found = (one.kinds.get(kind, 0) for kind in kinds)
        counts = (one.items, one.usable, one.references, *questions, *found)
        table.add_row(escape(one.where), escape(one.source), *map(str, counts))
    console.print(table)
    for finding in findings[:SHOWN]:
        console.print(f"{finding.source}: {finding.id}: {finding.reason}", markup=False, soft_wrap=True)
    if len(findings) > SHOWN and out is None:
        console.print(f"and {len(findings) - SHOWN} more; -o rejects.jsonl writes them all")
    if out is not None:
        console.print(f"{len(findings)} written to {out}", markup=False)
    if not findings:
        console.print("everything can be used")
