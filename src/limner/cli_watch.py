"""`limner watch`: runs as they go on, in the terminal or in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def watch(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, or one that holds runs.")] = Path(
        "runs"
    ),
    *,
    run: Annotated[str, typer.Option(metavar="NAME", help="Look into this run of the folder.")] = "",
    once: Annotated[bool, typer.Option("--once", help="Print it one time and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 2.0,
) -> None:
    """Show runs as they go on: progress, reward parts, length, alarms, the latest captions.

    Example: limner watch runs/
    """
    from limner.live.watch import watch as show

    show(folder, run=run, once=once, every=every)
