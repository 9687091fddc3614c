"""`limner data export llamafactory`: captions as training data for LLaMA-Factory, in its ShareGPT form.

A row of NAME.jsonl is {"id", "messages", "images": [path]}: the user says "<image>" and a prompt, the
assistant the caption. dataset_info.json, which LLaMA-Factory reads first, names the file.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limner.data import named
from limner.data.base import Source
from limner.data.media import open_image
from limner.data.rejects import RejectLog
from limner.data.rows import GrowingRows
from limner.errors import Reject, UserError
from limner.types import Sample

PROMPT = "Please describe this image in detail."
"""What CapRL's captioner is asked (arXiv 2509.22647)."""
PLACEHOLDER = "<image>"
_MARKERS = ("<image>", "<video>", "<audio>")
"""LLaMA-Factory puts media in the place of these wherever they stand; a caption must not hold one."""
INFO = "dataset_info.json"
_AT_ONCE = 1000
"""Rows written at a time."""


@dataclass(frozen=True)
class Form:
    """How the rows are made."""

    prompt: str = PROMPT
    """What is asked about every image."""
    relative: bool = False
    """Name images relative to the output folder instead of absolutely."""
    copy: bool = False
    """Put the images into `images/` of the output folder; those of the miniature world become files so."""
    quick: bool = False
    """Look that image files are there without opening them."""


