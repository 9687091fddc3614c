"""`limner export`: from a run to files that others load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="New folder for a checkpoint that plain transformers loads."),
    ] = None,
    adapters: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="New folder for the LoRA alone, which PEFT loads on the base model."
        ),
    ] = None,
    partial: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A .pt or .safetensors file for the trained part only, as VLRM was published.",
        ),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="best, last, or a step.")] = "best",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Number format of all weights; trained ones are float32 if not given."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="For the model card: apache-2.0, ...; the base model's if not given."
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Pictures of the run that the model card shows; 0 publishes none.")
    ] = 4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older export.")] = False,
) -> None:
    """Write what a run trained, with a model card: a merged checkpoint, its LoRA, or the trained part alone.

    Example: limner export runs/mine -o captioner/ --dtype bfloat16 --license apache-2.0
    """
    from limner.export import Card
    from limner.export import export as write

    write(
        run, out, which=checkpoint, adapters=adapters, partial=partial, dtype=dtype, overwrite=overwrite,
        card=Card(license, samples),
    )  # fmt: skip
    for path in (out, adapters, partial):
        if path is not None:
            typer.echo(path)
