"""`limner evaluate`: measures captions; with the word `prism` after it, asks questions about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from limner import cli_measure

_DEFAULT = "captions"


class _Group(TyperGroup):
    """A command that has sub-commands: what does not begin with the name of one is the command's own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the default command in front, where none is named."""
        return super().parse_args(ctx, args if args[:1] and args[0] in self.commands else [_DEFAULT, *args])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command to run; the default one has no name of its own in what is shown."""
        name, command, rest = super().resolve_command(ctx, args)
        return (None if name == _DEFAULT else name), command, rest


app = typer.Typer(
    cls=_Group, help="Measure captions, every number with its 95% interval; `evaluate prism`: by questions."
)
app.command(name=_DEFAULT, hidden=True)(cli_measure.evaluate)


@app.command()
def prism(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A captioner, a run's folder, an endpoint's address, or a .jsonl file of captions.",
        ),
    ],
    decoding: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[setting=value]...",
            help="How captions are drawn, on top of temperature=1 max_new_tokens=2048: top_p=0.9",
        ),
    ] = None,
    *,
    sets: Annotated[
        list[str], typer.Option("--set", metavar="FILE[:kind]", help="Questions (docs/prism.md); repeatable.")
    ],
    answerer: cli_measure.AnswererOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; a stopped job goes on.")] = Path(
        "prism"
    ),
    captions: Annotated[
        int | None, typer.Option(min=1, help="Captions an image: 4, or all that the file has.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="What asks for a caption, in place of the model's.")
    ] = None,
    captioner_model: Annotated[str, typer.Option(help="The captioner's name at its endpoint.")] = "",
    captioner_key_env: cli_measure.KeyEnv = None,
    answerer_model: cli_measure.AnswererModel = "",
    key_env: cli_measure.KeyEnv = None,
    template: Annotated[
        str | None, typer.Option(help="What is asked: text with {caption} and {question}; published if none.")
    ] = None,
    answer_temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest answer.")] = 1.0,
    answer_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 2048,
    image_root: Annotated[
        Path | None, typer.Option(help="Folder that image paths start from; that of each set if none.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many rows of each set.")
    ] = None,
    strict_published: Annotated[
        bool, typer.Option("--strict-published", help="Score as the published code does, too.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images captioned together.")] = 8,
    device: cli_measure.Device = "auto",
    dtype: cli_measure.Dtype = "float32",
    seed: Annotated[int, typer.Option(help="Seed of captions, answers and bootstrap.")] = 0,
) -> None:
    """Let a language model that sees only the captions answer a benchmark's questions (Prism).

    Example: limner evaluate prism runs/caprl --set chartqa.json --answerer Qwen/Qwen2.5-3B-Instruct
    """
    from limner import config
    from limner.prism.asking import Answering
    from limner.prism.command import run
    from limner.prism.stages import Answerer, Captioning, Where
    from limner.prism.writers import DECODING

    run(
        sets,
        captioning=Captioning(
            model=model,
            endpoint_model=captioner_model,
            key_env=captioner_key_env,
            captions=captions,
            prompt=prompt,
            decoding=config.decoding(decoding or (), base=DECODING),
            batch=batch,
        ),
        answerer=Answerer(path=answerer, endpoint_model=answerer_model, key_env=key_env),
        answering=Answering(
            template=template, temperature=answer_temperature, max_new_tokens=answer_tokens, seed=seed
        ),
        where=Where(out=out, root=image_root, samples=samples, device=device, dtype=dtype),
        strict_published=strict_published,
        seed=seed,
    )
