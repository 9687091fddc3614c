"""Prism's first stage: captions of every image, written once and kept in captions.jsonl."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from limner.data.media import MAX_BYTES, open_image
from limner.data.rows import GrowingRows
from limner.errors import Reject, UserError
from limner.prism.items import Item
from limner.prism.reading import QuestionSet
from limner.prism.writers import Writer, digest

Told = Callable[[int], None]
"""Is told how many images or questions are done."""


@dataclass(frozen=True)
class Captions:
    """What was written of the images of all sets."""

    texts: Mapping[str, Sequence[str]]
    """Captions by the image's content."""
    content: Mapping[Path, str]
    """The content of each image file, hashed."""
    failed: Mapping[str, str]
    """Why an image has no captions, by content."""
    count: int
    """n, captions an image that were asked for."""

    def of(self, item: Item) -> list[str | None]:
        """(n,) the captions a question is answered from; None where one was not written.

        A question about several images is asked behind "Image 1: ...", "Image 2: ...", each image captioned
        for itself.
        """
        rows = [self.texts.get(self.content[path], ()) for path in item.images]
        drawn = [[row[draw] if draw < len(row) else None for row in rows] for draw in range(self.count)]
        return [_joined(texts) for texts in drawn]


def _joined(texts: Sequence[str | None]) -> str | None:
    known = [text for text in texts if text is not None]
    if len(known) < len(texts):
        return None
    if len(known) == 1:
        return known[0]
    return "\n\n".join(f"Image {place}: {text}" for place, text in enumerate(known, 1))


def contents(sets: Iterable[QuestionSet]) -> dict[Path, str]:
    """The content of every image file, hashed. Questions whose image cannot be read are rejected."""
    found: dict[Path, str | Reject] = {}
    for set_ in sets:
        for item in list(set_.items):
            for path in item.images:
                if path not in found:
                    found[path] = _hashed(path)
            for path in item.images:
                value = found[path]
                if isinstance(value, Reject):
                    set_.reject(item, f"image {path.name}: {value.reason}")
                    break
    return {path: value for path, value in found.items() if isinstance(value, str)}


def _hashed(path: Path) -> str | Reject:
    try:
        if path.stat().st_size > MAX_BYTES:
            return Reject(f"file of {path.stat().st_size:,} bytes, more than the limit of {MAX_BYTES:,}")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Reject(f"cannot be read: {(error.strerror or str(error)).lower()}")


class CaptionFile:
    """captions.jsonl: what was written of images, by content and by who wrote how."""

    def __init__(self, path: Path, writer: Writer, *, seed: int):
        """Take up what an earlier job left.

        Raises:
            UserError: the file holds something else.
        """
        self.writer, self.seed = writer, seed
        self.settings = digest([dict(writer.identity), seed])
        self._rows = GrowingRows(path, ("settings", "sha256"))
        self._folder = os.path.realpath(path.parent)
        self.known: dict[str, list[str]] = {}
        """Captions by content, those of these settings."""
        for row in self._rows.existing:
            texts = row.get("captions")
            if row["settings"] == self.settings and isinstance(texts, list):
                self.known.setdefault(str(row["sha256"]), []).extend(map(str, texts))

    def write(
        self, images: Mapping[str, Path], count: int, *, batch: int, done: Told
    ) -> tuple[dict[str, str], dict[str, Reject]]:
        """Write what is missing.

        Args:
            images: a file of every content.
            count: n, captions an image.
            batch: images in one pass.
            done: is told of every batch.

        Returns:
            Why images have no captions, by content: those whose captioning failed, which is tried again next
            time, and those that do not open.
        """
        failed: dict[str, str] = {}
        broken: dict[str, Reject] = {}
        missing: dict[int, list[str]] = {}
        for content in images:
            wanted = count - len(self.known.get(content, ()))
            if wanted > 0:
                missing.setdefault(wanted, []).append(content)
        done(len(images) - sum(map(len, missing.values())))
        for wanted, names in missing.items():
            for start in range(0, len(names), batch):
                group = names[start : start + batch]
                opened = _opened({name: images[name] for name in group}, broken)
                self._add(opened, images, wanted, failed)
                done(len(group))
        return failed, broken

    def _add(
        self,
        opened: Mapping[str, Image.Image],
        images: Mapping[str, Path],
        count: int,
        failed: dict[str, str],
    ) -> None:
        if not opened:
            return
        first = next(iter(opened))
        # a job that was killed draws for a batch what it would have drawn
        seed = int(digest([self.settings, first, len(self.known.get(first, ()))]), 16) % 2**31
        written = self.writer.write(list(opened.values()), count, seed=seed)
        rows = []
        for content, texts in zip(opened, written, strict=True):
            if isinstance(texts, str):
                failed[content] = texts
                continue
            self.known.setdefault(content, []).extend(texts)
            image = Path(os.path.relpath(images[content].absolute(), self._folder)).as_posix()
            row = {"settings": self.settings, "sha256": content, "image": image}
            rows.append({**row, "captioner": self.writer.name, "captions": texts})
        self._rows.append(rows)


