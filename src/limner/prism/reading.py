"""Reads files of questions: the JSON of the published sets, VLMEvalKit's TSV, questions of limner's data."""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limner.data import media
from limner.data.named import source as source_of
from limner.errors import Reject, UserError
from limner.prism.answers import listed
from limner.prism.items import BOXED, LETTER, Item, gold_of, options_in, turns_of
from limner.prism.sets import Named
from limner.questions import LETTERS, Question, questions_of
from limner.report.images import file_name
from limner.types import Sample

Row = Mapping[str, Any]
_OTHERS = 64
"""VLMEvalKit writes the image of another row as that row's index: shorter than any picture."""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be asked."""

    set: str
    """Name of the set."""
    file: str
    """As it was given."""
    row: int
    """Line of a JSONL file, element of a JSON list or row of a TSV below its header, from 1."""
    reason: str
    """Why, in a sentence."""


@dataclass
class QuestionSet:
    """The questions of one file."""

    named: Named
    """What was asked for."""
    items: list[Item] = field(default_factory=list[Item])
    """Questions that can be asked."""
    rejected: list[Rejected] = field(default_factory=list[Rejected])
    """Rows that cannot."""

    def reject(self, item: Item, reason: str) -> None:
        """Take a question out, whose image turned out to be unusable."""
        self.items.remove(item)
        self._add(int(item.id.rpartition("/")[2]), reason)

    def _add(self, row: int, reason: str) -> None:
        self.rejected.append(Rejected(self.named.name, self.named.path, row, reason))

    def take(self, number: int, make: Callable[..., Item], *given: Any) -> None:
        """Add the item that `make(set, number, *given)` gives, or the reason why it gives none."""
        try:
            self.items.append(make(self.named, number, *given))
        except Reject as reject:
            self._add(number, reject.reason)


def read_set(
    named: Named, *, pictures: Path, root: Path | None = None, limit: int | None = None
) -> QuestionSet:
    """The questions of a set.

    Args:
        named: the file, or the data, and its kind.
        pictures: folder that pictures inside the file are unpacked into.
        root: folder that image paths start from; that of the file if None.
        limit: only the first so many rows.

    Raises:
        UserError: the file cannot be read or holds no question that can be asked.
    """
    found = QuestionSet(named)
    path = Path(named.path).expanduser()
    if named.kind == "questions":
        _read_data(found, pictures, limit)
    elif path.suffix.lower() == ".tsv":
        _read_tsv(found, path, pictures, root or path.parent, limit)
    else:
        for number, row in _json_rows(path):
            if limit is not None and len(found.items) + len(found.rejected) >= limit:
                break
            found.take(number, _item, row, root or path.parent)
    if not found.items:
        first = f"; row {found.rejected[0].row}: {found.rejected[0].reason}" if found.rejected else ""
        raise UserError(f"{named.path}: holds no question that can be asked{first}")
    return found


def _item(named: Named, number: int, row: object, root: Path) -> Item:
    """A published row: {image: path or paths, prompt, answer}."""
    if isinstance(row, Reject):
        raise row
    if not isinstance(row, Mapping):
        raise Reject("no JSON object")
    prompt = row.get("prompt", row.get("question"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise Reject("no question in `prompt`")
    images = _existing(_paths(row.get("image", row.get("images"))), root)
    given = row.get("options", row.get("choices"))
    turns = turns_of(prompt)
    if given is not None:
        options = _given_options(given)
        if not options_in(turns[-1][1]):
            turns = (*turns[:-1], (turns[-1][0], f"{turns[-1][1]}\n{_shown(options)}"))
    else:
        options = options_in(turns[-1][1])
    gold, scorer = gold_of(row.get("answer"), options, named.rules)
    return Item(f"{named.name}/{number}", images, turns, gold, scorer, row.get("answer"))


def _paths(value: object) -> list[str]:
    """Image paths: one, a list, or chat messages whose parts hold {"type": "image", "image": path}."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, Mapping):
        return _paths(value.get("image", value.get("content")))
    return [path for part in value for path in _paths(part)] if isinstance(value, list) else []


def _existing(paths: list[str], root: Path) -> tuple[Path, ...]:
    if not paths:
        raise Reject("no image")
    found = [root / Path(path).expanduser() for path in paths]
    for path, name in zip(found, paths, strict=True):
        if not path.is_file():
            raise Reject(f"image {name}: no such file")
    return tuple(found)


def _given_options(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(option, str) and option.strip() for option in value):
        raise Reject("options must be a list of texts")
    if len(value) >= len(LETTERS):
        raise Reject(f"{len(value)} options; there are letters for 25")
    lettered = options_in("\n".join(value))  # ["A) red", "B) blue"], as CapRL-QA-75K has them
    return lettered if len(lettered) == len(value) else tuple(option.strip() for option in value)


