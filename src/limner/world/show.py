"""`limner world show`: a contact sheet of scenes, or film strips of clips, to look at."""

from pathlib import Path
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from limner.world.captions import full, terse
from limner.world.clip_captions import references_of
from limner.world.clips import clip, pictures
from limner.world.scenes import PIXELS, picture, scene

_SCALE = 4
_STRIP_SCALE = 2
_GAP = 12
_LINE = 14
_LINES = 6
_COLUMNS = 6
_LETTERS = 32
"""Letters in a line under a picture."""


def sheet(path: Path, split: str = "validation", count: int = 24, *, seed: int = 0) -> None:
    """Write a PNG with the first `count` pictures of a split, a terse and the full caption under each.

    Args:
        path: file to write.
        split: name of a split.
        count: pictures, six in a row.
        seed: the world's seed.

    Raises:
        ValueError: unknown split, or more pictures than the split has.
    """
    side = PIXELS * _SCALE
    width, height = side + _GAP, side + _LINES * _LINE + _GAP
    rows = -(-count // _COLUMNS)
    page = Image.new("RGB", (_COLUMNS * width + _GAP, rows * height + _GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    rng = np.random.default_rng(seed)
    for place in range(count):
        x, y = _GAP + place % _COLUMNS * width, _GAP + place // _COLUMNS * height
        shown = picture(seed, place, split).resize((side, side), Image.Resampling.NEAREST)
        page.paste(shown, (x, y))
        told = scene(seed, place, split)
        said = (f"{split} {place}: {terse(told, rng)}", full(told))
        lines = [line for caption in said for line in wrap(caption, _LETTERS)]
        pen.multiline_text((x, y + side + 2), "\n".join(lines), fill="black", font=font, spacing=1)
    page.save(path)


def film_strips(
    path: Path, split: str = "validation", count: int = 12, *, frames: int = 8, seed: int = 0
) -> None:
    """Write a PNG with a strip of frames of each of the first `count` clips, their references under it.

    Args:
        path: file to write.
        split: name of a split of clips.
        count: clips, one a row.
        frames: frames a strip, spread evenly from the first frame to the last.
        seed: the world's seed.

    Raises:
        ValueError: unknown split, or more clips than the split has.
    """
    side = PIXELS * _STRIP_SCALE
    told = [references_of(seed, place, split) for place in range(count)]
    height = side + (len(told[0]) + 1) * _LINE + _GAP
    page = Image.new("RGB", (frames * (side + 2) + 2 * _GAP, count * height + _GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for place, references in enumerate(told):
        last = clip(seed, place, split).frames - 1
        numbers = [round(number * last / max(1, frames - 1)) for number in range(frames)]
        y = _GAP + place * height
        for column, shown in enumerate(pictures(seed, place, split, numbers)):
            frame = shown.resize((side, side), Image.Resampling.NEAREST)
            page.paste(frame, (_GAP + column * (side + 2), y))
        lines = "\n".join([f"{split} {place}:", *references])
        pen.multiline_text((_GAP, y + side + 2), lines, fill="black", font=font, spacing=1)
    page.save(path)
