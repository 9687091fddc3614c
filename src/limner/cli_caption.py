"""`limner caption`: captions in bulk."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from limner import cli_measure

_READ, _WRITE, _WHO = "What is captioned", "What is written", "Who captions"


def caption(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, file or pattern of images and videos; a .jsonl, .csv or .parquet table; shards "
            "(.tar); a data set of `datasets` on disk; an address of any of these; world:test."
        ),
    ],
    decoding: cli_measure.Decoded = None,
    *,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help=".jsonl, .parquet, or .tar for shards; a stopped job goes on."),
    ],
    model: Annotated[
        str,
        typer.Option(help="A captioner: hub id, folder, world:captioner, a run's folder, an endpoint's URL."),
    ] = "world:captioner",
    prompt: Annotated[
        str | None, typer.Option(help="Text before every caption; {column} stands for a row's value.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Column of a table with the image.", rich_help_panel=_READ)
    ] = None,
    dedup: Annotated[
        bool, typer.Option("--dedup", help="Caption equal images once.", rich_help_panel=_READ)
    ] = False,
    sidecar: Annotated[
        bool,
        typer.Option("--sidecar", help="A .txt file beside each image, too.", rich_help_panel=_WRITE),
    ] = False,
    column: Annotated[
        str | None,
        typer.Option(help="Write the input table again, with this column more.", rich_help_panel=_WRITE),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Write over text files and cells of the column that hold something else.",
            rich_help_panel=_WRITE,
        ),
    ] = False,
    shard: Annotated[int, typer.Option(min=1, help="Samples in a shard.", rich_help_panel=_WRITE)] = 1000,
    engine: Annotated[
        Literal["inprocess", "ray", "endpoint"] | None,
        typer.Option(help="Where the model runs; told by --model if not given.", rich_help_panel=_WHO),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            min=1, help="Images captioned together; requests under way at an endpoint.", rich_help_panel=_WHO
        ),
    ] = 16,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of Ray; one a GPU or core.", rich_help_panel=_WHO)
    ] = None,
    model_name: Annotated[
        str, typer.Option(help="The model's name at its endpoint.", rich_help_panel=_WHO)
    ] = "",
    key_env: cli_measure.KeyEnv = None,
    device: cli_measure.Device = "auto",
    dtype: cli_measure.Dtype = "float32",
) -> None:
    """Write a caption for every image; images that cannot be used are named in rejects.jsonl.

    Example: limner caption photos/ -o captions.jsonl --model Salesforce/blip2-opt-2.7b --dtype bfloat16
    """
    from limner import config

    settings = config.decoding(decoding or ())
    from limner.bulk.inputs import source as source_of
    from limner.caption import caption as write

    logging.getLogger("limner").addHandler(logging.StreamHandler())
    signal.signal(signal.SIGTERM, _interrupted)
    done = write(
        source_of(source, image=image), out, model=model, decoding=settings, engine=engine, batch=batch,
        workers=workers, prompt=prompt, model_name=model_name, key_env=key_env,
        sidecar=sidecar, column=column, overwrite=overwrite, dedup=dedup, shard=shard, device=device,
        dtype=dtype, resume=shlex.join(["limner", *sys.argv[1:]]),
    )  # fmt: skip
    typer.echo(f"{out}: {done}")


def _interrupted(*_: object) -> None:
    """A job that is asked to end, as schedulers ask, stops as with Ctrl-C."""
    raise KeyboardInterrupt
