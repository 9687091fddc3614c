"""`limner data`: looks at data before anything is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limner import cli_questions, cli_score

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
app.command()(cli_questions.questions)
app.command()(cli_questions.convert)

export = typer.Typer(help="Write captions as training data for other programs.", no_args_is_help=True)
app.add_typer(export, name="export")


@export.callback()
def _export() -> None:
    """Keep the name of the program in the command while there is one."""


@export.command()
def llamafactory(
    captions: Annotated[Path, typer.Argument(help="Captions as `limner caption` writes them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder: LLaMA-Factory's dataset_dir.")],
    *,
    data: Annotated[
        str | None, typer.Option("--data", help="Where the images are, if the rows do not name them.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Of the data set in dataset_info.json.")] = "captions",
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="Asked about every image; CapRL's if not given.")
    ] = None,
    relative: Annotated[
        bool, typer.Option("--relative", help="Name images relative to the folder, not absolutely.")
    ] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images into the folder.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Look for image files, but open none.")] = False,
) -> None:
    """Write captions in LLaMA-Factory's ShareGPT form, with dataset_info.json; run again, it goes on.

    Example: limner data export llamafactory captions.jsonl -o llamafactory/ --name caprl_1m
    """
    from limner import data_export

    form = data_export.Form(
        data_export.PROMPT if prompt is None else prompt, relative=relative, copy=copy, quick=quick
    )
    typer.echo(data_export.llamafactory(captions, out, data=data, name=name, form=form))
