"""A try on a few samples, as a page: what would be written, and how long the whole job would take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from limner.bulk.engine import Text
from limner.bulk.engines import Choice, Who, engine_of
from limner.bulk.prompts import Prompt
from limner.data.base import Source
from limner.data.batches import read_ahead
from limner.decoding import Decoding
from limner.errors import UserError
from limner.report.single import Example, Gallery, Page, address, facts, is_small, write
from limner.strips import picture
from limner.types import Sample

SAMPLES = 8
"""How many samples a try takes, evenly spread over the input."""


def dry_run(
    source: Source,
    out: Path,
    *,
    model: str,
    decoding: Decoding,
    prompt: str | None,
    choice: Choice,
    **who: Any,
) -> str:
    """Caption a few samples and write captions-dry-run.html for captions.jsonl, and nothing else.

    Returns:
        The page, and how long the job would take.

    Raises:
        UserError: as `limner.caption.caption`.
    """
    ids = source.ids()
    chosen = [place * len(ids) // min(SAMPLES, len(ids)) for place in range(min(SAMPLES, len(ids)))]
    asked = Who(model=model, decoding=decoding, prompt=Prompt(prompt), **who)
    engine = engine_of(asked, choice)({})
    began = time.monotonic()
    with closing(engine.run(source, chosen)) as groups:
        made = {id: result for group in groups for id, result, _ in list(group)}
    seconds = (time.monotonic() - began) / max(1, len(chosen))
    left = timedelta(seconds=round(seconds * len(ids)))
    lead = (
        f"{len(chosen)} of {len(ids):,} samples of {source}. At {1 / max(seconds, 1e-9):.1f} a second all of "
        f"them take about {left}; larger batches are faster."
    )
    with closing(read_ahead(source, chosen, workers=2, ahead=SAMPLES)) as items:
        examples = tuple(_example(item.id, item.result, made[item.id]) for item in items)
    settings = {"model": model, "prompt": prompt, **asdict(decoding)}
    page = Page(
        name="Captions, a dry run", lead=lead, headline=None, tables=(), histogram=None,
        galleries=(Gallery("Samples", "Evenly spread over the input.", examples),),
        facts=facts({name: value for name, value in settings.items() if value is not None}),
    )  # fmt: skip
    where = out.with_name(f"{out.stem}-dry-run.html")
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        write(page, where)
    except OSError as error:
        raise UserError(f"{where}: cannot be written ({error.strerror})") from error
    return f"{where}: {lead}"


def _example(id: str, seen: object, made: object) -> Example:
    shown = picture(seen.media) if isinstance(seen, Sample) else None
    hard = shown is not None and is_small(shown)
    place = None if shown is None else address(shown, hard_edges=hard)
    if isinstance(made, Text):
        return Example(id, place, hard, made.caption, _note(made.more))
    return Example(id, place, hard, "", f"rejected: {getattr(made, 'reason', made)}")


def _note(more: Mapping[str, object]) -> str:
    notes: list[str] = []
    score, candidates = more.get("score"), more.get("candidates")
    if isinstance(score, float):
        notes.append(f"score {score:.3g}")
    if isinstance(candidates, list):
        notes.append("of " + " | ".join(map(str, candidates)))
    return " ".join(notes)
