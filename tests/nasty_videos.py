"""Videos as they are found in the world, and files that only look like videos.

Each frame is a crop of a photograph that moves, and carries its number in blocks of black and white along
its upper edge, so that a test can say which frame it got however often the frame was encoded and resized.
"""

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

import nasty_files

SIZE = (128, 96)
BITS = 8
RATE = 25
FAST = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "keyint=20:bframes=2:log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
"""Options of encoders that spare time."""


@cache
def _background() -> Image.Image:
    return nasty_files.photograph().resize((256, 320))


@cache
def frame(number: int) -> Image.Image:
    """Frame number 0..255 of every video."""
    width, height = SIZE
    left, top = number % 128, (number * 2) % 200
    image = _background().crop((left, top, left + width, top + height))
    block = width // BITS
    for bit in range(BITS):
        colour = (255,) * 3 if number >> bit & 1 else (0,) * 3
        image.paste(colour, (bit * block, 0, (bit + 1) * block, block))
    return image


def number(image: Image.Image) -> int:
    """The number that an image of such a frame carries, whatever its size."""
    grey = np.asarray(image.convert("L").resize(SIZE), dtype=float)
    block = SIZE[0] // BITS
    blocks = [grey[4 : block - 4, bit * block + 4 : (bit + 1) * block - 4].mean() for bit in range(BITS)]
    assert all(mean < 70 or mean > 185 for mean in blocks), f"no number in this image: {blocks}"
    return sum(1 << bit for bit, mean in enumerate(blocks) if mean > 127)


def numbers(images: Sequence[Image.Image]) -> list[int]:
    """The numbers that images carry."""
    return [number(image) for image in images]


