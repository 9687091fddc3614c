"""Writes images with questions, as CapRL-QA-75K or limner has them, to JSONL or parquet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from limner.data import qa_rows
from limner.data.qa_files import parquet
from limner.data.qa_rows import QuestionRow
from limner.data.rows import line_of
from limner.errors import Reject, UserError
from limner.report.images import file_name

Form = Literal["limner", "caprl"]
PROMPT = "Please describe this image in detail."
"""What CapRL's captioner is asked; rows of the published form have it where they bring no prompt."""
GROUP = 64
"""Rows of a row group: few, so that a row at random costs little to read."""
_SUFFIXES = {
    b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"II*\0": ".tif",
    b"MM\0*": ".tif", b"BM": ".bmp",
}  # fmt: skip


def write(rows: Iterable[tuple[str, QuestionRow]], out: Path, *, form: Form = "limner") -> int:
    """Write rows to one file, which appears when it is whole.

    Args:
        rows: ids and rows, in order; read one by one.
        out: a .parquet file, which holds the images, or a .jsonl file, which names them: images without a
            file of their own are put into a folder beside it, `NAME-images`.
        form: "limner": `{id, image, questions: [{question, options, answer: 2, kind}]}`; "caprl": `{id,
            image, prompt, data_source, reward_model: {ground_truth: [{question, choices, answer: "C"}]}}`.

    Returns:
        How many rows were written.

    Raises:
        UserError: the file cannot be written, or its name says neither.
    """
    if out.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"{out}: questions are written to a .jsonl or a .parquet file")
    plain = _limner if form == "limner" else _caprl
    with _whole(out) as beside:
        if out.suffix == ".parquet":
            return _parquet(beside, ((plain(id, row), row.image) for id, row in rows))
        count = 0
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            for id, row in rows:
                file.write(line_of(_with_image(plain(id, row), _file(row.image, id, out))))
                count += 1
        return count


def _limner(id: str, row: QuestionRow) -> dict[str, object]:
    captions = {"captions": list(row.captions)} if row.captions else {}
    return {"id": id, "image": None, "questions": [q.plain() for q in row.questions], **captions}


def _caprl(id: str, row: QuestionRow) -> dict[str, object]:
    return {
        "id": id, "image": None, "prompt": [{"role": "user", "content": row.prompt or PROMPT}],
        "data_source": row.data_source,
        "reward_model": {"ground_truth": [qa_rows.plain(question) for question in row.questions]},
    }  # fmt: skip


def _with_image(row: dict[str, object], image: object) -> dict[str, object]:
    return {**row, "image": image}


def _file(image: bytes | Path, id: str, out: Path) -> str:
    """Path of an image relative to the JSONL file; an image without a file is given one."""
    if isinstance(image, Path):
        return Path(os.path.relpath(image.absolute(), os.path.realpath(out.parent))).as_posix()
    folder = out.with_name(out.stem + "-images")
    folder.mkdir(exist_ok=True)
    path = (folder / file_name(id)).with_suffix(_suffix(image))
    path.write_bytes(image)
    return f"{folder.name}/{path.name}"


def _suffix(content: bytes) -> str:
    return next((suffix for magic, suffix in _SUFFIXES.items() if content.startswith(magic)), ".img")


def _content(image: bytes | Path) -> dict[str, object]:
    if isinstance(image, bytes):
        return {"bytes": image, "path": None}
    try:
        return {"bytes": image.read_bytes(), "path": image.name}
    except OSError as error:
        raise Reject(f"{image}: cannot be read ({error.strerror})") from None


def _parquet(path: Path, rows: Iterable[tuple[dict[str, object], bytes | Path]]) -> int:
    arrow = import_module("pyarrow") if parquet() else None
    writer: Any = None
    group: list[dict[str, object]] = []
    count = 0
    try:
        for row, image in rows:
            group.append(_with_image(row, _content(image)))
            writer = writer or parquet().ParquetWriter(path, _schema(arrow, row))
            count += 1
            if len(group) == GROUP:
                writer.write_table(arrow.Table.from_pylist(group, schema=writer.schema))  # pyright: ignore[reportOptionalMemberAccess]
                group = []
        if writer is None:
            raise UserError("not one row to write")
        if group:
            writer.write_table(arrow.Table.from_pylist(group, schema=writer.schema))  # pyright: ignore[reportOptionalMemberAccess]
    finally:
        if writer is not None:
            writer.close()
    return count


def _schema(arrow: Any, row: dict[str, object]) -> Any:
    """The columns of the published set, or of limner's rows."""
    text = arrow.string()
    texts = arrow.list_(text)
    columns = {"id": text, "image": arrow.struct({"bytes": arrow.binary(), "path": text})}
    if "reward_model" in row:
        asked = arrow.struct({"question": text, "choices": texts, "answer": text})
        columns |= {
            "prompt": arrow.list_(arrow.struct({"role": text, "content": text})), "data_source": text,
            "reward_model": arrow.struct({"ground_truth": arrow.list_(asked)}),
        }  # fmt: skip
    else:
        asked = arrow.struct({"question": text, "options": texts, "answer": arrow.int64(), "kind": text})
        columns |= {"questions": arrow.list_(asked), "captions": texts}
    return arrow.schema(columns)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A file beside the one that is written, which takes its place at the end."""
    beside = out.with_name(out.name + ".partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        beside.unlink(missing_ok=True)
