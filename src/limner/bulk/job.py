"""A job: what is not captioned yet goes through an engine, and what comes out is written, each item once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from limner.bulk.engine import CONTENT, Engine, Outcome, Text
from limner.bulk.journal import Journal
from limner.bulk.output_column import Column
from limner.bulk.outputs import Output, relative
from limner.bulk.progress import Progress
from limner.bulk.sidecars import Sidecars
from limner.data.base import Source
from limner.data.rejects import RejectLog
from limner.data.rows import Row
from limner.errors import UserError

_log = logging.getLogger("limner.bulk")


@dataclass(frozen=True)
class CaptionReport:
    """What a captioning job did."""

    written: int
    """Captions written now."""
    skipped_existing: int
    """Images and videos whose caption stood in the output already."""
    rejected: int
    """Images and videos that cannot be used; `rejects.jsonl` beside the output names them."""
    sidecars_kept: int
    """Text files beside them that held something else and were left alone."""

    @property
    def in_vain(self) -> bool:
        """Whether there was something to caption and there is no caption, not of an earlier job either."""
        return self.rejected > 0 and self.written + self.skipped_existing == 0

    def __str__(self) -> str:
        """The counts, for people."""
        text = f"{self.written} captions written"
        if self.skipped_existing:
            text += f", {self.skipped_existing} were there already"
        if self.rejected:
            text += f", {self.rejected} rejected (rejects.jsonl says why)"
        if self.sidecars_kept:
            text += f", {self.sidecars_kept} text files that hold something else left alone"
        return text


def run(
    source: Source,
    output: Output,
    engine: Callable[[dict[str, str]], Engine],
    *,
    sidecars: Sidecars | None = None,
    resume: str = "",
    price: tuple[float, float] | None = None,
) -> CaptionReport:
    """Caption what has no caption yet.

    The order is what makes every item end once in the output or the rejects, whenever the process is
    killed: rows reach the journal first, and everything else is made from it, then or by the next job.

    Args:
        source: the items.
        output: where captions go.
        engine: makes what captions, given the captions by what images look like that are known; called only
            if there is something to do.
        sidecars: text files beside the images.
        resume: the command that goes on with the job, for messages.
        price: of a million tokens read and written at an endpoint, for the estimate of what the job costs.

    Raises:
        UserError: nothing to read, an output that cannot be written, or an engine that cannot go on.
    """
    ids = source.ids()
    rejects_file = output.out.with_name("rejects.jsonl")
    if output.journal == rejects_file or output.out == rejects_file:
        raise UserError(
            f"{output.out}: is where what was rejected is named; choose another name for the captions"
        )
    output.check()
    looks: dict[str, str] = {}

    def seen(row: Row) -> None:
        look = row.get(CONTENT)
        if isinstance(look, str):
            looks[look] = str(row["caption"])
        output.seen(row)
        if sidecars is not None:
            sidecars.seen(row)

    with _resumable(resume), closing(Journal(output.journal, each=seen)) as journal:
        rejects = RejectLog(rejects_file)
        rejects.forget(journal.done)
        there = output.there() if isinstance(output, Column) else set()
        todo = [index for index, id in enumerate(ids) if id not in journal.done and id not in there]
        writing = _Writing(output, journal, rejects, sidecars)
        if todo:
            made = engine(looks)
            progress = Progress(output.out.name, total=len(ids), done=len(ids) - len(todo), price=price)
            with progress, closing(made.run(source, todo)) as groups:
                for outcomes in groups:
                    writing.add(outcomes)
                    progress.advance(len(outcomes), rejected=writing.rejected, tokens=made.tokens())
        rejects.forget(journal.done)
        output.finish(journal)
    kept = sidecars.kept if sidecars is not None else 0
    return CaptionReport(writing.written, len(ids) - len(todo), writing.rejected, kept)


class _Writing:
    """Writes outcomes, in the order that a kill cannot break."""

    def __init__(self, output: Output, journal: Journal, rejects: RejectLog, sidecars: Sidecars | None):
        self._output, self._journal, self._rejects, self._sidecars = output, journal, rejects, sidecars
        self._folder = os.path.realpath(output.out.parent)
        self.written = self.rejected = 0

    def add(self, outcomes: Sequence[Outcome]) -> None:
        rows: list[Row] = []
        for id, result, place in outcomes:
            if isinstance(result, Text):
                where = {kind: relative(file, self._folder) for kind, file in place.items()}
                rows.append({"id": id, "caption": result.caption, **where, **result.more})
            else:
                self._rejects.add(id, result.reason)
                self.rejected += 1
        self._journal.append(rows)
        self._output.add(rows)
        if self._sidecars is not None:
            self._sidecars.add(rows)
        self.written += len(rows)


@contextmanager
def _resumable(command: str) -> Iterator[None]:
    """A job that stops says how it is gone on with."""
    try:
        yield
    except UserError as error:
        if not command:
            raise
        raise UserError(f"{error}\nWhat is written stays. Go on with: {command}") from error
    except KeyboardInterrupt:
        if command:
            _log.warning("stopped; what is written stays. Go on with: %s", command)
        raise
