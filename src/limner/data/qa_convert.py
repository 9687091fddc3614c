"""From one file of questions to another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from limner.data import caption_qa, qa_write
from limner.data.media import open_image
from limner.data.named import source as named
from limner.data.qa_rows import QuestionRow
from limner.data.rejects import RejectLog
from limner.errors import Reject, UserError


def convert(given: str, out: Path, *, form: qa_write.Form) -> str:
    """Write all usable rows of a source; the others are named in `OUT.rejects.jsonl`.

    Args:
        given: a file or folder of questions, or `kind=caption_qa ...`.
        out: the file.
        form: how rows look.

    Returns:
        What was done, for people.

    Raises:
        UserError: the source has no questions, none of its rows can be used, or the file cannot be written.
    """
    source = named(given) if given.startswith("kind=") else caption_qa.Source(path=given)
    if not isinstance(source, caption_qa.Source):
        raise UserError(f"{given}: has no questions; kind=caption_qa reads files that have")
    if out.resolve() == Path(source.path).resolve():
        raise UserError(f"{out}: is the file that is read; choose another name")
    rejects = out.with_name(out.name + ".rejects.jsonl")
    rejects.unlink(missing_ok=True)
    log = RejectLog(rejects)
    rows = _rows(source, log)
    first = next(rows, None)  # before anything is written over
    if first is None:
        raise UserError(f"{given}: not one row can be used; {rejects} says why")
    count = qa_write.write(chain([first], rows), out, form=form)
    return f"{count:,} rows written, {log.count:,} rows and questions rejected" + (
        f" ({rejects.name} says why)" if log.count else ""
    )


def _rows(source: caption_qa.Source, log: RejectLog) -> Iterator[tuple[str, QuestionRow]]:
    for index, id in enumerate(source.ids()):
        try:
            row = source.row(index)
            open_image(row.image, max_pixels=source.max_pixels, max_bytes=source.max_bytes, max_side=64)
        except Reject as reject:
            log.add(id, reject.reason)
            continue
        for number, reason in enumerate(row.wrong, 1):
            log.add(f"{id}: rejected question {number}", reason)
        yield id, row
