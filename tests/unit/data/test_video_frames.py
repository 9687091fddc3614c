"""The frames that come out of real files: the right ones, upright, and no more decoded than needed."""

import struct
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

import nasty_videos
from limner.data import video_stream
from limner.data.video import Video, decode, load
from limner.errors import Reject
from limner.types import Sample
from nasty_videos import numbers

COUNT = 90
PYRAMID = "bframes=3:b-pyramid=normal:open-gop=1"
FILES = {
    "b_frames.mp4": ("libx264", {"g": "30", "bf": "3", "preset": "ultrafast"}),
    "one_key.mp4": ("libx264", {"g": "900", "bf": "3", "preset": "ultrafast"}),
    "pyramid.mkv": ("libx264", {"g": "30", "preset": "ultrafast", "x264-params": PYRAMID}),
    "open.ts": ("libx264", {"g": "30", "preset": "ultrafast", "x264-params": PYRAMID}),
    "no_times.h264": ("libx264", {"g": "30", "bf": "2", "preset": "ultrafast"}),
    "old.avi": ("mpeg4", {"g": "30", "bf": "2"}),
    "dvd.mpg": ("mpeg2video", {"g": "15", "bf": "2"}),
    "hevc.mp4": ("libx265", {"preset": "ultrafast", "x265-params": "keyint=30:bframes=3:log-level=none"}),
    "vp9.webm": ("libvpx-vp9", {"g": "30", "deadline": "realtime", "cpu-used": "8"}),
    "vp8.webm": ("libvpx", {"g": "30", "deadline": "realtime", "cpu-used": "16"}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    made = {}

    def file(name):
        if name not in made:
            codec, options = FILES[name]
            made[name] = nasty_videos.video(folder / name, COUNT, codec=codec, options=options)
        return made[name]

    return file


def every_frame(path):
    """All frames as a decoder gives them that starts at the beginning."""
    with av.open(str(path)) as container:
        return [
            frame.to_ndarray(format="rgb24", interpolation="BICUBIC") for frame in container.decode(video=0)
        ]


@pytest.mark.parametrize("name", FILES)
def test_frames_are_those_of_a_whole_decode(files, name):
    plain = every_frame(files(name))
    assert numbers(Image.fromarray(frame) for frame in plain) == list(range(COUNT))
    for sampling, frames, epoch in [
        ("uniform", 4, 0),
        ("uniform", 32, 0),
        ("headtail", 8, 0),
        ("headtail", 8, 1),
    ]:
        decoded = decode(Video(files(name), frames=frames, sampling=sampling), id="a", epoch=epoch)
        assert len(decoded.images) == frames
        assert numbers(decoded.images) == list(decoded.places)
        for place, image in zip(decoded.places, decoded.images, strict=True):
            assert image.mode == "RGB"
            assert np.array_equal(np.asarray(image), plain[place])


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"no_times.h264"}))
def test_only_what_is_needed_is_decoded(files, name):
    assert decode(Video(files(name), frames=1), id="a").decoded == 1
    four = decode(Video(files(name), frames=4), id="a").decoded
    assert four < (60 if name == "one_key.mp4" or name.endswith("webm") else 40)
    assert decode(Video(files(name), frames=32), id="a").decoded <= COUNT
    last = Video(files(name), sampling="fps", fps=1 / 3.5, max_frames=2)  # the frames at 0 s and at 3.5 s
    assert decode(last, id="a").places == (0, 87)
    assert decode(last, id="a").decoded < (60 if name == "one_key.mp4" else 30)


def test_a_far_frame_of_a_large_file_is_reached_by_seeking(tmp_path, monkeypatch):
    path = nasty_videos.video(
        tmp_path / "large.mp4", 60, codec="libx264", options={"g": "10", "preset": "ultrafast", "qp": "0"}
    )
    monkeypatch.setattr(video_stream, "_SKIP_BYTES", 20_000)
    taken = []
    take = video_stream._Reader._take
    monkeypatch.setattr(video_stream._Reader, "_take", lambda reader: taken.append(1) or take(reader))
    decoded = decode(Video(path, frames=2), id="a")
    assert numbers(decoded.images) == [0, 30]
    assert len(taken) < 20


def test_without_times_in_the_file_everything_is_decoded(files):
    decoded = decode(Video(files("no_times.h264"), frames=4), id="a")
    assert decoded.decoded > COUNT


def test_headtail_draws_again_each_epoch_and_load_keeps_the_rest(files):
    video = Video(files("b_frames.mp4"), frames=8, sampling="headtail", seed=3)
    sample = Sample("a", (), ("a woman",), {"key": 1}, video)
    first, again, later, other = (
        load(each, epoch=epoch)
        for each, epoch in [(sample, 0), (sample, 0), (sample, 1), (replace(sample, id="b"), 0)]
    )
    assert numbers(first.media) == numbers(again.media)
    assert numbers(first.media) != numbers(later.media)
    assert numbers(first.media) != numbers(other.media)
    assert (first.id, first.references, first.extra, first.video) == ("a", ("a woman",), {"key": 1}, video)
    assert first.image is first.media[0]
    assert load(first) is first
    image = Sample("c", (Image.new("RGB", (2, 2)),))
    assert load(image) is image


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turned", range(4))
def test_frames_are_set_upright(tmp_path, turned, mirrored):
    path = nasty_videos.video(tmp_path / "turned.mp4", 4, turned=turned, mirrored=mirrored)
    decoded = decode(Video(path, frames=4), id="a")
    assert numbers(decoded.images) == [0, 1, 2, 3]
    assert decoded.images[0].size == nasty_videos.SIZE


