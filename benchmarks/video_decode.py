"""Frames of a video: limner against decoding the whole file with PyAV and picking, in turns in one process.

`python benchmarks/video_decode.py [--turns 9]`. The videos are made first: a textured scene that moves,
encoded as the data sets' are. Both sides decode on one thread and give the same pixels, which is checked.
Then the frame cache, hit against miss, and what it costs that videos are decoded in another process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image, ImageFilter

from limner.data.video import Sampling, Video, choose, decode
from limner.data.video_pool import Decoders
from limner.types import Sample


@dataclass(frozen=True)
class Shape:
    """A kind of video."""

    width: int
    height: int
    seconds: int
    rate: int
    keys: int
    """Frames from one key frame to the next; 250 is the default of x264."""
    codec: str = "libx264"


SHAPES = {
    "MSR-VTT: 320 x 240, 15 s, a key frame every 250": Shape(320, 240, 15, 25, 250),
    "VATEX: 1280 x 720, 10 s, a key frame every 50": Shape(1280, 720, 10, 25, 50),
    "WebVid: 596 x 336, 30 s, a key frame every 60": Shape(596, 336, 30, 25, 60),
    "MSVD: 480 x 360, 10 s, MPEG-4, a key frame every 12": Shape(480, 360, 10, 25, 12, "mpeg4"),
    "long: 640 x 360, 2 minutes, a key frame every 250": Shape(640, 360, 120, 25, 250),
}
WAYS: dict[str, tuple[Sampling, int]] = {
    "uniform, 4": ("uniform", 4),
    "uniform, 8": ("uniform", 8),
    "headtail, 16": ("headtail", 16),
    "uniform, 32": ("uniform", 32),
}


def write(path: Path, shape: Shape) -> None:
    """A scene that moves under the camera, with a shadow over it."""
    draw = np.random.default_rng(0)
    side = 2 * shape.width
    coarse = Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).resize((side, side))
    grain = draw.integers(0, 60, (side, side, 3), dtype=np.uint8)
    scene = np.asarray(coarse.filter(ImageFilter.GaussianBlur(2))) // 2 + grain
    with av.open(path, "w") as container:
        options = {"g": str(shape.keys), "bf": "3", "preset": "veryfast", "crf": "26"}
        stream = container.add_stream(shape.codec, rate=shape.rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = shape.width, shape.height, "yuv420p"
        for place in range(shape.seconds * shape.rate):
            left = int((0.5 + 0.5 * np.sin(place / 50)) * shape.width * 0.9)
            top = int((0.5 + 0.5 * np.cos(place / 70)) * shape.width * 0.9)
            view = scene[top : top + shape.height, left : left + shape.width].copy()
            view[:, : (place * 2) % shape.width] //= 2
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode())


def plain(video: Video) -> list[np.ndarray]:
    """Every frame is decoded; those that are wanted are converted."""
    with av.open(str(video.path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        places = choose(video, range(stream.frames), id="a")
        side = max(stream.width, stream.height)
        scale = min(1.0, (video.max_side or side) / side)
        width, height = round(stream.width * scale), round(stream.height * scale)
        picked = {
            place: frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BICUBIC")
            for place, frame in enumerate(container.decode(stream))
            if place in places
        }
    return [picked[place] for place in places]


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process: other jobs on the machine count less than in wall time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def against_plain(video: Video, turns: int) -> str:
    """A row of the table."""
    ours = decode(video, id="a")
    for image, picked in zip(ours.images, plain(video), strict=True):
        if not np.array_equal(np.asarray(image), picked):
            raise SystemExit(f"{video.path}: the pixels differ")
    pairs = [(seconds(lambda: decode(video, id="a")), seconds(lambda: plain(video))) for _ in range(turns)]
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    return f"{1000 * mine:.1f} | {1000 * theirs:.1f} | {ratio:.1f} | {ours.decoded}"


def cache(video: Video, folder: Path, turns: int) -> str:
    """Milliseconds of a miss and of a hit, and the kilobytes of an entry."""
    misses, hits = [], []
    for turn in range(turns):
        cached = replace(video, frame_cache=str(folder / f"cache-{turn}"))
        misses.append(seconds(lambda cached=cached: decode(cached, id="a")))
        hits.append(seconds(lambda cached=cached: decode(cached, id="a")))
    (entry,) = (folder / "cache-0").rglob("*.safetensors")
    miss, hit = statistics.median(misses), statistics.median(hits)
    size = entry.stat().st_size / 1000
    return f"{1000 * miss:.1f} | {1000 * hit:.2f} | {miss / hit:.0f} | {size:,.0f}"


def processes(video: Video, turns: int) -> str:
    """Milliseconds of wall time here and through a process that runs already."""
    decoders, sample = Decoders(), Sample("a", (), video=video)
    decoders.load(sample)
    here, there = [], []
    for _ in range(turns):
        start = time.perf_counter()
        decode(video, id="a")
        between = time.perf_counter()
        decoders.load(sample)
        here.append(between - start)
        there.append(time.perf_counter() - between)
    decoders.close()
    a, b = statistics.median(here), statistics.median(there)
    return f"{1000 * a:.1f} | {1000 * b:.1f} | {b / a:.2f}"


def main() -> None:
    """Make the videos, measure, print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as folder:
        videos = {name: Path(folder, f"{place}.mp4") for place, name in enumerate(SHAPES)}
        for name, path in videos.items():
            write(path, SHAPES[name])
        print("| video | frames | limner, ms | whole file, ms | ratio | decoded |\n|---|---|---|---|---|---|")
        for name, path in videos.items():
            for way, (sampling, frames) in WAYS.items():
                video = Video(path, sampling=sampling, frames=frames)
                count = SHAPES[name].seconds * SHAPES[name].rate
                print(f"| {name} | {way} | {against_plain(video, turns)} of {count} |", flush=True)
        print("\n| cache, 8 frames uniform | miss, ms | hit, ms | ratio | kB kept |\n|---|---|---|---|---|")
        for place, (name, path) in enumerate(videos.items()):
            print(f"| {name} | {cache(Video(path), Path(folder, f'caches-{place}'), turns)} |", flush=True)
        print("\n| 8 frames uniform | this process, ms | another, ms | ratio |\n|---|---|---|---|")
        for name, path in videos.items():
            print(f"| {name} | {processes(Video(path), turns)} |", flush=True)


if __name__ == "__main__":
    main()