@dataclass(frozen=True)
class ExportReport:
    """What an export did."""

    written: int
    """Rows written now."""
    skipped_existing: int
    """Rows that stood in the output already."""
    rejects: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often each reason was given for a row that cannot be used; `rejects.jsonl` names the rows."""

    def __str__(self) -> str:
        """The counts, for people."""
        text = f"{self.written} rows written"
        if self.skipped_existing:
            text += f", {self.skipped_existing} were there already"
        if self.rejects:
            text += f", {sum(self.rejects.values())} rejected (rejects.jsonl says why)"
        return text


def llamafactory(
    captions: Path, out: Path, *, data: str | None = None, name: str = "captions", form: Form | None = None
) -> ExportReport:
    """Write a file of captions as a data set of LLaMA-Factory; a stopped export is gone on with.

    Args:
        captions: JSONL of rows {"id", "caption", "image"} as `limner caption` writes them; a row without an
            id is named by its image. Image paths start from the file's folder.
        out: LLaMA-Factory's `dataset_dir`: gets NAME.jsonl, rejects.jsonl, and an entry in dataset_info.json,
            whose other entries stay.
        data: source of the images, found by id, where the rows name no image files.
        name: of the data set.
        form: how the rows are made.

    Raises:
        UserError: the captions cannot be read, the output holds something else, or not one row can be used.
    """
    if not name or any(not (letter.isalnum() or letter in "_-.") for letter in name) or name == "rejects":
        raise UserError(f"--name {name}: letters, digits, '_', '-' and '.' only, and not 'rejects'")
    info = _info(out)
    writer = _Writer(out, name, form or Form(), None if data is None else named.source(data))
    written = 0
    waiting: list[dict[str, Any]] = []
    for row in writer.rows(captions):
        waiting.append(row)
        if len(waiting) == _AT_ONCE:
            writer.file.append(waiting)
            written, waiting = written + len(waiting), []
    writer.file.append(waiting)
    written += len(waiting)
    writer.rejects.forget(writer.done)
    if not writer.done:
        raise UserError(f"{captions}: not one row can be used; {writer.rejects.path} says why")
    _write_info(out, {**info, name: entry(f"{name}.jsonl")})
    return ExportReport(written, writer.skipped, dict(writer.rejects.reasons))


def entry(file_name: str) -> dict[str, Any]:
    """What dataset_info.json says of a file of such rows."""
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
        },
    }


class _Writer:
    """The output, and which rows stand in it."""

    def __init__(self, out: Path, name: str, form: Form, source: Source | None):
        self._out, self._form, self._source = out, form, source
        self._places = {} if source is None else {id: place for place, id in enumerate(source.ids())}
        self.rejects = RejectLog(out / "rejects.jsonl")
        self.file = GrowingRows(out / f"{name}.jsonl", ("id",))
        self._before = {str(row["id"]): _said(row) for row in self.file.existing}
        self.file.existing.clear()
        self.done = set(self._before)
        """Ids that have a row."""
        self.skipped = 0

    def rows(self, captions: Path) -> Iterator[dict[str, Any]]:
        """The rows that are not there yet; what cannot be used is recorded."""
        seen: set[str] = set()
        for number, line in _lines(captions):
            id = f"{captions.name}:{number}"
            try:
                row = _parse(line)
                id = _id(row)
                if id in seen:
                    raise Reject("the id comes a second time")
                seen.add(id)
                caption = _caption(row)
                if id in self._before:
                    self._compare(id, caption)
                    self.skipped += 1
                    continue
                made = self._row(id, caption, self._image(id, row, captions.absolute().parent))
            except Reject as reject:
                self.rejects.add(id, reject.reason)
                continue
            self.done.add(id)
            yield made

    def _row(self, id: str, caption: str, image: str) -> dict[str, Any]:
        question = {"role": "user", "content": f"{PLACEHOLDER}{self._form.prompt}"}
        answer = {"role": "assistant", "content": caption}
        return {"id": id, "messages": [question, answer], "images": [image]}

    def _compare(self, id: str, caption: str) -> None:
        """Refuse an output that was made of other captions or with another prompt."""
        if self._before[id] != (f"{PLACEHOLDER}{self._form.prompt}", caption):
            raise UserError(
                f"{self.file.path}: has another prompt or caption for {id!r}: it was written from other "
                "captions; give another --name, or move it away"
            )

    def _image(self, id: str, row: Mapping[str, Any], folder: Path) -> str:
        """The path of a row's image as it is written."""
        sample, path = None, row.get("image")
        if isinstance(path, str) and path:
            file: Path | None = folder / path
        elif self._source is None:
            raise Reject("no image in the row; --data says where the images are")
        else:
            sample = self._sample(id)
            file = Path(str(sample.extra["path"])).absolute() if "path" in sample.extra else None
        if file is not None and not file.is_file():
            raise Reject("the image file is missing")
        if sample is None and not self._form.quick:
            assert file is not None
            open_image(file)
        if self._form.copy:
            file = self._copied(id, file, sample)
        if file is None:
            raise Reject("the image is no file; --copy writes it as one")
        # Links are followed, as they are when a program reads "../photo.jpg" from there.
        file = Path(os.path.realpath(file.parent), file.name)
        if not self._form.relative:
            return file.as_posix()
        return Path(os.path.relpath(file, os.path.realpath(self._out))).as_posix()

    def _sample(self, id: str) -> Sample:
        assert self._source is not None
        if id not in self._places:
            raise Reject("the data has no image of this id")
        sample = self._source.read(self._places[id])
        if sample.video is not None:
            raise Reject("a video; only images are exported")
        return sample

    def _copied(self, id: str, file: Path | None, sample: Sample | None) -> Path:
        """The image in the output folder, whole or not at all."""
        suffix = ".png" if file is None else file.suffix.lower()
        safe = "".join(
            letter if letter.isalnum() or letter in "-_." else f"%{ord(letter):x}" for letter in id
        )
        target = self._out / "images" / (safe.removesuffix(suffix).lstrip(".") + suffix)
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{os.getpid()}.partial{suffix}")
        try:
            if file is not None:
                shutil.copyfile(file, beside)
            else:
                assert sample is not None
                sample.image.save(beside)
            beside.replace(target)
        except OSError as error:
            raise UserError(f"{target}: cannot be written ({error.strerror})") from error
        return target


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that hold something, with their numbers."""
    try:
        with path.open("rb") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _parse(line: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise Reject("no valid JSON") from None
    if not isinstance(row, dict):
        raise Reject("no JSON object")
    return row


def _id(row: Mapping[str, Any]) -> str:
    id = row.get("id", row.get("image"))
    if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
        raise Reject("neither an id nor an image")
    return str(id)


def _caption(row: Mapping[str, Any]) -> str:
    caption = row.get("caption")
    if not isinstance(caption, str) or not caption.strip():
        raise Reject("no caption")
    for marker in _MARKERS:
        if marker in caption:
            raise Reject(f"the caption holds {marker}, which LLaMA-Factory takes for the place of a medium")
    return caption.strip()


def _said(row: Mapping[str, Any]) -> tuple[str, str]:
    """Prompt and caption of a row that was written before."""
    messages = row.get("messages")
    if not isinstance(messages, list) or len(messages) != 2:
        return ("", "")
    return str(messages[0].get("content")), str(messages[1].get("content"))


def _info(out: Path) -> dict[str, Any]:
    """The data sets that dataset_info.json names already."""
    path = out / INFO
    try:
        found = json.loads(path.read_text(encoding="utf8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); mend it, or move it away") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no JSON object; mend it, or move it away")
    return found


def _write_info(out: Path, info: Mapping[str, Any]) -> None:
    beside = out / f".{os.getpid()}.partial"
    beside.write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
    beside.replace(out / INFO)
