"""The `limner` command: parses first, imports what a command needs only when it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from limner import (
    __version__,
    cli_assemble,
    cli_caption,
    cli_data,
    cli_evaluate,
    cli_export,
    cli_measure,
    cli_plan,
    cli_score,
    cli_serve,
    cli_watch,
    cli_world,
)
from limner.errors import USER_ERROR, UserError

app = typer.Typer(
    help="Train image and video captioners by reinforcement learning, measure captions, write them in bulk.",
    epilog="Start with `limner demo`, which needs no download, or `limner list recipes`.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[a.b=value]...", help="Settings on top: update.lr=1e-4 rewards.repeats=null"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Run the command; a user's mistake is one message in red and exit code 2."""
    try:
        app()
    except UserError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(USER_ERROR)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"limner {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command."""


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A YAML file or a shipped recipe: tiny/vlrm.")] = None,
    overrides: Overrides = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with this run from its last checkpoint.")
    ] = None,
    ranks: Annotated[
        int | None,
        typer.Option("--launch", metavar="N", min=1, help="Train in N processes here, a GPU each."),
    ] = None,
) -> None:
    """Run a recipe; prints the run's folder.

    Example: limner train recipes/tiny/vlrm.yaml data.path=photos/ update.steps=50
    """
    from limner import config, launch

    if ranks is not None and ranks > 1:
        given = [*([recipe] if recipe else []), *(overrides or ())]
        again = ["--resume", str(resume)] if resume else []
        raise typer.Exit(launch.launch(ranks, ["train", *given, *again]))
    if resume is not None:
        if recipe is not None:
            raise UserError(
                "--resume goes on with the run's own recipe: give no recipe and no settings beside it"
            )
        resolved = config.load_resolved(resume / "resolved.json")
    elif recipe is None:
        raise UserError("give a recipe, or --resume RUN; `limner list recipes` shows the shipped ones")
    else:
        resolved = config.load(recipe, overrides or ())
    from limner.train import train as run

    folder = run(resolved, resume=resume)
    if launch.speaks():
        typer.echo(folder)


@app.command()
def show(
    recipe: Annotated[
        str, typer.Argument(metavar="[recipe] RECIPE", help="A YAML file or a shipped recipe.")
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Print every value of a recipe, and where it comes from."""
    from limner import config

    given = list(overrides or ())
    if recipe == "recipe" and given and "=" not in given[0]:  # `limner show recipe NAME` reads well too
        recipe, *given = given
    rows = config.load(recipe, given, complete=False).resolved()
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    shown = {path: json.dumps(row["value"], ensure_ascii=False) for path, row in rows.items()}
    wide, long = max(map(len, shown)), min(40, max(map(len, shown.values())))
    for path, value in shown.items():
        typer.echo(f"{path:<{wide}}  {value:<{long}}  {rows[path]['origin']}")


@app.command(name="list")
def list_(
    what: Annotated[
        str, typer.Argument(help="captioners, rewards, advantages, objectives, data or recipes.")
    ],
) -> None:
    """List what a recipe can name, one line each."""
    from limner import component, paths

    if what != "recipes" and what not in component.CLASSES:
        known = [*component.CLASSES, "recipes"]
        raise UserError(f"{component.did_you_mean(what, known)}; lists: {', '.join(known)}")
    rows = paths.shipped_recipes() if what == "recipes" else component.available(what)
    for name, line in rows.items():
        typer.echo(f"{name:<{max(map(len, rows))}}  {line}")


@app.command()
def inspect(
    caption: Annotated[str, typer.Argument(help="The caption to look at.")],
    recipe: Annotated[str, typer.Option(help="Whose rewards: a YAML file or a shipped recipe.")] = "vlrm",
    phrases: Annotated[
        list[str] | None, typer.Option(help="A bad phrase to use instead of the recipe's; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a recipe's rewards say of a caption token by token: VLRM's Table 1.

    Example: limner inspect "an image of a red car and a red car" --recipe recipes/vlrm.yaml
    """
    from limner import config
    from limner.inspect import inspect as tokens_of

    tokens = tokens_of(caption, config.load(recipe, complete=False), phrases or None)
    if as_json:
        typer.echo(json.dumps({"tokens": tokens}))
        return
    wide = max(len("token"), *(len(token["text"]) for token in tokens))
    typer.echo(
        f"{'token':<{wide}}  {'bad':>5}  {'repeat':>6}  {'penalty':>7}   (of this token and all after it)"
    )
    for token in tokens:
        bad, repeat = ("yes" if token[key] else "" for key in ("bad", "repeat"))
        typer.echo(f"{token['text']:<{wide}}  {bad:>5}  {repeat:>6}  {token['penalty']:>7g}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")] = Path("runs/demo"),
) -> None:
    """Train the miniature captioner in minutes, measure it before and after, and write the report."""
    from limner.demo import demo as run

    run(out)


app.command()(cli_caption.caption)
app.command()(cli_measure.compare)
app.command()(cli_score.score)
app.command()(cli_assemble.assemble)
app.command()(cli_export.export)
app.command()(cli_measure.report)
app.command()(cli_plan.plan)
app.command()(cli_serve.serve)
app.command()(cli_watch.watch)
app.add_typer(cli_evaluate.app, name="evaluate")
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_world.app, name="world")
