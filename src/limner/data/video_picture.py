"""From a decoded frame to an image: RGB, upright, with square pixels, no larger than is wanted."""

from __future__ import annotations

import struct

from av.video.frame import VideoFrame
from PIL import Image

from limner.data.video import Video
from limner.errors import Reject

_SKEWED = 4.0
"""Pixels are not so much wider than high, or higher than wide: a file that says so is wrong."""
_TURNS = {
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
"""By the signs of a display matrix: where right and down point."""


def picture(frame: VideoFrame, aspect: float, *, video: Video) -> Image.Image:
    """A frame as it is to be looked at.

    Args:
        frame: as it was decoded.
        aspect: how much wider than high its pixels are.
        video: the limits.

    Raises:
        Reject: it is larger than the limit.
    """
    refuse_large(frame.width, frame.height, video=video)
    width, height = float(frame.width), float(frame.height)
    if 1 < aspect <= _SKEWED:
        width *= aspect
    elif 1 / _SKEWED <= aspect < 1:
        height /= aspect
    scale = 1.0 if video.max_side is None else min(1.0, video.max_side / max(width, height))
    pixels = frame.to_ndarray(
        format="rgb24", width=max(1, round(width * scale)), height=max(1, round(height * scale)),
        interpolation="BICUBIC",
    )  # fmt: skip
    image = Image.fromarray(pixels)
    turn = _turn(frame)
    return image if turn is None else image.transpose(turn)


def refuse_large(width: int, height: int, *, video: Video) -> None:
    """Check the size of a frame.

    Raises:
        Reject: it is larger than the limit.
    """
    if width * height > video.max_pixels:
        raise Reject(f"{width} x {height} pixels, more than the limit of {video.max_pixels:,}")


def _turn(frame: VideoFrame) -> Image.Transpose | None:
    """How to set a frame upright, by the display matrix that phones write; to the nearest right angle."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("<9i", bytes(matrix)[:36])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _TURNS.get((_sign(a), 0, 0, _sign(d)))
    return _TURNS.get((0, _sign(b), _sign(c), 0))


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
