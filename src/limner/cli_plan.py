"""The command that says what a recipe takes before it is run: memory, micro-batch, time."""

from __future__ import annotations

import json
import re
from typing import Annotated

import typer

from limner.errors import UserError

Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[a.b=value]...", help="Settings on top, as in `limner train`."),
]


def plan(
    recipe: Annotated[str, typer.Argument(help="A YAML file or a shipped recipe: vlrm.")],
    overrides: Settings = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs, over all nodes.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines that they are in.")] = 1,
    gpu: Annotated[str, typer.Option(help="a10, a100, a100-40gb, h100, h200, l40s.")] = "h100",
    memory: Annotated[
        str | None, typer.Option(metavar="80GB", help="Memory of each GPU; that of its data sheet.")
    ] = None,
    image: Annotated[
        str,
        typer.Option(metavar="WIDTHxHEIGHT", help="Pixels of a picture, before the captioner's processor."),
    ] = "1024x768",
    frames: Annotated[int, typer.Option(min=1, help="Pictures a sample: the frames of a video.")] = 1,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a caption; rollout.max_new_tokens where not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what a recipe takes: what fits into memory, the micro-batch, the time of a step. Needs no weights.

    Example: limner plan vlrm --gpus 8 --memory 80GB
    """
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", image)
    if found is None:
        raise UserError(f"--image {image}: write WIDTHxHEIGHT in pixels, such as 1024x768")
    if gpus % nodes:
        raise UserError(f"--nodes {nodes}: {gpus} GPUs cannot be spread evenly over them")
    from limner import config
    from limner.plan import machines

    card = machines.gpu(gpu)
    room = card.memory if memory is None else machines.size(memory)
    resolved = config.load(recipe, overrides or (), complete=False)
    from limner.plan import show
    from limner.plan.fit import Plan
    from limner.plan.step import Setting

    setting = Setting((int(found[1]), int(found[2])), frames, tokens)
    made = show.Found.of(Plan(resolved, setting, gpus=gpus, nodes=nodes), gpu, room)
    if as_json:
        typer.echo(json.dumps(made.plain(), indent=1))
    else:
        typer.echo(made.text(), nl=False)
