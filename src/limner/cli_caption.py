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
from limner.bulk import BATCH

_READ, _WRITE, _WHO, _CHOICE = "What is read", "What is written", "Who captions", "Which caption stands"
_DRAWN = "num_beams=1 do_sample=true"


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
        Path, typer.Option("--out", "-o", help=".jsonl, .parquet, or .tar for shards; a stopped job goes on.")
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A captioner: hub id, folder, world:captioner, a run, a run's checkpoint, an endpoint's URL."
        ),
    ] = "world:captioner",
    prompt: Annotated[
        str | None, typer.Option(help="Text before every caption; {column} stands for a row's value.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Caption 8 samples only, and show them on a page beside OUT.")
    ] = False,
    image: Annotated[
        str | None, typer.Option(help="Column of a table with the image.", rich_help_panel=_READ)
    ] = None,
    dedup: Annotated[
        bool, typer.Option("--dedup", help="Caption equal images once.", rich_help_panel=_READ)
    ] = False,
    sidecar: Annotated[
        bool, typer.Option("--sidecar", help="A .txt file beside each image, too.", rich_help_panel=_WRITE)
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
    ] = BATCH,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of Ray; one a GPU or core.", rich_help_panel=_WHO)
    ] = None,
    model_name: Annotated[
        str, typer.Option(help="The model's name at its endpoint.", rich_help_panel=_WHO)
    ] = "",
    key_env: cli_measure.KeyEnv = None,
    price: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="READ WRITTEN",
            help="Of a million tokens at an endpoint, to estimate the cost.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    device: cli_measure.Device = "auto",
    dtype: cli_measure.Dtype = "float32",
    candidates: Annotated[
        int, typer.Option(min=1, help="Captions drawn an image; the best stands.", rich_help_panel=_CHOICE)
    ] = 1,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME [setting=value]...",
            help='What the best is told by: "itm path=world:itm"; may be repeated.',
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(help="A phrase that has to be in it; may be repeated.", rich_help_panel=_CHOICE),
    ] = None,
    forbid: Annotated[
        list[str] | None,
        typer.Option(help="A phrase that must not be in it; may be repeated.", rich_help_panel=_CHOICE),
    ] = None,
    min_words: Annotated[int, typer.Option(min=0, help="Fewest words.", rich_help_panel=_CHOICE)] = 0,
    max_words: Annotated[int | None, typer.Option(min=1, help="Most words.", rich_help_panel=_CHOICE)] = None,
    max_repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Most times the same words stand in a row.", rich_help_panel=_CHOICE),
    ] = None,
    merge: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL",
            help="A language model that makes one caption of all candidates.",
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    merge_name: Annotated[str, typer.Option(help="Its name at its endpoint.", rich_help_panel=_CHOICE)] = "",
    merge_prompt: Annotated[
        str | None, typer.Option(help="What it is asked, with {captions}.", rich_help_panel=_CHOICE)
    ] = None,
) -> None:
    """Write a caption for every image; images that cannot be used are named in rejects.jsonl.

    Example: limner caption photos/ -o captions.jsonl --model Salesforce/blip2-opt-2.7b --dtype bfloat16
    """
    from limner import config

    settings = config.decoding([*(_DRAWN.split() if candidates > 1 else []), *(decoding or ())])
    from limner import caption as bulk
    from limner.bulk.choose import Rules
    from limner.bulk.inputs import source as source_of
    from limner.bulk.judge import rewards_of

    log = logging.getLogger("limner")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
    signal.signal(signal.SIGTERM, _interrupted)
    rules = Rules(tuple(include or ()), tuple(forbid or ()), min_words, max_words, max_repeats)
    choice = bulk.Choice(
        candidates=candidates, rules=rules, merge=merge, merge_name=merge_name, merge_prompt=merge_prompt,
        rewards=rewards_of(reward or ()),
    )  # fmt: skip
    where = bulk.Where(sidecar=sidecar, column=column, overwrite=overwrite, shard=shard)
    who = {"engine": engine, "batch": batch, "workers": workers, "dedup": dedup, "model_name": model_name}
    who |= {"key_env": key_env, "device": device, "dtype": dtype}
    made = source_of(source, image=image)
    asked = {"model": model, "decoding": settings, "prompt": prompt, "choice": choice, **who}
    if dry_run:
        from limner.bulk.page import dry_run as try_out

        typer.echo(try_out(made, out, **asked))
        return
    resume = shlex.join(["limner", *sys.argv[1:]])
    report = bulk.caption(made, out, where=where, resume=resume, price=price, **asked)
    typer.echo(f"{out}: {report}")
    if report.in_vain:
        rejects = out.with_name("rejects.jsonl")
        typer.echo(f"not one of {source} could be captioned: {rejects} says why", err=True)
        raise typer.Exit(1)


def _interrupted(*_: object) -> None:
    """A job that is asked to end, as schedulers ask, stops as with Ctrl-C."""
    raise KeyboardInterrupt
