"""Videos that are pictures: animated GIF and WebP files, and folders with an image a frame."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from limner.data import media
from limner.data.video import Decoded, Video, choose
from limner.errors import Reject

FRAME_SUFFIXES = tuple(suffix for suffix in media.SUFFIXES if suffix not in (".gif", ".webp"))
"""How the names of the frames in a folder end; GIF and WebP files are videos of their own."""
_FASTEST = 0.02
"""Seconds: viewers show GIF frames that ask for less, or for nothing, for a tenth of a second."""


def folder(video: Video, *, id: str, epoch: int) -> Decoded:
    """The wanted frames of a folder of images; only these are opened. It counts as one frame a second.

    Raises:
        Reject: there are none, or one that is wanted cannot be used.
    """
    found = names(video.path)
    if not found:
        raise Reject("no image in this folder")
    places = choose(video, range(len(found)), id=id, epoch=epoch)
    images: dict[int, Image.Image] = {}
    for place in places:
        if place not in images:
            try:
                images[place] = media.open_image(
                    video.path / found[place],
                    max_pixels=video.max_pixels, max_bytes=video.max_bytes, max_side=video.max_side,
                )  # fmt: skip
            except Reject as reject:
                raise Reject(f"{found[place]}: {reject.reason}") from None
    return Decoded(tuple(images[place] for place in places), places, len(images))


def names(path: Path) -> list[str]:
    """The names of the images in a folder in natural order: frame2 before frame10; hidden files left out."""
    with os.scandir(path) as children:
        found = [
            child.name
            for child in children
            if not child.name.startswith(".")
            and child.name.lower().endswith(FRAME_SUFFIXES)
            and child.is_file()
        ]
    return sorted(found, key=natural)


def natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts the numbers in names by their value."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def animation(file: BinaryIO, size: int, video: Video, *, id: str, epoch: int) -> Decoded:
    """The wanted frames of a GIF or WebP file.

    Each frame builds upon those before, so all up to the last one that is wanted are decoded.

    Raises:
        Reject: it is broken or beyond the limits.
    """
    _refuse_truncated(file, size)
    try:
        with Image.open(file, formats=("GIF", "WEBP")) as image:
            width, height = image.size
            if width * height > video.max_pixels:
                raise Reject(f"{width} x {height} pixels, more than the limit of {video.max_pixels:,}")
            count = getattr(image, "n_frames", 1)
            if count > video.max_decoded:
                raise Reject(f"{count:,} frames, more than the limit of {video.max_decoded:,}")
            times = _times(image, count) if video.sampling == "fps" else range(count)
            places = choose(video, times, id=id, epoch=epoch)
            wanted, images = frozenset(places), dict[int, Image.Image]()
            for place in range(max(places) + 1):
                image.seek(place)
                image.load()
                if place in wanted:
                    images[place] = _upon_white(image, video.max_side)
    except media._DECODER_ERRORS as error:
        raise Reject(media._plain(error)) from None
    return Decoded(tuple(images[place] for place in places), places, max(places) + 1)


def _refuse_truncated(file: BinaryIO, size: int) -> None:
    """Pillow takes a file that was cut off for a shorter one."""
    head = file.read(8)
    if head.startswith(b"RIFF"):
        whole = 8 + int.from_bytes(head[4:8], "little") <= size
    else:
        file.seek(max(0, size - 1024))
        whole = file.read().rstrip(b"\0").endswith(b";")
    if not whole:
        raise Reject("truncated image file")
    file.seek(0)


def _times(image: Image.Image, count: int) -> list[float]:
    """When each frame appears, in seconds."""
    times = [0.0]
    for place in range(count - 1):
        image.seek(place)
        image.load()
        seconds = float(image.info.get("duration", 0)) / 1000
        times.append(times[-1] + (seconds if seconds >= _FASTEST else 0.1))
    return times


def _upon_white(image: Image.Image, max_side: int | None) -> Image.Image:
    colour = image.convert("RGBA")
    white = Image.new("RGB", colour.size, "white")
    white.paste(colour, mask=colour.getchannel("A"))
    if max_side is not None:
        white.thumbnail((max_side, max_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return white
