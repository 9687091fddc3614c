"""Clips as real video files, with annotations as LAVIS has them: what MSR-VTT looks like on a disk."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from limner.errors import UserError
from limner.world.clip_captions import references_of
from limner.world.clips import FPS, SPLITS, clip, name, pictures

CRF = 4
"""Quality of x264: 0 keeps every bit, 51 next to nothing."""
SHORT = {"train": "train", "validation": "val", "test": "test"}
"""How annotation files name a split."""


def write_videos(folder: Path, split: str, count: int, *, seed: int = 0) -> None:
    """Write the first `count` clips of a split as MP4 files, with their references.

    Made are `videos/train-clip-000000.mp4` (H.264, 4:4:4, 8 frames a second) ...,
    `annotations/cap_train.json` (a list of {"video", "caption", "image_id"}, one row a reference) and
    `annotations/cap_train_gt.json` ({"annotations": [{"image_id", "caption", "id"}], "images": [{"id"}]}).

    Args:
        folder: made when it is not there; other splits in it stay.
        split: name of a split.
        count: clips to write.
        seed: the world's seed.

    Raises:
        UserError: unknown split, or more clips than the split has.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; the splits of clips are {', '.join(SPLITS)}")
    if not 0 < count <= SPLITS[split]:
        raise UserError(f"split {split!r} has 1 to {SPLITS[split]} clips to write, not {count}")
    videos, annotations = folder / "videos", folder / "annotations"
    videos.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(exist_ok=True)
    rows = []
    for index in range(count):
        id = name(index, split)
        write_mp4(videos / f"{id}.mp4", seed, index, split)
        told = references_of(seed, index, split)
        rows += [{"video": f"{id}.mp4", "caption": caption, "image_id": id} for caption in told]
    truth = {
        "annotations": [
            {"image_id": row["image_id"], "caption": row["caption"], "id": number}
            for number, row in enumerate(rows)
        ],
        "images": [{"id": name(index, split)} for index in range(count)],
    }
    file = annotations / f"cap_{SHORT[split]}.json"
    file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    file.with_stem(f"{file.stem}_gt").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def write_mp4(path: Path, seed: int, index: int, split: str) -> None:
    """Write one clip as an MP4 file. Colours keep full resolution: at 48 pixels a half would show."""
    frames = pictures(seed, index, split, range(clip(seed, index, split).frames))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": str(CRF), "preset": "fast"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt, stream.time_base = "yuv444p", Fraction(1, FPS)
        stream.codec_context.thread_count = 1
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode())
