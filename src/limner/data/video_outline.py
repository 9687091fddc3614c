"""Whether a video file is all there, by what its own outline says: boxes, chunks or elements and their sizes.

FFmpeg plays what there is of a file that was cut off, so a half downloaded video would pass for a short one.
MPEG streams (.ts, .mpg, raw H.264) and FLV have no outline: of them what is there is used.
"""

from __future__ import annotations

from typing import BinaryIO

TRUNCATED = "truncated video file"
_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"moof", b"mfra", b"styp", b"sidx"}
    | {b"meta", b"pnot", b"udta", b"emsg", b"prft", b"pdin"}
)
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def problem(file: BinaryIO, size: int) -> str | None:
    """What is wrong with the outline of a file, in words; None where nothing is, or it has none.

    Args:
        file: at its beginning.
        size: its bytes.
    """
    head = file.read(16)
    if head[4:8] in _BOXES:
        return _boxes(file, size)
    if head[:4] == b"RIFF" and 8 + int.from_bytes(head[4:8], "little") > size + 1:
        return TRUNCATED
    if head[:4] == _EBML:
        return _elements(file, size)
    return None


def _boxes(file: BinaryIO, size: int) -> str | None:
    """MP4, MOV, 3GP: boxes of [size, type, content], the index of the frames in one of them."""
    place, kinds = 0, set[bytes]()
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if kind not in _BOXES:
            break
        kinds.add(kind)
        if length == 0:
            break
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if place + length > size:
            return TRUNCATED
        place += max(length, 8)
    if b"mdat" in kinds and not kinds & {b"moov", b"moof"}:
        return f"{TRUNCATED}: its index is missing"
    return None


def _elements(file: BinaryIO, size: int) -> str | None:
    """Matroska, WebM: a header element, then one segment, whose size is unknown in live recordings."""
    place = 4
    header = _number(file, place)
    if header is None:
        return TRUNCATED
    place = header[1] + header[0]
    file.seek(place)
    if file.read(4) != _SEGMENT:
        return TRUNCATED if place + 4 > size else None
    segment = _number(file, place + 4)
    if segment is None:
        return TRUNCATED
    length, start = segment
    unknown = length == (1 << 7 * (start - place - 4)) - 1
    return TRUNCATED if not unknown and start + length > size else None


def _number(file: BinaryIO, place: int) -> tuple[int, int] | None:
    """A variable-length number and where it ends; None where the file ends first."""
    file.seek(place)
    content = file.read(8)
    if not content or content[0] == 0:
        return None
    width = 9 - content[0].bit_length()
    if len(content) < width:
        return None
    value = int.from_bytes(content[:width], "big") & ((1 << 7 * width) - 1)
    return value, place + width
