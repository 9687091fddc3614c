"""`limner world`: build, look at and write out the miniature world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    help="The miniature world: scenes with known facts, and small models trained on them.",
    no_args_is_help=True,
)
Seed = Annotated[int, typer.Option(min=0, help="The world's seed: other seeds are other scenes.")]
Split = Annotated[
    Literal["train", "validation", "test", "unseen"],
    typer.Option(help="unseen holds pairs of shape and colour that no other split has."),
]


@app.command()
def build(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the models; a build that stopped there goes on.")
    ] = Path("world"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of scenes, first weights and batches.")] = 0,
    stage: Annotated[list[str] | None, typer.Option(help="Only this stage; may be repeated.")] = None,
    itm_negatives: Annotated[
        Literal["mixed", "one_word"],
        typer.Option(help="one_word builds only the matching model of an ablation, into OUT/itm."),
    ] = "mixed",
    world: Annotated[
        Path | None,
        typer.Option(
            help="World whose ViT that ablation, or video_captioner by itself, takes; the shipped one."
        ),
    ] = None,
) -> None:
    """Train the world's models from nothing and check their gates."""
    from limner.world.build import build as run

    run(out, seed=seed, stages=stage, itm_negatives=itm_negatives, world=world)


@app.command()
def show(
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file to write.")] = Path("world.png"),
    split: Split = "validation",
    count: Annotated[int, typer.Option(min=1, max=1000, help="Scenes or clips on the sheet.")] = 24,
    seed: Seed = 0,
    videos: Annotated[
        bool, typer.Option("--videos", help="Film strips of clips with their five references.")
    ] = False,
) -> None:
    """Write a contact sheet: scenes with a terse and the full caption under each, or clips."""
    from limner.world.show import film_strips, sheet

    if videos:
        _clips_of(split, count)
        film_strips(out, split, count, seed=seed)
    else:
        sheet(out, split, count, seed=seed)
    typer.echo(out)


@app.command()
def write(
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
    split: Split = "test",
    count: Annotated[int, typer.Option(min=1, help="Scenes to write.")] = 1000,
    image_format: Annotated[
        Literal["png", "jpeg"], typer.Option("--format", help="PNG keeps the pixels; JPEG loses a little.")
    ] = "png",
    seed: Seed = 0,
) -> None:
    """Write scenes as image files with captions.jsonl beside them, as other people's data come."""
    from limner.world.write import write_folder

    write_folder(folder, split, count, image_format=image_format, seed=seed)
    typer.echo(folder)


@app.command()
def videos(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write; other splits in it stay.")
    ] = Path("world-videos"),
    split: Annotated[
        Literal["train", "validation", "test"] | None, typer.Option(help="Only this split; all by default.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Clips of each split; all by default.")] = None,
    seed: Seed = 0,
) -> None:
    """Write clips as MP4 files with annotations as LAVIS has them, five captions a clip."""
    from limner.world.clips import SPLITS
    from limner.world.videos import write_videos

    for name in [split] if split else SPLITS:
        write_videos(out, name, count or SPLITS[name], seed=seed)
    typer.echo(out)


def _clips_of(split: str, count: int) -> None:
    """Refuse what no split of clips has.

    Raises:
        UserError: no such split, or not so many clips in it.
    """
    from limner.errors import UserError
    from limner.world.clips import SPLITS

    if split not in SPLITS:
        raise UserError(f"there is no split {split!r} of clips; there are {', '.join(SPLITS)}")
    if count > SPLITS[split]:
        raise UserError(f"split {split!r} has {SPLITS[split]} clips, not {count}")
