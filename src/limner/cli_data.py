"""`limner data`: looks at data before anything is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limner import cli_score

app = typer.Typer(help="Check data sets before anything is trained on them.", no_args_is_help=True)


@app.command()
def check(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE [a.b=value]... | kind=SOURCE [setting=value]...",
            help="A recipe, whose data, evaluate.data and evaluate.test are looked at, or one data source.",
        ),
    ],
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read the annotations and look for the files, but open none.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="JSONL file for everything that is wrong: rejects.jsonl."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what is missing, broken or mismatched; exit code 1 if anything is.

    Example: limner data check kind=msrvtt path=msrvtt/videodatainfo.json split=test -o rejects.jsonl
    """
    from limner.data_check import check_command

    if not check_command(given, quick=quick, out=out, as_json=as_json):
        raise typer.Exit(1)


app.command()(cli_score.df)