def video(
    path: Path,
    count: int = 60,
    *,
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    times: Sequence[int] | None = None,
    turned: int = 0,
    mirrored: bool = False,
    shape: Fraction | None = None,
    sound: bool = False,
    muxing: Mapping[str, str] | None = None,
) -> Path:
    """Write a video of frames 0..count-1.

    Args:
        path: where; the suffix chooses the container.
        count: frames.
        codec: the encoder.
        options: of the encoder; a key frame every 20 frames if None.
        times: when each frame appears, in units of 1/25 second; one after the other if None.
        turned: quarter turns against the clock that a player gives it to set it upright.
        mirrored: whether a player then mirrors it, left to right.
        shape: of a pixel, width over height.
        sound: whether there is a track of silence too.
        muxing: options of the container.
    """
    with av.open(path, "w", options=dict(muxing or {})) as container:
        stream = container.add_stream(
            codec, rate=RATE, options=dict(options or {"g": "20", "bf": "2", **FAST.get(codec, {})})
        )
        stream.width, stream.height = SIZE[:: -1 if turned % 2 else 1]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        audio = container.add_stream("aac", rate=8000) if sound else None
        if shape is not None:
            stream.codec_context.sample_aspect_ratio = shape
        if turned or mirrored:
            stream.set_display_rotation(90 * turned, hflip=mirrored)
        for place in range(count):
            image = ImageOps.mirror(frame(place)) if mirrored else frame(place)
            picture = av.VideoFrame.from_image(image.rotate(-90 * turned, expand=True))
            picture.pts, picture.time_base = (times[place] if times else place), Fraction(1, RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        if audio is not None:
            _silence(container, audio, count / RATE)
    return path


def _silence(container, stream, seconds: float) -> None:
    for place in range(int(seconds * 8000) // 1024):
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        block.rate, block.pts = 8000, place * 1024
        container.mux(stream.encode(block))
    container.mux(stream.encode())


def sound_only(path: Path) -> Path:
    """Write a file with sound and nothing to see."""
    with av.open(path, "w") as container:
        _silence(container, container.add_stream("aac", rate=8000), 1.0)
    return path


def animation(path: Path, count: int = 12, *, seconds: Sequence[float] | float = 0.1) -> Path:
    """Write a GIF or WebP file of frames 0..count-1."""
    durations = [seconds] * count if isinstance(seconds, float) else seconds
    first, *others = (frame(place) for place in range(count))
    milliseconds = [round(1000 * each) for each in durations]
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0, **lossless)
    return path


def folder_of_frames(path: Path, count: int = 12) -> Path:
    """Write a folder of PNG files, numbered without leading zeros."""
    path.mkdir(parents=True)
    for place in range(count):
        frame(place).save(path / f"frame{place}.png")
    (path / "notes.txt").write_text("twelve frames")
    (path / ".DS_Store").write_bytes(b"\0")
    return path


def good(folder: Path) -> dict[str, int]:
    """Write videos in forms that must be read; returns their names, each with its number of frames."""
    folder.mkdir(parents=True, exist_ok=True)
    gaps = [0, 1, 2, 3, 50, 51, 52, 100, 101, 102, 103, 200]
    video(folder / "plain.mp4", 60, sound=True)
    video(folder / "SHOUTING.MP4", 8)
    video(folder / "one_frame.mp4", 1)
    video(folder / "gaps.mkv", 12, times=gaps)
    video(folder / "turned.mp4", 10, turned=1)
    video(folder / "old.avi", 30, codec="mpeg4")
    video(folder / "broadcast.ts", 30, codec="mpeg2video")
    video(folder / "web.webm", 20, codec="libvpx-vp9")
    video(folder / "no_duration.mkv", 20, muxing={"live": "1"})
    video(folder / "pieces.mp4", 30, muxing={"movflags": "frag_keyframe+empty_moov"})
    (folder / "really_mp4.avi").write_bytes((folder / "one_frame.mp4").read_bytes())
    animation(folder / "moving.gif", 12)
    animation(folder / "moving.webp", 12)
    animation(folder / "still.gif", 1)
    (folder / "below").mkdir()
    folder_of_frames(folder / "below" / "frames", 12)
    (folder / "plain.txt").write_text("a woman who moves")
    return {
        "plain.mp4": 60, "SHOUTING.MP4": 8, "one_frame.mp4": 1, "gaps.mkv": 12, "turned.mp4": 10,
        "old.avi": 30, "broadcast.ts": 30, "web.webm": 20, "no_duration.mkv": 20, "pieces.mp4": 30,
        "really_mp4.avi": 1, "moving.gif": 12, "moving.webp": 12, "still.gif": 1, "below/frames": 12,
    }  # fmt: skip


def broken(folder: Path) -> dict[str, str]:
    """Write files that cannot be used; returns their names, each with a part of the reason to be given."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = video(folder / "whole.mp4", 30).read_bytes()
    fast = video(folder / "whole.mp4", 30, muxing={"movflags": "faststart"}).read_bytes()
    pieces = video(folder / "whole.mp4", 60, muxing={"movflags": "frag_keyframe+empty_moov"}).read_bytes()
    webm = video(folder / "whole.mkv", 30).read_bytes()
    avi = video(folder / "whole.avi", 30, codec="mpeg4").read_bytes()
    gif, webp = (animation(folder / f"whole.{kind}").read_bytes() for kind in ("gif", "webp"))
    for name in ("whole.mp4", "whole.mkv", "whole.avi", "whole.gif", "whole.webp"):
        (folder / name).unlink()
    truncated = "truncated"
    contents = {
        "half.mp4": (whole[: len(whole) // 2], truncated),
        "half_fast.mp4": (fast[: len(fast) // 2], truncated),
        "half_pieces.mp4": (pieces[: len(pieces) // 2], truncated),
        "no_index.mp4": (whole[: whole.index(b"moov") - 4], "its index is missing"),
        "half.mkv": (webm[: len(webm) // 2], truncated),
        "half.avi": (avi[: len(avi) // 2], truncated),
        "half.gif": (gif[: len(gif) // 2], truncated),
        "half.webp": (webp[: len(webp) // 2], truncated),
        "head.mp4": (whole[:12], truncated),
        "scratched.mp4": (scratched(whole), "damaged"),
        "holes.mp4": (whole[:64] + bytes(len(whole) - 64), truncated),
        "empty.mp4": (b"", "empty file"),
        "text.mp4": (b"I am no film.\n" * 100, "not a video"),
        "page.webm": (b"<!doctype html><title>404 not found</title>" * 20, "not a video"),
        "list.mp4": (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n", "not a video"),
        "photo.mp4": (nasty_files.encoded(frame(0), "JPEG"), "an image (JPEG), not a video"),
        "sheet.csv": (b"a,b\n", "not a video file"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    sound_only(folder / "sound.mp4")
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    os.mkfifo(folder / "pipe.mp4")
    bad_frame = folder_of_frames(folder / "bad_frame", 3)
    (bad_frame / "frame1.png").write_bytes(b"")
    return {name: reason for name, (_, reason) in contents.items()} | {
        "sound.mp4": "only sound",
        "gone.mp4": "broken symbolic link",
        "pipe.mp4": "a pipe, socket or device",
        "bad_frame": "frame1.png: empty file",
    }


def scratched(content: bytes) -> bytes:
    """An MP4 file whose pictures are partly overwritten, its index is not."""
    start, end = content.index(b"mdat") + 8, content.index(b"moov")
    draw = np.random.default_rng(0)
    middle = (start + end) // 2
    return (
        content[:middle] + draw.bytes(min(2000, end - middle)) + content[middle + min(2000, end - middle) :]
    )