def test_a_phone_s_matrix_turns_with_the_clock(tmp_path):
    """The matrix in the header of a video that a phone took upright, by the QuickTime specification."""
    path = nasty_videos.video(tmp_path / "turned.mp4", 2, turned=3)
    assert struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30) in path.read_bytes()
    assert numbers(decode(Video(path, frames=2), id="a").images) == [0, 1]


@pytest.mark.parametrize(("shape", "size"), [(Fraction(2), (256, 96)), (Fraction(1, 2), (128, 192))])
def test_pixels_are_made_square(tmp_path, shape, size):
    path = nasty_videos.video(tmp_path / "wide.mp4", 2, shape=shape)
    assert decode(Video(path, frames=1), id="a").images[0].size == size
    assert decode(Video(path, frames=1, max_side=64), id="a").images[0].size == (
        (64, 24) if shape > 1 else (43, 64)
    )


def test_fps_follows_the_clock_of_a_variable_frame_rate(tmp_path):
    times = [0, 1, 2, 25, 26, 75, 100, 101]
    for suffix in (".mp4", ".mkv"):
        path = nasty_videos.video(tmp_path / f"gaps{suffix}", len(times), times=times)
        assert numbers(decode(Video(path, sampling="fps", fps=1.0), id="a").images) == [0, 3, 4, 5, 6]
        assert numbers(decode(Video(path, frames=4), id="a").images) == [0, 2, 4, 6]
        thin = Video(path, sampling="fps", fps=25.0, max_frames=3)
        assert numbers(decode(thin, id="a").images) == [0, 4, 7]


def test_good_videos_are_read_whatever_their_form(tmp_path):
    for name, count in nasty_videos.good(tmp_path).items():
        decoded = decode(Video(tmp_path / name, frames=4), id=name)
        expected = [place * count // min(4, count) for place in range(min(4, count))]
        expected += expected[-1:] * (4 - len(expected))
        assert numbers(decoded.images) == list(decoded.places) == expected, name
        assert len(decoded.images) == 4
        assert all(image.size == nasty_videos.SIZE for image in decoded.images)
        assert decoded.decoded > 0


def test_animations_have_a_clock_too(tmp_path):
    seconds = [0.5, 0.5, 2.0, 0.1, 0.9, 0.1]
    for suffix in ("gif", "webp"):
        path = nasty_videos.animation(tmp_path / f"a.{suffix}", 6, seconds=seconds)
        assert numbers(decode(Video(path, sampling="fps"), id="a").images) == [0, 2, 2, 3, 5]
    still = nasty_videos.animation(
        tmp_path / "still.gif", 3, seconds=0.0
    )  # shown for a tenth of a second each
    assert numbers(decode(Video(still, sampling="fps", fps=10.0), id="a").images) == [0, 1, 2]


def test_transparent_animations_are_upon_white(tmp_path):
    clear = [Image.new("RGBA", (8, 8), (255, 0, 0, 0)), Image.new("RGBA", (8, 8), (255, 0, 0, 255))]
    clear[0].save(tmp_path / "a.webp", save_all=True, append_images=clear[1:], lossless=True)
    images = decode(Video(tmp_path / "a.webp", frames=2), id="a").images
    assert [image.getpixel((4, 4)) for image in images] == [(255, 255, 255), (255, 0, 0)]


def test_a_folder_of_frames_is_in_the_order_of_its_numbers(tmp_path):
    folder = nasty_videos.folder_of_frames(tmp_path / "frames", 12)
    decoded = decode(Video(folder, frames=6), id="a")
    assert numbers(decoded.images) == [0, 2, 4, 6, 8, 10]
    assert decoded.decoded == 6
    assert numbers(decode(Video(folder, sampling="fps", fps=0.5), id="a").images) == [0, 2, 4, 6, 8, 10]
    assert decode(Video(folder, frames=1, max_side=64), id="a").images[0].size == (64, 48)


def test_frames_are_reduced_as_they_are_decoded(files):
    assert decode(Video(files("b_frames.mp4"), max_side=64), id="a").images[3].size == (64, 48)
    assert decode(Video(files("b_frames.mp4"), max_side=None), id="a").images[3].size == nasty_videos.SIZE


def test_limits_reject(files, tmp_path):
    path = files("one_key.mp4")
    for settings, reason in [
        ({"max_pixels": 128 * 96 - 1}, "128 x 96 pixels, more than the limit of 12,287"),
        ({"max_bytes": 1000}, f"file of {path.stat().st_size:,} bytes, more than the limit of 1,000"),
        ({"max_decoded": 10}, "takes more decoded frames than the limit of 10"),
    ]:
        with pytest.raises(Reject, match=reason):
            decode(Video(path, **settings), id="a")
    for suffix in ("gif", "webp"):
        path = nasty_videos.animation(tmp_path / f"a.{suffix}", 12)
        with pytest.raises(Reject, match="128 x 96 pixels"):
            decode(Video(path, max_pixels=12_287), id="a")
        with pytest.raises(Reject, match="12 frames, more than the limit of 11"):
            decode(Video(path, max_decoded=11), id="a")
    with pytest.raises(Reject, match=r"frame0.png: 128 x 96 pixels"):
        decode(Video(nasty_videos.folder_of_frames(tmp_path / "f"), max_pixels=12_287), id="a")
