"""Files of captions that `limner score` reads: what is measured, and the references it is held against.

The shape is known by what is in the file:

    [{"image_id": 1, "caption": "a dog"}, ...]                  COCO results, LAVIS cap_*.json, VATEX
    {"images": [...], "annotations": [{"image_id", "caption"}]} COCO captions, LAVIS *_gt.json
    {"images": [{"cocoid", "split", "sentences": [{"raw"}]}]}   Karpathy's dataset_coco.json
    {"videos": [{"video_id", "split"}], "sentences": [...]}     MSR-VTT's videodatainfo.json
    {"1": ["a dog", ...], ...}                                  captions by id
    one {"id": "a.jpg", "caption": "a dog"} a line              .jsonl, as `limner caption` writes it

A row's id is the first of `IDS` that it has, its caption (a text, or a list of texts) the first of
`CAPTIONS`. Ids are compared as texts: 17 and "17" are one image. Captions are kept as they stand, empty ones
too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from limner.data.annotations import Row, Wrong, lines, read_json, shown, whole_file
from limner.errors import UserError

IDS = ("image_id", "id", "video_id", "videoID", "image", "video")
CAPTIONS = ("caption", "captions", "enCap")
NAMED = 3
"""Ids named in a message."""

Captions = Mapping[str, Sequence[str]]
"""Captions by id, in the order of the file; none where a file lists an image that nobody captioned."""


class _Entry(NamedTuple):
    id: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Pairs:
    """The images that are scored, each with the captions to measure and its references."""

    candidates: Mapping[str, tuple[str, ...]]
    """The captions to measure by id, one or more an image, in the order of the references."""
    references: Mapping[str, tuple[str, ...]]
    """The references of the same images, one or more each."""
    missing: tuple[str, ...] = ()
    """Ids that have references and no caption; left out."""
    surplus: tuple[str, ...] = ()
    """Ids that have a caption and no reference; left out."""


def read(path: Path, *, splits: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """The captions of a file by id, in one of the shapes that the head of this module lists.

    Args:
        path: the file; `.jsonl` holds one JSON object a line.
        splits: of files that name splits (Karpathy's, MSR-VTT's) only their images; all images if none.

    Raises:
        UserError: the file cannot be read, is not UTF-8 or not JSON, a row has not the shape of the others,
            or there is no caption in it.
    """
    found: dict[str, tuple[str, ...]] = {}
    with whole_file(path):
        for id, captions in _entries(path, splits):
            found[id] = found.get(id, ()) + captions
    if not any(found.values()):
        raise UserError(f"{path}: no caption in this file{_of(splits)}")
    return found


def pair(
    candidates: Captions,
    references: Captions,
    *,
    names: tuple[str, str],
    allow_missing: bool = False,
    several: bool = False,
) -> Pairs:
    """Put captions beside their references, by id.

    Args:
        candidates: the captions to measure.
        references: the references; images without any are as good as not listed.
        names: of the two, for messages.
        allow_missing: leave out images that are in one of the two only, instead of refusing them.
        several: take images with several captions to measure.

    Raises:
        UserError: there are such images, or no image is in both.
    """
    mine = {id: tuple(texts) for id, texts in candidates.items() if texts}
    theirs = {id: tuple(texts) for id, texts in references.items() if texts}
    missing = tuple(id for id in theirs if id not in mine)
    surplus = tuple(id for id in mine if id not in theirs)
    shared = [id for id in theirs if id in mine]
    if not shared or ((missing or surplus) and not allow_missing):
        raise UserError(_mismatch(names, missing, surplus, len(shared)))
    crowded = [id for id in shared if len(mine[id]) > 1]
    if crowded and not several:
        raise UserError(
            f"{names[0]}: {some(crowded, 'image')} with several captions; an image has one caption, or "
            "--several, which gives an image the mean over its captions"
        )
    return Pairs({id: mine[id] for id in shared}, {id: theirs[id] for id in shared}, missing, surplus)


def some(ids: Sequence[str], kind: str) -> str:
    """A count with the first few names: "5 images (a, b, c, ...)"."""
    more = ", ..." if len(ids) > NAMED else ""
    return f"{len(ids)} {kind}{'s' if len(ids) != 1 else ''} ({', '.join(ids[:NAMED])}{more})"


def _mismatch(names: tuple[str, str], missing: Sequence[str], surplus: Sequence[str], shared: int) -> str:
    parts = [f"{names[0]} and {names[1]} are not of the same images: {shared} are in both"]
    for name, ids in ((names[0], surplus), (names[1], missing)):
        if ids:
            parts.append(f"  only in {name}: {some(ids, 'image')}")
    if shared:
        parts.append("  --allow-missing scores those that are in both")
    return "\n".join(parts)


def _entries(path: Path, splits: Collection[str]) -> Iterator[_Entry]:
    if path.suffix == ".jsonl":
        _no_splits(path, splits)
        yield from (_entry(_line(row)) for row in lines(path))
        return
    top = read_json(path)
    if isinstance(top.value, list):
        _no_splits(path, splits)
        yield from map(_entry, top.rows())
        return
    keys = top.of(dict).value
    assert isinstance(keys, dict)
    if "annotations" in keys:
        _no_splits(path, splits)
        images = top.get("images", list).rows() if "images" in keys else ()
        yield from (_Entry(row.get("id").name(), ()) for row in images)
        yield from map(_entry, top.get("annotations", list).rows())
    elif "sentences" in keys:
        yield from _msrvtt(top, splits)
    elif "images" in keys:
        yield from _karpathy(top, splits)
    else:
        _no_splits(path, splits)
        yield from (_Entry(id, _captions(top.get(id))) for id in keys)


def _msrvtt(top: Row, splits: Collection[str]) -> Iterator[_Entry]:
    videos = {row.get("video_id").name(): row for row in top.get("videos", list).rows()}
    kept = {id for id, row in videos.items() if not splits or row.get("split", str).value in splits}
    yield from (_Entry(id, ()) for id in videos if id in kept)
    for row in top.get("sentences", list).rows():
        entry = _entry(row)
        if entry.id in kept:
            yield entry
        elif entry.id not in videos:
            raise Wrong("mismatch", f"{row.place}: {entry.id!r} is not among the videos")


def _karpathy(top: Row, splits: Collection[str]) -> Iterator[_Entry]:
    for row in top.get("images", list).rows():
        if splits and row.get("split", str).value not in splits:
            continue
        given = row.of(dict).value
        assert isinstance(given, dict)
        sentences = [_caption(sentence.get("raw")) for sentence in row.get("sentences", list).rows()]
        yield _Entry(row.get("cocoid" if "cocoid" in given else "imgid").name(), tuple(sentences))


def _entry(row: Row) -> _Entry:
    """A row with its id and its caption or captions."""
    given = row.of(dict).value
    assert isinstance(given, dict)
    id, caption = (next((key for key in keys if key in given), None) for keys in (IDS, CAPTIONS))
    if id is None or caption is None:
        keys = (
            "no id: one of " + ", ".join(IDS) if id is None else "no caption: one of " + ", ".join(CAPTIONS)
        )
        raise Wrong("shape", f"{row.place.strip(': ')}: {shown(given)}: has {keys}")
    return _Entry(row.get(id).name(), _captions(row.get(caption)))


def _captions(row: Row) -> tuple[str, ...]:
    return tuple(map(_caption, row.rows())) if isinstance(row.value, list) else (_caption(row),)


def _caption(row: Row) -> str:
    """A caption as it stands; COCO's tools hold captions by id as {"caption": ...}."""
    if isinstance(row.value, dict):
        row = row.get("caption")
    text = row.of(str).value
    assert isinstance(text, str)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = text[max(0, error.start - 10) : error.end + 10].encode("utf-8", "backslashreplace").decode()
        raise Wrong("encoding", f"{row.place}: not UTF-8: ...{where}...") from None
    return text


def _line(row: Row) -> Row:
    assert isinstance(row.value, str)
    try:
        return Row(json.loads(row.value), f"{row.place}: ")
    except (ValueError, RecursionError) as error:
        raise Wrong("shape", f"{row.place}: no valid JSON ({error})") from None


def _no_splits(path: Path, splits: Collection[str]) -> None:
    if splits:
        raise UserError(f"{path}: names no splits{_of(splits)}; leave --split out")


def _of(splits: Collection[str]) -> str:
    return f" of the split {' or '.join(splits)}" if splits else ""
