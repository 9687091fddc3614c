"""`limner data questions` and `limner data convert`: from images to questions, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Name = Annotated[str | None, typer.Option(help="The model's name at an endpoint.")]
Questions = Annotated[
    list[str] | None,
    typer.Argument(metavar="[setting=value]...", help="Settings of docs/questions.md: questions=3 draws=8"),
]


def questions(
    source: Annotated[
        str,
        typer.Argument(help="A folder or file of images, a .jsonl that names them, or kind=... settings."),
    ],
    settings: Questions = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; a stopped job goes on.")],
    model: Annotated[str, typer.Option(help="Who writes questions: http://.../v1, or a captioner.")],
    name: Name = None,
    answerer: Annotated[
        str | None, typer.Option(help="Who answers in the filter, as --model; the same if left out.")
    ] = None,
    answerer_name: Name = None,
    text_answerer: Annotated[
        str | None,
        typer.Option(help="A language model in this process that answers without the image."),
    ] = None,
    key_env: Annotated[str | None, typer.Option(help="Environment variable with the endpoints' key.")] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(help="Only this stage, generate, parse, filter or report; may be repeated."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(help="Number format of models in this process."),
    ] = "float32",
) -> None:
    """Let a model write questions about images, and keep those that need the image.

    Example: limner data questions photos/ -o qa/ --model http://localhost:8000/v1 --name Qwen2.5-VL-72B
    """
    from limner.answering.base import Asker
    from limner.curate import askers, stages
    from limner.curate.settings import STAGES, Files, read, stages_of
    from limner.data.named import source as source_of

    chosen, doing = read(settings or ()), stages_of(stage or STAGES)
    # role: model, its name at an endpoint, whether it only reads text, the option that names it
    own = (answerer_name, "--answerer-name") if answerer else (answerer_name or name, "--name")
    who = {"writes": (model, name, False, "--name"), "answers": (answerer or model, own[0], False, own[1])}
    who["answers without the image"] = (
        (text_answerer, None, True, "--text-answerer") if text_answerer else who["answers"]
    )
    asking = {"writes": "generate", "answers": "filter", "answers without the image": "filter"}
    for role, (path, named, text, option) in who.items():
        if asking[role] in doing:
            askers.check(path, name=named, key_env=key_env, text=text, option=option)
    loaded: dict[object, Asker] = {}

    def asker(role: str) -> Asker:
        path, named, text, _ = who[role]
        if who[role] not in loaded:
            loaded[who[role]] = askers.load(
                path, name=named, key_env=key_env, cache=out / "cache", device=device, dtype=dtype, text=text
            )
        return loaded[who[role]]

    models = {role: " ".join(filter(None, (path, named))) for role, (path, named, *_) in who.items()}
    stages.run(source_of(source), Files(out), chosen, models=models, askers=asker, stages=doing)
    written = ("raw.jsonl", "questions.jsonl", "scored.jsonl", "kept.jsonl", "report.html", "rejects.jsonl")
    typer.echo(f"{out}: {', '.join(file for file in written if (out / file).exists())}")


def convert(
    source: Annotated[
        str, typer.Argument(help="A .parquet or .jsonl file or folder of questions, or kind=... settings.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help=".jsonl or .parquet file to write.")],
    form: Annotated[
        Literal["limner", "caprl"],
        typer.Option("--format", help="Rows as limner or as CapRL-QA-75K has them."),
    ] = "limner",
) -> None:
    """Write images with questions in another form; rows that cannot be used are left out and counted.

    Example: limner data convert CapRL-QA-75K/ -o caprl.parquet --format caprl
    """
    from limner.data.qa_convert import convert as write

    typer.echo(f"{out}: {write(source, out, form=form)}")
