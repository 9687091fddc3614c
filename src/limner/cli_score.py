"""The commands that hold captions against references: `limner score`, `limner data df`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

Captions = Annotated[
    list[Path],
    typer.Argument(metavar="A [B]", help="A file of captions, or two to compare: .jsonl, COCO results."),
]
References = Annotated[
    Path | None,
    typer.Option(help="COCO captions, LAVIS *_gt.json, dataset_coco.json, .jsonl; if not given, of --data."),
]
Metrics = Annotated[
    list[str] | None, typer.Option(help="Measures or groups of them (docs/metrics.md); may be repeated.")
]
Split = Annotated[
    list[str] | None,
    typer.Option("--split", help="Only these images, where the file of references names splits."),
]
Frequencies = Annotated[
    Path | None, typer.Option(help="Document frequencies for CIDEr, as `limner data df` writes them.")
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Leave out images that lack a caption or references.")
]
Several = Annotated[
    bool, typer.Option("--several", help="Images may have several captions: the mean over them counts.")
]
RefuseEmpty = Annotated[
    bool, typer.Option("--refuse-empty", help="Refuse captions of no words instead of scoring them.")
]
Data = Annotated[
    str | None,
    typer.Option("--data", "--images", help="Where the images are: a folder, a .jsonl, world:test."),
]


def score(
    captions: Captions,
    *,
    references: References = None,
    metrics: Metrics = None,
    split: Split = None,
    df: Frequencies = None,
    allow_missing: AllowMissing = False,
    several: Several = False,
    refuse_empty: RefuseEmpty = False,
    data: Data = None,
    clip: Annotated[str | None, typer.Option(help="CLIP for clip_score and clip_recall.")] = None,
    itm: Annotated[str | None, typer.Option(help="Image-text matching model for itm.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the JSON to this file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
) -> None:
    """Measure captions against references: BLEU, ROUGE-L and CIDEr as pycocoevalcap has them, and more.

    Example: limner score captions.jsonl --references coco_karpathy_test_gt.json
    """
    from rich.console import Console

    from limner.errors import UserError
    from limner.score_captions import Rules
    from limner.score_captions import score as measured

    if len(captions) > 2:
        raise UserError(f"{len(captions)} files of captions: give one, or two to compare")
    looks = None
    if data is not None:
        from limner.score_images import Looks

        looks = Looks(data, clip=clip, itm=itm, device=device)
    found = measured(
        captions,
        references=references,
        metrics=tuple(metrics or ("coco",)),
        looks=looks,
        splits=tuple(split or ()),
        rules=Rules(allow_missing=allow_missing, several=several, refuse_empty=refuse_empty),
        df=df,
        seed=seed,
    )
    if out is not None:
        found.save(out)
    if as_json:
        typer.echo(json.dumps(found.plain(), ensure_ascii=False))
    else:
        Console().print(found.table())


def df(
    references: Annotated[Path, typer.Argument(help="A file of references, of a training set.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; compressed if it ends in .gz.")],
    split: Split = None,
) -> None:
    """Count in how many images each n-gram occurs, for CIDEr; prints how many images were counted.

    Example: limner data df dataset_coco.json --split train --split restval -o coco_train.json.gz
    """
    from limner.score_captions import document_frequencies

    frequencies = document_frequencies(references, splits=tuple(split or ()))
    frequencies.save(out)
    typer.echo(f"{out}: {frequencies.documents} images, {len(frequencies.counts)} n-grams in two or more")
