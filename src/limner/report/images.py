"""Pictures of a run: kept as small PNG files beside the evaluation, put into the page as data: addresses."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from PIL import Image, UnidentifiedImageError

from limner.strips import SIDE, picture

if TYPE_CHECKING:
    from limner.types import Sample

SMALL = 96
"""A picture up to this side is shown enlarged with hard edges."""
_LONGEST_NAME = 120


def save(folder: Path, samples: Iterable[Sample]) -> None:
    """Keep a small picture of every sample, for the page; what is there already stays.

    Args:
        folder: the run's `evaluation/images`.
        samples: their image is kept, or a film strip of their frames.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        path = folder / file_name(sample.id)
        if not path.exists():
            picture(sample.media).save(path)


def file_name(id: str) -> str:
    """The file of a sample: its id, quoted where that is no file's name, cut with a hash where too long."""
    name = quote(id, safe=" ", errors="replace")
    if len(name) > _LONGEST_NAME or name.startswith("."):
        digest = hashlib.sha256(id.encode(errors="replace")).hexdigest()[:16]
        name = f"{name[: _LONGEST_NAME - 17].lstrip('.')}-{digest}"
    return f"{name}.png"


def address(path: Path, inside: Path) -> tuple[str, bool] | None:
    """A picture as a data: address.

    Args:
        path: the file.
        inside: a folder the file must lie in, so that no file of this machine gets into a page by its name.

    Returns:
        The address, and whether the picture is so small that it is to be shown with hard edges; None where
        there is no such picture.
    """
    if not path.resolve().is_relative_to(inside.resolve()) or not path.is_file():
        return None
    try:
        with Image.open(path) as image:
            image.load()
            small = max(image.size) <= SMALL
            kind = "PNG" if small or image.mode in ("P", "RGBA", "LA") else "JPEG"
            if kind == "JPEG":
                image = image.convert("RGB")
            image.thumbnail((SIDE, SIDE))
            buffer = io.BytesIO()
            image.save(buffer, kind, quality=82, optimize=True)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError):
        return None
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}", small
