"""Who writes the captions that are measured: a captioner, a run, a file, or people."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from limner import checkpoint
from limner.captioners import load
from limner.config import load_resolved
from limner.data.batches import read_ahead
from limner.decoding import PUBLISHED, Decoding
from limner.errors import UserError
from limner.export import load_run
from limner.types import Sample

if TYPE_CHECKING:
    from limner.captioners.base import Policy
    from limner.data.base import Source

REFERENCES = "references"
"""Stands for the captions that the data comes with."""


@dataclass(frozen=True)
class Author:
    """One who writes a caption for each sample."""

    name: str
    """As it was named on the command line."""
    write: Callable[[Sequence[Sample]], list[str]]
    """B samples -> B captions."""
    captioner: Policy | None = None
    """The captioner, where it is one."""
    decoding: Decoding | None = None
    """How it writes, where it is a captioner."""


def author(
    model: str,
    *,
    source: Source,
    samples: int | None = None,
    decoding: Decoding | None = None,
    device: str = "auto",
    dtype: str = "float32",
) -> Author:
    """Find out what was named, and load it.

    Args:
        model: a captioner checkpoint, a run directory (its best checkpoint) or one of its checkpoints, a
            .jsonl file of captions, or "references".
        source: what will be captioned.
        samples: how many of the source's samples; all if None.
        decoding: how captions are written; if None as the run's recipe says in `evaluate.test_decoding`, and
            for checkpoints as VLRM was evaluated.
        device: where a captioner runs.
        dtype: of the frozen parts of a checkpoint; a run's recipe tells its own.

    Raises:
        UserError: there is no such thing, or it has no captions for the source.
    """
    path = Path(model)
    if model == REFERENCES:
        return Author(model, _references)
    if path.suffix == ".jsonl":
        return _file_author(path, source, samples)
    if path.is_file():
        raise UserError(f"{model}: give a checkpoint, a run directory, or a .jsonl file of captions")
    chosen = checkpoint.named(model)
    if chosen is not None:
        return _run_author(chosen, decoding, device=device)
    policy = load(model, device=device, dtype=dtype)
    return _captioner_author(model, policy, decoding or PUBLISHED)


def _run_author(chosen: Path, decoding: Decoding | None, *, device: str) -> Author:
    run, step = chosen.parents[1], checkpoint.step_of(chosen)
    policy = load_run(run, str(step), device=device)
    decoding = decoding or load_resolved(run / "resolved.json").evaluate.test_decoding
    return _captioner_author(f"{run.name} at step {step}", policy, decoding)


def _captioner_author(name: str, policy: Policy, decoding: Decoding) -> Author:
    return Author(name, lambda samples: policy.caption(samples, decoding), policy, decoding)


def _file_author(path: Path, source: Source, samples: int | None) -> Author:
    """Refuses a file that lacks the caption of a usable image, before anything slow is done."""
    captions = read_captions(path)
    missing = [place for place, id in enumerate(source.ids()[:samples]) if id not in captions]

    def write(samples: Sequence[Sample]) -> list[str]:
        for sample in samples:
            if sample.id not in captions:
                raise UserError(
                    f"{path}: no caption of {sample.id}; the file has {len(captions)} captions, "
                    f"{source} has {len(source)} images, {len(missing)} or more of them without a caption"
                )
        return [captions[sample.id] for sample in samples]

    with closing(read_ahead(source, missing, workers=1, ahead=1)) as items:
        for item in items:
            if isinstance(item.result, Sample):  # `limner caption` could use it too
                write([item.result])
    return Author(str(path), write)


def read_captions(path: Path) -> dict[str, str]:
    """Captions by id, from a file of lines {"id": ..., "caption": ...} as `limner caption` writes it.

    Raises:
        UserError: the file cannot be read, a row is not like that, or an id comes twice.
    """
    captions: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}: line {number} is not JSON: {error}") from error
        id, caption = (row.get("id"), row.get("caption")) if isinstance(row, dict) else (None, None)
        if not isinstance(id, str) or not isinstance(caption, str):
            raise UserError(f'{path}: line {number}: a row needs "id" and "caption", both texts')
        if id in captions:
            raise UserError(f"{path}: line {number}: the id {id!r} comes a second time")
        captions[id] = caption
    if not captions:
        raise UserError(f"{path}: no caption in this file")
    return captions


def _references(samples: Sequence[Sample]) -> list[str]:
    for sample in samples:
        if not sample.references:
            raise UserError(f"{REFERENCES}: {sample.id} comes without a caption")
    return [sample.references[0] for sample in samples]
