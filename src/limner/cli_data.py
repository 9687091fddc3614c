"""`limner data`: looks at data before anything is trained on them."""

from __future__ import annotations

import typer

app = typer.Typer(help="Check data sets before anything is trained on them.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `check` a command of its own, however few commands there are."""
