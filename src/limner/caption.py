"""Captions in bulk: one row an image or video, written as they come; a stopped job is gone on with."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from limner import captioners
from limner.captioners.base import Policy
from limner.data.base import FileSource, Source
from limner.data.batches import Item, read_ahead
from limner.data.media import SUFFIXES
from limner.data.rejects import RejectLog
from limner.data.rows import GrowingRows
from limner.data.video import SUFFIXES as VIDEO_SUFFIXES
from limner.decoding import Decoding
from limner.errors import UserError
from limner.export import load_run
from limner.types import Sample

READERS = 2
"""Threads that open images, and processes that decode videos, while the captioner runs."""


@dataclass(frozen=True)
class CaptionReport:
    """What a captioning job did."""

    written: int
    """Captions written now."""
    skipped_existing: int
    """Images and videos whose caption stood in the output already."""
    rejected: int
    """Images and videos that cannot be used; `rejects.jsonl` beside the output names them."""
    sidecars_kept: int
    """Text files beside them that held something else and were left alone."""

    def __str__(self) -> str:
        """The counts, for people."""
        text = f"{self.written} captions written"
        if self.skipped_existing:
            text += f", {self.skipped_existing} were there already"
        if self.rejected:
            text += f", {self.rejected} rejected (rejects.jsonl says why)"
        if self.sidecars_kept:
            text += f", {self.sidecars_kept} text files that hold something else left alone"
        return text


def caption(
    source: Source,
    out: Path,
    *,
    model: str,
    decoding: Decoding,
    batch: int = 16,
    prompt: str | None = None,
    sidecar: bool = False,
    device: str = "auto",
    dtype: str = "float32",
) -> CaptionReport:
    """Caption every image or video of a source that has no caption in `out` yet.

    Args:
        source: the images or videos.
        out: a JSONL file; rows {"id", "caption", "image"} are appended to it, `image` relative to its
            folder and only for images on disk, `video` for videos. The data source `jsonl` reads rows of
            images.
        model: a captioner: hub id, folder, `world:captioner`, or a run's folder (its best checkpoint).
        decoding: how captions are drawn.
        batch: images or videos captioned together; the next ones are opened meanwhile.
        prompt: text before every caption; the run's own, or none, if None.
        sidecar: write each caption into a .txt file beside its image or video as well.
        device: "auto", "cpu", "cuda", ...
        dtype: of the captioner's frozen parts: "float32", "bfloat16" or "float16"; a run has its own.

    Raises:
        UserError: nothing to read, no such captioner, an output that cannot be written or that holds
            something other than captions, or sidecars for images that are not files.
    """
    ids = source.ids()
    if sidecar and not isinstance(source, FileSource):
        raise UserError(f"{source}: has no image files, so there is nowhere to put text files")
    output = _Output(out, sidecar=sidecar)
    todo = [index for index, id in enumerate(ids) if id not in output.done]
    skipped = len(ids) - len(todo)
    if todo:
        policy = _captioner(model, device=device, dtype=dtype)
        bar = _bar()
        task = bar.add_task(out.name, total=len(ids), completed=skipped, rejected="")
        with bar, closing(read_ahead(source, todo, workers=READERS, ahead=2 * batch)) as items:
            for group in _groups(items, batch):
                samples = [item.result for item in group if isinstance(item.result, Sample)]
                captions = policy.caption(samples, decoding, prompt=prompt) if samples else []
                output.add(group, samples, captions)
                rejected = f"{output.rejected} rejected" if output.rejected else ""
                bar.update(task, advance=len(group), rejected=rejected)
    output.rejects.forget(output.done)
    return CaptionReport(output.written, skipped, output.rejected, output.sidecars_kept)


def _captioner(model: str, *, device: str, dtype: str) -> Policy:
    if (Path(model) / "resolved.json").is_file():
        return load_run(Path(model), device=device)
    return captioners.load(model, device=device, dtype=dtype)


def _groups(items: Iterator[Item], batch: int) -> Iterator[list[Item]]:
    """Items in order, in groups that hold `batch` samples each and what is rejected between them."""
    group: list[Item] = []
    samples = 0
    for item in items:
        group.append(item)
        samples += isinstance(item.result, Sample)
        if samples == batch:
            yield group
            group, samples = [], 0
    if group:
        yield group


class _Output:
    """The files that captions are written to."""

    def __init__(self, out: Path, *, sidecar: bool):
        """Take up what an earlier job left, and write the text files that it did not come to."""
        rejects = out.with_name("rejects.jsonl")
        if out == rejects:
            raise UserError(
                f"{out}: is where what was rejected is named; choose another name for the captions"
            )
        self._rows = GrowingRows(out, ("id", "caption"))
        self._sidecar = sidecar
        self.rejects = RejectLog(rejects)
        self.done = {str(row["id"]) for row in self._rows.existing}
        """Ids that have a caption."""
        self.written = self.rejected = self.sidecars_kept = 0
        # Links are followed, as they are when a program reads "../photo.jpg" from there.
        self._folder = os.path.realpath(out.parent)
        if sidecar:
            for row in self._rows.existing:
                file = row.get("image", row.get("video"))
                if isinstance(file, str) and not _beside(Path(self._folder, file)).exists():
                    _write(_beside(Path(self._folder, file)), str(row["caption"]))

    def add(self, items: Sequence[Item], samples: Sequence[Sample], captions: Sequence[str]) -> None:
        """Write the captions of the samples among the items, and the reasons for the others."""
        for item in items:
            if not isinstance(item.result, Sample):
                self.rejects.add(item.id, item.result.reason)
        self._rows.append(self._row(sample, text) for sample, text in zip(samples, captions, strict=True))
        if self._sidecar:
            for sample, text in zip(samples, captions, strict=True):
                self._add_sidecar(_beside(_file_of(sample)), text)
        self.done.update(sample.id for sample in samples)
        self.written += len(samples)
        self.rejected += len(items) - len(samples)

    def _row(self, sample: Sample, text: str) -> dict[str, str]:
        row = {"id": sample.id, "caption": text}
        if "path" in sample.extra:
            kind = "image" if sample.video is None else "video"
            row[kind] = Path(os.path.relpath(_file_of(sample), self._folder)).as_posix()
        return row

    def _add_sidecar(self, path: Path, text: str) -> None:
        try:
            if path.read_text(encoding="utf-8", errors="replace") != text + "\n":
                self.sidecars_kept += 1
        except FileNotFoundError:
            _write(path, text)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); leave --sidecar out") from error


def _file_of(sample: Sample) -> Path:
    return Path(str(sample.extra["path"])).absolute()


def _beside(image: Path) -> Path:
    """photo.txt for photo.jpg; photo.jpg.txt where there is a photo.png too."""
    own = image.suffix
    others = {case for suffix in (*SUFFIXES, *VIDEO_SUFFIXES, "") for case in (suffix, suffix.upper())} - {
        own
    }
    if any(image.with_suffix(suffix).is_file() for suffix in others):
        return image.with_name(image.name + ".txt")
    return image.with_suffix(".txt")


def _write(path: Path, text: str) -> None:
    """All of the file or nothing, whenever the process is killed."""
    hidden = path.with_name(f".{os.getpid()}.partial")
    try:
        hidden.write_text(text + "\n", encoding="utf-8")
        hidden.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); leave --sidecar out") from error


class _Rate(ProgressColumn):
    """Images or videos a second."""

    def render(self, task: Task) -> Text:
        """Nothing until there is something to measure."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="progress.data.speed")


def _bar() -> Progress:
    return Progress(
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn()),
        *(TimeRemainingColumn(), TextColumn("{task.fields[rejected]}")),
        console=Console(stderr=True),
    )
