"""One picture of a sample, to look at: the image itself, or the frames of a video as a film strip."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

SIDE = 384
"""Longest side in pixels."""
COLUMNS = 4
"""Frames in a row of the strip."""
MOST = 8
"""Frames of a strip at most; of more, some are left out evenly."""
CELL = SIDE // COLUMNS


def picture(media: Sequence[Image.Image]) -> Image.Image:
    """An image within SIDE x SIDE; several become a strip in order of time, row by row.

    Small frames are enlarged by a whole factor, so that their pixels stay what they are.
    """
    if len(media) == 1:
        small = media[0].copy()
        small.thumbnail((SIDE, SIDE))
        return small
    count = min(len(media), MOST)
    frames = [_cell(media[round(n * (len(media) - 1) / (count - 1))]) for n in range(count)]
    height = max(frame.height for frame in frames)
    rows = -(-count // COLUMNS)
    strip = Image.new("RGB", (CELL * min(count, COLUMNS), height * rows), "white")
    for n, frame in enumerate(frames):
        left, top = CELL * (n % COLUMNS), height * (n // COLUMNS)
        strip.paste(frame, (left + (CELL - frame.width) // 2, top + (height - frame.height) // 2))
    return strip


def _cell(frame: Image.Image) -> Image.Image:
    """A frame within a cell, with a white line at its right and lower edge."""
    factor = CELL // max(frame.size)
    if factor > 1:
        fitted = frame.resize((frame.width * factor, frame.height * factor), Image.Resampling.NEAREST)
    else:
        fitted = frame.copy()
        fitted.thumbnail((CELL, CELL))
    edge = Image.new("RGB", fitted.size, "white")
    edge.paste(fitted.crop((0, 0, fitted.width - 2, fitted.height - 2)), (0, 0))
    return edge
