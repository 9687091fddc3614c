"""A vision-language model writes questions about every image: raw text, kept as it came."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from limner.answering.base import Asker
from limner.curate import askers
from limner.curate.settings import Files, Settings
from limner.data.base import Source
from limner.data.batches import Item, read_ahead
from limner.data.rejects import RejectLog
from limner.data.rows import GrowingRows
from limner.report.images import file_name
from limner.types import Sample


def generate(source: Source, files: Files, asker: Asker, settings: Settings) -> None:
    """Ask about every image that has no text yet. Stopped and started again it goes on.

    Rows are appended batch by batch. An image that does not open, or that the model gave no text for, is
    named in rejects.jsonl and asked about again the next time.

    Raises:
        UserError: nothing to read, or the model cannot be asked at all.
    """
    rows, rejects = GrowingRows(files.raw, ("id", "text")), RejectLog(files.rejects)
    done = {str(row["id"]) for row in rows.existing}
    todo = [index for index, id in enumerate(source.ids()) if id not in done]
    prompt = settings.text_of_prompt()
    for items in _batches(source, todo, settings.batch):
        samples = [item.result for item in items if isinstance(item.result, Sample)]
        for item in items:
            if not isinstance(item.result, Sample):
                rejects.add(item.id, item.result.reason)
        if not samples:
            continue
        images = [askers.encoded(sample.image) for sample in samples]
        replies = asker.ask(
            [askers.message(prompt, image) for image in images],
            max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, seed=settings.seed,
        )  # fmt: skip
        written: list[dict[str, object]] = []
        for sample, image, reply in zip(samples, images, replies, strict=True):
            if reply.text is None:
                rejects.add(sample.id, f"no text from the model: {reply.error}")
            else:
                path = _path(sample, image, files.folder)
                written.append({"id": sample.id, "text": reply.text, "image": path})
        rows.append(written)
        done |= {str(row["id"]) for row in written}
    rejects.forget(done)


def _batches(source: Source, todo: list[int], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(todo), size):
        with closing(read_ahead(source, todo[start : start + size], workers=2, ahead=size)) as items:
            yield list(items)


def _path(sample: Sample, image: bytes, folder: Path) -> str:
    """Where the image is, from the folder; one that is no file of its own is kept there."""
    path = sample.extra.get("path")
    if sample.video is None and isinstance(path, str | Path):
        return Path(os.path.relpath(Path(path).absolute(), os.path.realpath(folder))).as_posix()
    kept = folder / "images" / file_name(sample.id)
    kept = kept.with_suffix(".png" if image.startswith(b"\x89PNG") else ".jpg")
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(image)
    return kept.relative_to(folder).as_posix()
