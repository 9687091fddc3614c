"""Scenes as files: a folder of images with captions in JSON lines, so that every data source meets files."""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from limner.errors import UserError
from limner.world.captions import full, varied
from limner.world.scenes import SPLITS, picture, scene


def write_folder(
    folder: Path,
    split: str,
    count: int,
    *,
    image_format: Literal["png", "jpeg"] = "png",
    seed: int = 0,
) -> None:
    """Write the first `count` scenes of a split as images, with captions.jsonl beside them.

    A row of captions.jsonl is {"id", "image", "captions"}: the scene's name, the file's name in the
    folder, and two true captions, one with every fact and one with fewer.

    Args:
        folder: made when it is not there.
        split: name of a split.
        count: scenes to write.
        image_format: PNG keeps the pixels; JPEG (quality 95) loses a little.
        seed: the world's seed.

    Raises:
        UserError: unknown split, format, or more scenes than the split has.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    if not 0 < count <= SPLITS[split]:
        raise UserError(f"split {split!r} has 1 to {SPLITS[split]} scenes to write, not {count}")
    if image_format not in ("png", "jpeg"):
        raise UserError(f"image format {image_format!r} is not known; choose png or jpeg")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, count])
    rows = []
    for index in range(count):
        name = f"{split}-{index:05d}"
        file = f"{name}.{'png' if image_format == 'png' else 'jpg'}"
        picture(seed, index, split).save(folder / file, quality=95)
        told = scene(seed, index, split)
        rows.append({"id": name, "image": file, "captions": [full(told), varied(told, rng, bad_rate=0.0)]})
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "captions.jsonl").write_text("".join(lines), encoding="utf-8")
