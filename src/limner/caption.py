"""Captions in bulk: one row an image or video, written as they come; a stopped job is gone on with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.bulk import remote, rows, shards
from limner.bulk.engines import Choice, Who, engine_of
from limner.bulk.job import CaptionReport, run
from limner.bulk.output_column import Column
from limner.bulk.output_shards import Shards
from limner.bulk.outputs import Jsonl, Output, Parquet
from limner.bulk.prompts import Prompt
from limner.bulk.sidecars import Sidecars
from limner.data.base import FileSource, Source
from limner.decoding import Decoding
from limner.errors import UserError

__all__ = ["CaptionReport", "Choice", "Where", "Who", "caption", "output_of"]


@dataclass(frozen=True, kw_only=True)
class Where:
    """What is written beside the output, and over what."""

    sidecar: bool = False
    """Write each caption into a .txt file beside its image or video as well."""
    column: str | None = None
    """The output is the source's table with this column more."""
    overwrite: bool = False
    """Text files and cells of the column that hold something else are written over."""
    shard: int = 1000
    """Samples in a shard."""


def caption(
    source: Source,
    out: Path,
    *,
    model: str,
    decoding: Decoding,
    prompt: str | None = None,
    where: Where | None = None,
    choice: Choice | None = None,
    resume: str = "",
    price: tuple[float, float] | None = None,
    **who: Any,
) -> CaptionReport:
    """Caption every image or video of a source that has no caption in `out` yet.

    Args:
        source: the images or videos.
        out: a JSONL file; rows {"id", "caption", "image"} are appended to it, `image` relative to its
            folder and only for images on disk, `video` for videos. The data source `jsonl` reads rows of
            images. Or a .parquet file, or a .tar: the name of WebDataset shards.
        model: a captioner, or an endpoint's address; see `Who`.
        decoding: how captions are drawn.
        prompt: text before every caption, with {columns} of the row; the run's own, or none, if None.
        where: what is written beside the output, and over what.
        choice: which of several candidates stands.
        resume: the command that goes on with the job, for messages.
        price: of a million tokens read and written at an endpoint.
        who: other settings of `Who`: engine, batch, device, ...

    Raises:
        UserError: nothing to read, no such captioner, an output that cannot be written or that holds
            something other than captions, or sidecars for images that are not files.
    """
    where = where or Where()
    source.ids()
    if where.sidecar and not _in_files(source):
        raise UserError(f"{source}: has no image files, so there is nowhere to put text files")
    output = output_of(out, source, column=where.column, overwrite=where.overwrite, shard=where.shard)
    sidecars = Sidecars(out.parent, overwrite=where.overwrite) if where.sidecar else None
    asked = Who(model=model, decoding=decoding, prompt=Prompt(prompt), **who)
    engine = engine_of(asked, choice or Choice())
    return run(source, output, engine, sidecars=sidecars, resume=resume, price=price)


def output_of(out: Path, source: Source, *, column: str | None, overwrite: bool, shard: int) -> Output:
    """What a file name means.

    Raises:
        UserError: a column for something else than a table, or a name that means nothing.
    """
    if column is not None:
        return Column(out, source=source, column=column, overwrite=overwrite)
    suffix = out.suffix.lower()
    if suffix == ".tar":
        return Shards(out, source=source, size=shard)
    if suffix not in (".jsonl", ".parquet"):
        raise UserError(
            f"{out}: captions go into a file whose name ends in .jsonl, .parquet, or .tar for shards; with "
            "--column, into a table like the input"
        )
    return Parquet(out) if suffix == ".parquet" else Jsonl(out)


def _in_files(source: Source) -> bool:
    """Whether the source's images may be files on disk."""
    if not isinstance(source, FileSource) or isinstance(source, shards.Source):
        return False
    return isinstance(source, rows.Source) or not remote.is_address(source.path)
