"""`limner watch`: runs as they go on, in the terminal or in the browser."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from limner.errors import UserError


def watch(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, or one that holds runs.")] = Path(
        "runs"
    ),
    *,
    run: Annotated[str, typer.Option(metavar="NAME", help="Look into this run of the folder.")] = "",
    once: Annotated[bool, typer.Option("--once", help="Print it one time and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks, in the terminal.")] = 2.0,
    page: Annotated[bool, typer.Option("--page", help="In the browser instead, without any model.")] = False,
    host: Annotated[str, typer.Option(help="Address of the page; 0.0.0.0 is all networks.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 is a free one.")] = 8001,
) -> None:
    """Show runs as they go on: progress, reward parts, length, alarms, the latest captions.

    Example: limner watch runs/
    """
    if page:
        if run or once:
            raise UserError("--page shows all runs, with one to choose: leave --run and --once out")
        if find_spec("gradio") is None:
            raise UserError("the page needs gradio: pip install 'limner[page]'")
        from limner.live.server import serve

        serve(folder, host=host, port=port)
        return
    from limner.live.watch import watch as show

    show(folder, run=run, once=once, every=every)
