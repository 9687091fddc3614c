"""Decoded frames on disk: one file for each video file and way of choosing its frames.

A file holds the frames as they were decoded and reduced, bit for bit, so that a run with the cache is the
run without it. What is not whole or does not fit counts as not there, and is written again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
import threading
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from limner.data.video import Decoded, Video
from limner.errors import UserError

_LAYOUT = 1
"""Of the files; others are not read."""


def read(video: Video) -> Decoded | None:
    """The frames of a video, if the cache has them."""
    path = _file(video)
    if path is None or not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            places = tuple(json.loads(file.metadata()["places"]))
            kept = {place: Image.fromarray(file.get_tensor(str(place))) for place in set(places)}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    return Decoded(tuple(kept[place] for place in places), places, 0)


def write(video: Video, decoded: Decoded) -> None:
    """Keep the frames of a video, unless it says not to, or they were read from here.

    Raises:
        UserError: the folder cannot be written.
    """
    path = _file(video)
    if path is None or not decoded.decoded:
        return
    frames = {
        str(place): np.asarray(image) for place, image in zip(decoded.places, decoded.images, strict=True)
    }
    beside = path.with_name(f".{os.getpid()}-{threading.get_ident()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(frames, beside, metadata={"places": json.dumps(decoded.places)})
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"data.frame_cache: {video.frame_cache} cannot be written: {error}") from None


def _file(video: Video) -> Path | None:
    """Where the frames are kept; None without a cache, for frames that are drawn, or without a video."""
    if video.frame_cache is None or video.sampling == "headtail":
        return None
    try:
        identity = _identity(video.path)
    except (OSError, ValueError):
        return None
    settings = dataclasses.replace(video, path=Path(), frame_cache=None, seed=0)
    key = json.dumps([_LAYOUT, identity, dataclasses.astuple(settings)], default=str)
    name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:40]
    return Path(video.frame_cache).expanduser() / name[:2] / f"{name[2:]}.safetensors"


def _identity(path: Path) -> list[object]:
    """What changes when a video does: its full path, size and time of change; those of a folder's files."""
    status = os.stat(path)
    own = [os.path.abspath(path), status.st_size, status.st_mtime_ns]
    if not stat.S_ISDIR(status.st_mode):
        return own
    with os.scandir(path) as children:
        inside = sorted((child.name, child.stat().st_size, child.stat().st_mtime_ns) for child in children)
    return [own[0], inside]
