"""Captions in bulk: one row an image or video, written as they come; a stopped job is gone on with."""

from __future__ import annotations

from pathlib import Path

from limner.bulk.engines import engine_of
from limner.bulk.job import CaptionReport, run
from limner.bulk.output_column import Column
from limner.bulk.output_shards import Shards
from limner.bulk.outputs import Jsonl, Output, Parquet
from limner.bulk.prompts import Prompt
from limner.bulk.rows import Source as Rows
from limner.bulk.sidecars import Sidecars
from limner.data.base import FileSource, Source
from limner.decoding import Decoding
from limner.errors import UserError

__all__ = ["CaptionReport", "caption", "output_of"]
SHARD = 1000
"""Samples in a shard."""


def caption(
    source: Source,
    out: Path,
    *,
    model: str,
    decoding: Decoding,
    engine: str | None = None,
    batch: int = 16,
    workers: int | None = None,
    prompt: str | None = None,
    sidecar: bool = False,
    column: str | None = None,
    overwrite: bool = False,
    dedup: bool = False,
    shard: int = SHARD,
    model_name: str = "",
    key_env: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    resume: str = "",
) -> CaptionReport:
    """Caption every image or video of a source that has no caption in `out` yet.

    Args:
        source: the images or videos.
        out: a JSONL file; rows {"id", "caption", "image"} are appended to it, `image` relative to its
            folder and only for images on disk, `video` for videos. The data source `jsonl` reads rows of
            images. Or a .parquet file, or a .tar: the name of WebDataset shards.
        model: a captioner: hub id, folder, `world:captioner`, a run's folder (its best checkpoint), or an
            endpoint's address.
        decoding: how captions are drawn.
        engine: inprocess, ray, or endpoint; endpoint if the model is an address, else inprocess, if None.
        batch: images or videos captioned together; the next ones are opened meanwhile. At an endpoint, the
            requests under way.
        workers: of Ray; one a GPU, or one a core, if None.
        prompt: text before every caption, with {columns} of the row; the run's own, or none, if None.
        sidecar: write each caption into a .txt file beside its image or video as well.
        column: `out` is the source's table with this column more.
        overwrite: text files and cells of the column that hold something else are written over.
        dedup: images that are equal pixel by pixel are captioned once.
        shard: samples in a shard.
        model_name: the model's name at its endpoint.
        key_env: environment variable with the endpoint's key.
        device: "auto", "cpu", "cuda", ...
        dtype: of the captioner's frozen parts: "float32", "bfloat16" or "float16"; a run has its own.
        resume: the command that goes on with the job, for messages.

    Raises:
        UserError: nothing to read, no such captioner, an output that cannot be written or that holds
            something other than captions, or sidecars for images that are not files.
    """
    source.ids()
    if sidecar and (not isinstance(source, FileSource) or _in_no_files(source)):
        raise UserError(f"{source}: has no image files, so there is nowhere to put text files")
    output = output_of(out, source, column=column, overwrite=overwrite, shard=shard)
    sidecars = Sidecars(out.parent, overwrite=overwrite) if sidecar else None
    made = engine_of(
        model, engine=engine, decoding=decoding, prompt=Prompt(prompt), batch=batch, workers=workers,
        dedup=dedup, model_name=model_name, key_env=key_env, device=device, dtype=dtype,
    )  # fmt: skip
    return run(source, output, made, sidecars=sidecars, resume=resume)


def output_of(out: Path, source: Source, *, column: str | None, overwrite: bool, shard: int) -> Output:
    """What a file name means.

    Raises:
        UserError: a column for something else than a table.
    """
    if column is not None:
        return Column(out, source=source, column=column, overwrite=overwrite)
    suffix = out.suffix.lower()
    if suffix == ".tar":
        return Shards(out, source=source, size=shard)
    return Parquet(out) if suffix == ".parquet" else Jsonl(out)


def _in_no_files(source: Source) -> bool:
    from limner.bulk import remote, shards

    path = source.path if isinstance(source, FileSource) else ""
    return isinstance(source, shards.Source) or (not isinstance(source, Rows) and remote.is_address(path))
