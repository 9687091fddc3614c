"""Frames that are kept on disk are those that would be decoded."""

import os

import numpy as np
import pytest

import nasty_videos
from limner.data import video_files
from limner.data.batches import read_ahead
from limner.data.video import Video, decode
from limner.data.videos import Source
from limner.types import Sample


@pytest.fixture
def file(tmp_path):
    return nasty_videos.video(tmp_path / "a.mp4", 30)


def kept(tmp_path):
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


def cached(path, tmp_path, **settings):
    return decode(Video(path, frame_cache=str(tmp_path / "cache"), **settings), id="a")


@pytest.mark.parametrize("settings", [{"frames": 5}, {"frames": 40}, {"sampling": "fps", "fps": 5.0}])
def test_a_hit_is_bit_equal_and_decodes_nothing(file, tmp_path, settings):
    plain = decode(Video(file, **settings), id="a")
    first, second = cached(file, tmp_path, **settings), cached(file, tmp_path, **settings)
    assert first.decoded == plain.decoded > 0
    assert second.decoded == 0
    assert plain.places == first.places == second.places
    for a, b in zip(plain.images, second.images, strict=True):
        assert b.mode == "RGB"
        assert np.array_equal(np.asarray(a), np.asarray(b))
    assert len(kept(tmp_path)) == 1
    frames = len(set(plain.places))
    assert kept(tmp_path)[0].stat().st_size == pytest.approx(frames * 128 * 96 * 3, rel=0.1)


def test_draws_are_not_kept(file, tmp_path):
    cached(file, tmp_path, sampling="headtail")
    assert not (tmp_path / "cache").exists()


def test_other_settings_and_other_files_are_other_frames(file, tmp_path):
    ways = [{}, {"frames": 4}, {"max_side": 64}, {"sampling": "fps"}, {"sampling": "fps", "fps": 2.0}]
    for settings in ways:
        assert cached(file, tmp_path, **settings).decoded
    assert len(kept(tmp_path)) == len(ways)
    assert cached(file, tmp_path, seed=7).decoded == 0  # of no account but for headtail
    nasty_videos.video(file, 20)
    os.utime(file, ns=(10**18, 10**18))
    changed = cached(file, tmp_path)
    assert changed.decoded
    assert changed.places == (0, 2, 5, 7, 10, 12, 15, 17)


def test_a_folder_of_frames_is_kept_until_a_frame_changes(tmp_path):
    folder = nasty_videos.folder_of_frames(tmp_path / "frames", 6)
    assert cached(folder, tmp_path, frames=3).decoded == 3
    assert cached(folder, tmp_path, frames=3).decoded == 0
    nasty_videos.frame(77).save(folder / "frame2.png")
    os.utime(folder / "frame2.png", ns=(10**18, 10**18))
    assert nasty_videos.numbers(cached(folder, tmp_path, frames=3).images) == [0, 77, 4]


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-100], lambda data: b"x" * len(data)]
)
def test_a_damaged_entry_is_written_again(file, tmp_path, damage):
    plain = cached(file, tmp_path)
    (entry,) = kept(tmp_path)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert np.array_equal(np.asarray(cached(file, tmp_path).images[3]), np.asarray(plain.images[3]))
    assert entry.read_bytes() == whole


def test_reading_ahead_takes_hits_without_a_process(file, tmp_path, monkeypatch):
    source = Source(path=str(file), frames=3, frame_cache=str(tmp_path / "cache"))

    def read():
        (item,) = read_ahead(source, [0], workers=1, ahead=1)
        assert isinstance(item.result, Sample)
        return nasty_videos.numbers(item.result.media)

    assert read() == [0, 10, 20]
    monkeypatch.setattr("limner.data.video_pool._Process", None)
    assert read() == [0, 10, 20]


def test_rejects_are_not_kept(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(video_files.Reject):
        cached(tmp_path / "a.mp4", tmp_path)
    assert not (tmp_path / "cache").exists()
