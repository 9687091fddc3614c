"""Opening image files as they are found in the world.

Every image comes out as 8-bit RGB, upright, at its first frame:

* The content decides, not the name: JPEG, PNG, WebP, GIF, TIFF and BMP are read.
* EXIF rotation is applied. Colour profiles are not.
* Transparent parts are put on white.
* Grey of 12 or 16 bits is scaled by its full range (65535 becomes 255, rounded). 16-bit colour keeps its
  high bytes, as Pillow decodes it.
* 32-bit integer and floating-point pixels name no white: what lies within 0..1 (floating-point), 0..255 or
  0..65535 is taken as that range, anything else is stretched from its least to its greatest value.
* CMYK is converted without a profile.

What cannot be opened is a `Reject` with a plain reason, whatever is wrong with it.
"""

import io
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from limner.errors import Reject

MAX_PIXELS = 100_000_000
"""Most pixels of an image that is decoded, width times height."""
MAX_BYTES = 1_000_000_000
"""Most bytes of a file that is read."""

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib")
"""How the names of image files end, in lower case."""

_DRAFT_GAP = 1.5
"""How many times larger than needed a JPEG file is decoded at least, so that reducing it stays clean."""
_KINDS = (JpegImageFile, PngImageFile, WebPImageFile, GifImageFile, TiffImageFile, BmpImageFile)
_PARSERS = [Image.OPEN[str(kind.format)] for kind in _KINDS]
"""(parser, test of the first 16 bytes) of each format."""
_DECODER_ERRORS = (
    *(OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, AttributeError, EOFError),
    *(RuntimeError, AssertionError, BufferError, struct.error, zlib.error, Image.DecompressionBombError),
    Warning,
)
"""What Pillow's parsers stumble into on broken files; warnings where Python turns them into errors."""


def open_image(
    source: Path | str | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    max_side: int | None = None,
) -> Image.Image:
    """An image file, or its content, as an RGB image.

    Args:
        source: a path, or the bytes of a file.
        max_pixels: more pixels than this are rejected from the header, before anything is decoded.
        max_bytes: more bytes than this are rejected unread.
        max_side: reduce the image until its longer side has at most this many pixels. JPEG files are
            then decoded at 1/2, 1/4 or 1/8 where that is still 1.5 times as large, which is faster.

    Returns:
        A decoded image of mode RGB that holds no file open.

    Raises:
        Reject: the reason, without the name of the file.
    """
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), len(source), max_pixels, max_bytes, max_side)
    try:
        status = os.stat(source)
        _refuse_special(status.st_mode)
        with open(source, "rb") as file:
            return _decode(file, status.st_size, max_pixels, max_bytes, max_side)
    except FileNotFoundError:
        reason = "broken symbolic link" if os.path.islink(source) else "no such file"
        raise Reject(reason) from None
    except OSError as error:
        raise Reject(f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    except ValueError:
        raise Reject("no valid file name") from None


def _refuse_special(mode: int) -> None:
    """Only ordinary files are opened: a pipe would block, a device could do anything."""
    if stat.S_ISDIR(mode):
        raise Reject("a folder, not a file")
    if not stat.S_ISREG(mode):
        raise Reject("a pipe, socket or device, not a file")


def _decode(file: BinaryIO, size: int, max_pixels: int, max_bytes: int, max_side: int | None) -> Image.Image:
    if size == 0:
        raise Reject("empty file")
    if size > max_bytes:
        raise Reject(f"file of {size:,} bytes, more than the limit of {max_bytes:,}")
    _raise_guard(max_pixels)
    try:
        image = _parse_header(file, size)
        width, height = image.size
        if width * height > max_pixels:
            raise Reject(f"{width} x {height} pixels, more than the limit of {max_pixels:,}")
        if width * height == 0:
            raise Reject("no pixels")
        if max_side is not None:
            enough = _DRAFT_GAP * max_side / max(image.size)
            # Decodes at a fraction of the size; does nothing to formats other than JPEG.
            image.draft(None, (max(1, int(width * enough)), max(1, int(height * enough))))
        image.load()
        orientation = _orientation(image)
        colour = _to_rgb(image)
        if max_side is not None and max(colour.size) > max_side:
            colour.thumbnail((max_side, max_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
        return colour if orientation is None else colour.transpose(orientation)
    except MemoryError:
        raise Reject("too little memory to decode it") from None
    except _DECODER_ERRORS as error:
        raise Reject(_plain(error)) from None


def _raise_guard(max_pixels: int) -> None:
    """Pillow's own guard covers the process and warns from 89 megapixels: raised to ours, not removed."""
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels


def _parse_header(file: BinaryIO, size: int) -> ImageFile.ImageFile:
    """Choose the parser by the first bytes, as Image.open does, but among few formats and unguarded."""
    prefix = file.read(16)
    file.seek(0)
    if prefix.startswith(b"RIFF") and 8 + int.from_bytes(prefix[4:8], "little") > size:
        raise Reject("truncated image file")  # Pillow says only that it found no decoder
    for parser, accepts in _PARSERS:
        if accepts is not None and accepts(prefix) is True:
            return parser(file, "")
    raise Reject("not an image (JPEG, PNG, WebP, GIF, TIFF or BMP)")


def _plain(error: BaseException) -> str:
    message = str(error).partition("\n")[0]
    if "truncated" in message.lower():
        return "truncated image file"
    if not message or not isinstance(error, OSError | ValueError | SyntaxError):
        message = "broken structure"  # the parser tripped over it and has no words for people
    return f"cannot be decoded: {message}"


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: ImageFile.ImageFile) -> Image.Transpose | None:
    """How to set the image upright; None where its metadata is broken, as image viewers do."""
    try:
        return _TRANSPOSE.get(image.getexif().get(0x0112, 1))
    except _DECODER_ERRORS:
        return None


def _to_rgb(image: ImageFile.ImageFile) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _from_grey16(image)
    if image.mode in ("I", "F"):
        return Image.fromarray(_to_bytes(np.asarray(image, dtype=np.float64), image.mode)).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        white = Image.new("RGB", colour.size, "white")
        white.paste(colour, mask=colour.getchannel("A"))
        return white
    return image.convert("RGB")


def _from_grey16(image: ImageFile.ImageFile) -> Image.Image:
    """Grey of 16 bits, or of 12 bits in a TIFF that says so."""
    levels = np.asarray(image).astype(np.uint32)
    white, inverted = 65535, False
    if isinstance(image, TiffImageFile):
        white = 2 ** image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1
        inverted = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    grey = (levels * 255 + white // 2) // white
    grey = 255 - grey if inverted else grey
    if "transparency" in image.info:
        grey[levels == image.info["transparency"]] = 255
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def _to_bytes(levels: np.ndarray, mode: str) -> np.ndarray:
    """Pixels of no agreed range as bytes; what is not finite becomes black."""
    finite = np.isfinite(levels)
    low, high = (levels[finite].min(), levels[finite].max()) if finite.any() else (0.0, 0.0)
    if low >= 0 and high <= 65535:
        low = 0.0
        high = 1.0 if mode == "F" and high <= 1 else 255.0 if high <= 255 else 65535.0
    scale = 255 / (high - low) if high > low else 0.0
    return np.where(finite, np.rint((np.where(finite, levels, low) - low) * scale), 0).astype(np.uint8)
