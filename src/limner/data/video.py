"""Videos that are opened only when their frames are wanted, and which frames those are.

How frames are chosen from the V frames that a file holds, numbered from 0 in the order in which they are
shown, is that of LAVIS's `load_video`, whose videos the published captioners were trained on:

* uniform: m = min(frames, V) frames, number k * V / m rounded down for k = 0..m-1.
* headtail: m // 2 frames drawn from the first V // 2 without repetition and m - m // 2 from the rest, in
  order of time.
* fps: what is on the screen at 0, 1/fps, 2/fps, ... seconds after the first frame, until the last frame has
  appeared; more than `max_frames` such moments are thinned to `max_frames`, evenly from first to last.

Frames are numbered as they are shown, whatever their durations: at a variable frame rate uniform is
uniform in frames, not in seconds, as in LAVIS. Where a video has fewer frames than asked for, its last
frame is repeated, so uniform and headtail give exactly `frames` images.

Differences from LAVIS:

1. uniform divides integers. LAVIS steps by the float V / m, so rounding errors may give it the frame before,
   or one index too many.
2. An odd number of frames gives headtail one more from the second half; LAVIS gives one frame less than
   asked for, and none where one frame is asked for.
3. Draws depend on the seed, the sample's id and the epoch alone; LAVIS draws from the process's generator.
4. LAVIS as published gives fewer frames for a short video and fails on batches of different lengths; its
   later copies repeat the last frame, as here.
"""

from __future__ import annotations

import dataclasses
import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from limner.data.media import MAX_BYTES

if TYPE_CHECKING:
    from limner.types import Sample

Sampling = Literal["uniform", "headtail", "fps"]
"""How frames are chosen."""

MAX_PIXELS = 40_000_000
"""Most pixels of a frame that is decoded, width times height: 8K video has 33 million."""
MAX_SIDE = 512
"""Longer side in pixels of the frames that are kept."""
MAX_DECODED = 50_000
"""Most frames that are decoded to get at those of one sample."""

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".vob", ".ogv", ".gif", ".webp"),
)
"""How the names of video files end, in lower case. The content decides what they are."""


@dataclass(frozen=True)
class Video:
    """A video file, or a folder of numbered images, and which of its frames are wanted. Opens nothing."""

    path: Path
    """The file, or the folder with an image a frame in the natural order of their names."""
    frames: int = 8
    """How many frames uniform and headtail give."""
    sampling: Sampling = "uniform"
    """How they are chosen."""
    fps: float = 1.0
    """Frames a second, where sampling is fps."""
    max_frames: int = 64
    """Most frames where sampling is fps."""
    seed: int = 0
    """Of the draws of headtail."""
    max_side: int | None = MAX_SIDE
    """Longer side in pixels to which frames are reduced; no limit if None."""
    max_pixels: int = MAX_PIXELS
    """Videos with larger frames are rejected before they are decoded."""
    max_bytes: int = MAX_BYTES
    """Larger files are rejected unread."""
    max_decoded: int = MAX_DECODED
    """A video that takes more decoded frames than this is rejected."""
    frame_cache: str | None = None
    """Folder that keeps decoded frames of uniform and fps; none if None."""


@dataclass(frozen=True)
class Decoded:
    """The frames of a sample."""

    images: tuple[Image.Image, ...]
    """RGB, upright, with square pixels, in order of time; a repeated frame is the same object."""
    places: tuple[int, ...]
    """The number of each image's frame in the video."""
    decoded: int
    """How many frames the decoder gave to get at them; 0 where they came out of the cache."""


def load(sample: Sample, *, epoch: int = 0) -> Sample:
    """The sample with the frames of its video as `media`; as it is where it has no video, or has media.

    Decodes in this process: `read_ahead` does it in others.

    Args:
        sample: a sample as a source reads it.
        epoch: how often it was read before; draws of headtail are others each time.

    Raises:
        Reject: the video cannot be used.
    """
    if sample.video is None or sample.media:
        return sample
    return dataclasses.replace(sample, media=decode(sample.video, id=sample.id, epoch=epoch).images)


def decode(video: Video, *, id: str, epoch: int = 0) -> Decoded:
    """The frames of a video that are wanted.

    Args:
        video: the video.
        id: of the sample, on which draws of headtail depend.
        epoch: how often it was read before, likewise.

    Raises:
        Reject: it cannot be used.
    """
    from limner.data import video_files

    return video_files.decode(video, id=id, epoch=epoch)


def choose(video: Video, times: Sequence[float], *, id: str, epoch: int = 0) -> tuple[int, ...]:
    """The numbers of the wanted frames, in order, with repetitions.

    Args:
        video: which frames are wanted.
        times: V seconds at which frames appear, rising.
        id: of the sample.
        epoch: how often it was read before.
    """
    if video.sampling == "fps":
        return _by_time(times, video.fps, video.max_frames)
    count = min(video.frames, len(times))
    if video.sampling == "uniform":
        chosen = [place * len(times) // count for place in range(count)]
    else:
        half, middle = count // 2, len(times) // 2
        digest = int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "little")
        draw = np.random.default_rng([video.seed, epoch, digest])
        head = draw.choice(middle, half, replace=False)
        tail = middle + draw.choice(len(times) - middle, count - half, replace=False)
        chosen = [*sorted(head.tolist()), *sorted(tail.tolist())]
    return tuple(chosen + chosen[-1:] * (video.frames - count))


def _by_time(times: Sequence[float], fps: float, most: int) -> tuple[int, ...]:
    seconds = times[-1] - times[0]
    count = int(seconds * fps + 1e-6) + 1
    if count > most:
        moments = [round(place * (count - 1) / max(1, most - 1)) / fps for place in range(most)]
    else:
        moments = [place / fps for place in range(count)]
    # A frame that appears within a microsecond of the moment is on the screen: times are rounded in files.
    return tuple(max(0, bisect_right(times, times[0] + moment + 1e-6) - 1) for moment in moments)
