"""`limner assemble`: a fresh vision-language model out of a vision tower and original language weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def assemble(
    *,
    vision: Annotated[
        Path, typer.Option(help="A Qwen2.5-VL checkpoint: vision tower, tokenizer, image processor.")
    ],
    language: Annotated[
        Path, typer.Option(help="The text-only Qwen2.5 checkpoint with the original language weights.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the checkpoint.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the new merger.")] = 0,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: compare OUT with its sources, byte by byte.")
    ] = False,
) -> None:
    """Write a fresh captioner: trained vision tower, original language weights, a random merger between them.

    Example: limner assemble --vision Qwen2.5-VL-3B-Instruct --language Qwen2.5-3B -o fresh
    """
    from limner import assemble as parts

    typer.echo((parts.check if check else parts.assemble)(vision, language, out, seed=seed))
    typer.echo(f"{out}: every tensor is that of its source" if check else out)