def _opened(images: Mapping[str, Path], broken: dict[str, Reject]) -> dict[str, Image.Image]:
    found: dict[str, Image.Image] = {}
    for content, path in images.items():
        try:
            found[content] = open_image(path)
        except Reject as reject:
            broken[content] = reject
    return found


def given_captions(path: Path, content: Mapping[Path, str]) -> tuple[dict[str, list[str]], list[Path]]:
    """Captions of images from a file that somebody else wrote.

    Rows are those of `limner caption` {"id", "caption", "image"}, or name several: "captions". A row belongs
    to an image by its content ("sha256"), its path ("image", relative to the file), or its id, if that is
    the path's end.

    Returns:
        Captions by content, and the images without one.

    Raises:
        UserError: the file cannot be read, or a row is not like that.
    """
    by_path: dict[str, list[str]] = {}
    by_content: dict[str, list[str]] = {}
    written_by: set[object] = set()
    folder = os.path.realpath(path.parent)
    for number, row in _rows(path):
        given = row.get("captions", row.get("caption"))
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or not texts:
            raise UserError(f'{path}: line {number}: a row needs "caption" or "captions"')
        hashed = row.get("sha256")
        if isinstance(hashed, str):
            written_by.add(row.get("settings"))
            if len(written_by) > 1:
                raise UserError(
                    f"{path}: line {number}: captions of two captioners in one file; give their folder"
                )
            by_content.setdefault(hashed, []).extend(texts)
            continue
        names = [name for key in ("image", "id") if isinstance(name := row.get(key), str)]
        if not names:
            raise UserError(f'{path}: line {number}: a row needs "image", "id" or "sha256"')
        for name in {os.path.realpath(os.path.join(folder, names[0])), *names}:
            by_path.setdefault(name, []).extend(texts)
    found: dict[str, list[str]] = {}
    missing: list[Path] = []
    for file, hashed in content.items():
        texts = by_content.get(hashed) or by_path.get(os.path.realpath(file)) or _by_name(file, by_path)
        if texts:
            found.setdefault(hashed, texts)
        elif hashed not in found:
            missing.append(file)
    return found, [file for file in missing if content[file] not in found]


def _by_name(file: Path, by_path: Mapping[str, list[str]]) -> list[str] | None:
    """By the end of the path, the longest first: "charts/7.png" before "7.png" before "7"."""
    parts = file.parts
    ends = ["/".join(parts[start:]) for start in range(len(parts))] + [file.stem]
    return next((by_path[end] for end in ends if end in by_path), None)


def _rows(path: Path) -> Iterable[tuple[int, dict[str, object]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}: line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}: line {number} is no JSON object")
            yield number, row
