"""Whatever is in a file: frames or a reason, never anything else."""

import threading
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nasty_videos
from limner.data.batches import read_ahead
from limner.data.video import Video, decode
from limner.data.video_outline import problem
from limner.data.videos import Source
from limner.errors import Reject
from limner.types import Sample


def test_broken_videos_are_rejected_with_a_reason_in_processes(tmp_path):
    expected = nasty_videos.broken(tmp_path)
    source = Source(path=str(tmp_path), frames=4)
    items = list(read_ahead(source, range(len(source)), workers=2, ahead=8))
    assert sorted(item.id for item in items) == sorted(expected)
    for item in items:
        assert isinstance(item.result, Reject), item.id
        assert expected[item.id] in item.result.reason, item.id
        assert "\n" not in item.result.reason
        assert str(tmp_path) not in item.result.reason


@cache
def content(kind):
    """The bytes of a video of 20 frames, or of an animation of 6."""
    codecs = {"mp4": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4", "ts": "mpeg2video", "mkv": "libx265"}
    with TemporaryDirectory() as folder:
        path = Path(folder, f"a.{kind}")
        if kind in codecs:
            nasty_videos.video(path, 20, codec=codecs[kind])
        else:
            nasty_videos.animation(path, 6)
        return path.read_bytes()


def outcome(path, data, **settings):
    path.write_bytes(data)
    try:
        return decode(Video(path, frames=4, **settings), id="a")
    except Reject as reject:
        return reject


KINDS = ("mp4", "webm", "avi", "ts", "mkv", "gif", "webp")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), cut=st.floats(0, 1), junk=st.binary(max_size=40))
def test_cut_files_give_frames_or_a_reason(tmp_path, kind, cut, junk):
    whole = content(kind)
    kept = whole[: int(cut * (len(whole) - 1))]
    result = outcome(tmp_path / "a", kept + junk)
    if kind != "ts" and not junk:
        assert isinstance(result, Reject)
    if not isinstance(result, Reject):
        assert set(nasty_videos.numbers(result.images)) <= set(range(20))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(KINDS),
    places=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=30)), min_size=1, max_size=8),
    sampling=st.sampled_from(["uniform", "headtail", "fps"]),
)
def test_overwritten_files_give_frames_or_a_reason(tmp_path, kind, places, sampling):
    data = bytearray(content(kind))
    for where, junk in places:
        start = int(where * (len(data) - len(junk)))
        data[start : start + len(junk)] = junk
    result = outcome(tmp_path / "a", bytes(data), sampling=sampling, fps=5.0)
    if isinstance(result, Reject):
        assert result.reason
        assert "\n" not in result.reason
    else:
        assert 1 <= len(result.images) <= 64
        assert all(image.mode == "RGB" and min(image.size) > 0 for image in result.images)


def test_frames_that_had_to_be_made_up_reject_the_video(tmp_path):
    """FFmpeg fills what it cannot decode with pixels of other frames, and blocks of grey.

    Of 200 zeros in a stream of H.264 it notices nothing where they happen to be the code of some picture.
    """
    whole = nasty_videos.video(tmp_path / "a.mp4", 20, options={"g": "5", "preset": "veryfast"}).read_bytes()
    plain = {
        nasty_videos.number(image): np.asarray(image)
        for image in decode(Video(tmp_path / "a.mp4", frames=20), id="a").images
    }
    start, end = whole.index(b"mdat") + 40, whole.index(b"moov")
    results = [
        outcome(tmp_path / "a", whole[:place] + bytes(200) + whole[place + 200 :])
        for place in range(start, end - 200, 200)
    ]
    rejected = sum(isinstance(result, Reject) for result in results)
    wrong = sum(
        any(
            not np.array_equal(np.asarray(image), plain[nasty_videos.number(image)])
            for image in result.images
        )
        for result in results
        if not isinstance(result, Reject)
    )
    assert len(results) > 40
    assert rejected > 0.6 * len(results)  # the others lie in frames that are not needed, or went unnoticed
    assert wrong < 0.1 * len(results)


def test_damage_behind_the_last_wanted_frame_does_no_harm(tmp_path):
    whole = nasty_videos.video(tmp_path / "a.mp4", 60).read_bytes()
    start, end = whole.index(b"mdat") + 8, whole.index(b"moov")
    data = whole[: end - (end - start) // 8] + bytes((end - start) // 8) + whole[end:]
    (tmp_path / "a.mp4").write_bytes(data)
    assert nasty_videos.numbers(decode(Video(tmp_path / "a.mp4", frames=2), id="a").images) == [0, 30]
    with pytest.raises(Reject, match="damaged"):
        decode(Video(tmp_path / "a.mp4", frames=60), id="a")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "avi"])
def test_the_outline_of_whole_files_is_whole_and_that_of_cut_files_is_not(tmp_path, suffix):
    codec = {"avi": "mpeg4", "webm": "libvpx-vp9"}.get(suffix, "libx264")
    path = nasty_videos.video(tmp_path / f"a.{suffix}", 8, codec=codec)
    whole = path.read_bytes()

    def said(data):
        path.write_bytes(data)
        with path.open("rb") as file:
            return problem(file, len(data))

    assert said(whole) is None
    for lacking in (2, 10, 100, len(whole) // 2, len(whole) - 30):
        assert "truncated" in (said(whole[:-lacking]) or ""), lacking


def test_names_of_other_files_are_not_followed(tmp_path):
    """A playlist that is named like a video must not make limner open what it lists."""
    good = nasty_videos.video(tmp_path / "good.mp4", 4)
    playlists = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{good}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{good}'\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }
    for text in playlists.values():
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(Reject, match="not a video"):
            decode(Video(tmp_path / "list.mp4"), id="a")


def test_decoding_in_threads_is_decoding(tmp_path):
    path = nasty_videos.video(tmp_path / "a.mp4", 30)
    results = []

    def work():
        results.extend(nasty_videos.numbers(decode(Video(path, frames=4), id="a").images) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[0, 7, 15, 22]] * 20


def test_strange_names_are_only_names(tmp_path):
    source_names = ["a:b|c.mp4", "frame%03d.mp4", "concat:a.mp4", "-i.mp4", "é 视频.mp4", "http:x.mp4"]
    for name in source_names:
        nasty_videos.video(tmp_path / name, 2)
    samples = list(Source(path=str(tmp_path), frames=2))
    assert sorted(sample.id for sample in samples) == sorted(source_names)
    assert all(
        isinstance(sample, Sample) and nasty_videos.numbers(sample.media) == [0, 1] for sample in samples
    )