def _shown(options: tuple[str, ...]) -> str:
    return "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, options, strict=False))


def _json_rows(path: Path) -> Iterator[tuple[int, object]]:
    """(number, row) of a JSON list or a JSONL file, told by its beginning; a broken line is a Reject."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text") from error
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: is not JSON: {error}") from error
        yield from enumerate(rows, 1)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, Reject(f"no valid JSON ({error})")


def _read_tsv(found: QuestionSet, path: Path, pictures: Path, root: Path, limit: int | None) -> None:
    """VLMEvalKit's table: index, image (base64) or image_path, question, A, B, ..., answer, hint."""
    unpacked: dict[str, tuple[Path, ...]] = {}
    csv.field_size_limit(min(sys.maxsize, 2 * media.MAX_BYTES))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t")
            missing = {"question", "answer"} - set(rows.fieldnames or ())
            if missing:
                raise UserError(f"{path}: no column {' and '.join(sorted(missing))} in its first line")
            for number, row in enumerate(rows, 1):
                if limit is not None and number > limit:
                    break
                found.take(number, _tsv_item, row, unpacked, pictures, root)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is no table of UTF-8 text with tabs ({error})") from error


def _tsv_item(
    named: Named, number: int, row: Row, unpacked: dict[str, tuple[Path, ...]], pictures: Path, root: Path
) -> Item:
    index = str(row.get("index") or number)
    images = _tsv_images(row, unpacked, pictures, root)
    unpacked[index] = images
    columns = [(row.get(letter) or "").strip() for letter in LETTERS]
    options = tuple(columns[: next((k for k, text in enumerate(columns) if not text), len(columns))])
    question = (row.get("question") or "").strip()
    if not question:
        raise Reject("no question")
    if (row.get("hint") or "").strip():
        question = f"Hint: {str(row['hint']).strip()}\n{question}"
    answer: object = (row.get("answer") or "").strip()
    if named.rules.scorer in ("anls", "exact") and isinstance(answer, str):
        answer = listed(answer) or answer
    return _asked(named, number, question, options, answer, images)


def _asked(
    named: Named,
    number: int,
    question: str,
    options: tuple[str, ...],
    answer: object,
    images: tuple[Path, ...],
) -> Item:
    """A question whose prompt is ours to write."""
    text = "\n".join(["", question, *([_shown(options)] if options else [])])
    gold, scorer = gold_of(answer, options or options_in(question), named.rules)
    instruction = LETTER if scorer == "choice" else BOXED
    return Item(f"{named.name}/{number}", images, (("user", text),), gold, scorer, answer, instruction)


def _tsv_images(
    row: Row, unpacked: dict[str, tuple[Path, ...]], pictures: Path, root: Path
) -> tuple[Path, ...]:
    content = (row.get("image") or "").strip()
    if content and len(content) <= _OTHERS:
        if content not in unpacked:
            raise Reject(f"its image is that of row {content!r}, which has none or comes later")
        return unpacked[content]
    if content:
        return tuple(_unpacked(part, pictures) for part in listed(content) or [content])
    name = (row.get("image_path") or "").strip()
    return _existing(listed(name) or ([name] if name else []), root)


def _unpacked(content: str, pictures: Path) -> Path:
    """A picture in base64 as a file named by its content."""
    try:
        data = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise Reject("its image is no base64") from None
    return _kept(data, pictures / f"{hashlib.sha256(data).hexdigest()[:32]}.img")


def _kept(data: bytes, path: Path) -> Path:
    if not path.is_file() or path.read_bytes() != data:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(".writing")
            beside.write_bytes(data)
            beside.replace(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def _read_data(found: QuestionSet, pictures: Path, limit: int | None) -> None:
    """The questions that samples of limner's own data hold."""
    source = source_of(found.named.path)
    number = 0
    for index in range(len(source.ids())):
        try:
            sample = source.read(index)
            questions = questions_of(sample)
        except Reject as reject:
            sample, questions = reject, (None,)
        for question in questions:
            if number == limit:
                return
            number += 1
            found.take(number, _data_item, sample, question, pictures)


def _data_item(
    named: Named, number: int, sample: Sample | Reject, question: Question | None, pictures: Path
) -> Item:
    if isinstance(sample, Reject) or question is None:
        raise sample if isinstance(sample, Reject) else Reject("no question")
    image = _picture(sample, pictures)
    return _asked(named, number, question.text, question.options, LETTERS[question.answer], (image,))


def _picture(sample: Sample, pictures: Path) -> Path:
    """The file of a sample's image; one without a file is written as PNG and named by the sample."""
    if "path" in sample.extra:
        return Path(str(sample.extra["path"]))
    buffer = io.BytesIO()
    sample.image.save(buffer, "PNG")
    return _kept(buffer.getvalue(), pictures / file_name(sample.id))
