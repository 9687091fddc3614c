"""The commands that measure captions: evaluate, compare, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

Decoded = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[setting=value]...",
        help="How captions are written, on top of the published beam search: num_beams=1 max_new_tokens=30",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16"],
    typer.Option(help="Number format of the captioner's frozen parts."),
]
AnswererOption = Annotated[
    str,
    typer.Option(
        metavar="PATH|URL",
        help="A causal language model (world:answerer is one), or an OpenAI-compatible endpoint.",
    ),
]
AnswererModel = Annotated[str, typer.Option(help="The answerer's name at its endpoint.")]
QaSettings = Annotated[
    list[str] | None,
    typer.Option(metavar="setting=value", help="How it is asked for the measures qa; see evaluate.qa."),
]
KeyEnv = Annotated[
    str | None, typer.Option(help="Environment variable that holds the endpoint's key; never the key itself.")
]
DataOption = Annotated[
    str,
    typer.Option(help="A folder of images, a .jsonl that names them, world:test, or `kind=msrvtt path=...`."),
]
AllowMissing = Annotated[
    bool,
    typer.Option("--allow-missing", help="Measure on part of a published data set, where it has holes."),
]
PrismFolder = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Put what `evaluate prism` found there beside it.")
]
PrismSets = Annotated[
    list[str] | None, typer.Option("--set", metavar="FILE[:kind]", help="Questions for Prism; repeatable.")
]


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A captioner, a run's folder, a .jsonl of captions, or `references`: those of the data.",
        ),
    ],
    decoding: Decoded = None,
    *,
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file to write.")] = Path("evaluation.json"),
    metrics: Annotated[
        list[str] | None, typer.Option(help="Measures or groups of them (docs/metrics.md); may be repeated.")
    ] = None,
    clip: Annotated[str | None, typer.Option(help="CLIP for clip_recall; one that was no reward.")] = None,
    itm: Annotated[str | None, typer.Option(help="Image-text matching model for itm.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Only the first so many samples.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples in one pass.")] = 64,
    centre_crop: Annotated[
        bool, typer.Option(help="Cut images to the square in their middle, as VLRM does.")
    ] = True,
    allow_missing: AllowMissing = False,
    prism: PrismFolder = None,
    sets: PrismSets = None,
    answerer: AnswererOption = "",
    answerer_model: AnswererModel = "",
    key_env: KeyEnv = None,
    qa: QaSettings = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="HTML page to write.")] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
) -> None:
    """Measure captions, every number with its 95% interval.

    `limner evaluate prism --help` tells how to let a language model answer questions from captions.

    Example: limner evaluate runs/demo --data world:test --metrics captions --metrics facts -o after.json
    """
    from limner import config

    settings = config.decoding(decoding) if decoding else None
    from limner.prism.beside import Questions, evaluate_all
    from limner.prism.stages import Answerer

    asked = Answerer(path=answerer, endpoint_model=answerer_model, key_env=key_env) if answerer else None
    asking = config.asking(answerer, qa or (), model=answerer_model, key_env=key_env) if answerer else None
    evaluate_all(
        model,
        data=data,
        out=out,
        metrics=tuple(metrics or ("captions",)),
        questions=Questions(folder=prism, sets=tuple(sets or ()), answerer=asked),
        report=report,
        **{"clip": clip, "itm": itm, "qa": asking, "samples": samples, "decoding": settings, "batch": batch},
        **{"device": device, "dtype": dtype, "centre_crop": centre_crop, "allow_missing": allow_missing},
        seed=seed,
    )


def compare(
    a: Annotated[Path, typer.Argument(help="A file of `limner evaluate`.")],
    b: Annotated[Path, typer.Argument(help="Another; differences are B - A.")],
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Compare the images that both have, where they differ.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
) -> None:
    """Compare two evaluations image by image, with paired intervals and a verdict in words."""
    from rich.console import Console

    from limner.compare import compare as paired

    compared = paired(a, b, allow_missing=allow_missing, seed=seed)
    if as_json:
        typer.echo(json.dumps(compared.plain()))
    else:
        Console().print(compared.table())


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file to write; report.html in the run.")
    ] = None,
) -> None:
    """Write a run's report: one HTML file that needs no network."""
    from limner.report import write

    typer.echo(write(run, out))
