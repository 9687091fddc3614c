"""Clips on disk are real videos that hold the clips' frames, with annotations that LAVIS's readers take."""

import json

import av
import numpy as np
import pytest
from PIL import Image

from limner.data import lavis, world_videos
from limner.errors import UserError
from limner.world import clips, show, videos
from limner.world.clip_captions import references_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("videos")
    videos.write_videos(made, "test", 3, seed=2)
    return made


def test_a_file_holds_every_frame_almost_as_it_was_drawn(folder):
    for index in range(3):
        with av.open(str(folder / f"videos/test-clip-{index:06d}.mp4")) as container:
            stream = container.streams.video[0]
            assert stream.codec.canonical_name == "h264"
            assert stream.average_rate == clips.FPS
            shown = [np.asarray(frame.to_image()).astype(int) for frame in container.decode(stream)]
        drawn = clips.pictures(2, index, "test", range(clips.clip(2, index, "test").frames))
        assert len(shown) == len(drawn)
        for after, before in zip(shown, drawn, strict=True):
            # x264 at CRF 4 and the way to YUV and back: 1.3 levels on average was measured, noise has 4.
            assert np.abs(after - np.asarray(before)).mean() < 2


def test_annotations_have_the_shape_of_lavis(folder):
    rows = json.loads((folder / "annotations/cap_test.json").read_text())
    assert len(rows) == 15
    assert rows[5] == {
        "video": "test-clip-000001.mp4",
        "caption": references_of(2, 1, "test")[0],
        "image_id": "test-clip-000001",
    }
    truth = json.loads((folder / "annotations/cap_test_gt.json").read_text())
    assert [row["caption"] for row in truth["annotations"]] == [row["caption"] for row in rows]
    assert [row["id"] for row in truth["images"]] == [f"test-clip-{index:06d}" for index in range(3)]


@pytest.mark.parametrize(
    "settings",
    [
        {"path": "annotations", "split": "test"},
        {"path": "annotations/cap_test.json", "truth": "annotations/cap_test_gt.json"},
    ],
)
def test_the_reader_of_lavis_reads_them(folder, settings):
    places = {key: value if key == "split" else str(folder / value) for key, value in settings.items()}
    samples = list(lavis.Source(**places, videos=str(folder / "videos"), frames=8))
    drawn = list(world_videos.Source(seed=2, split="test", count=3, frames=8))
    assert [sample.id for sample in samples] == [sample.id for sample in drawn]
    for sample, other in zip(samples, drawn, strict=True):
        assert sorted(sample.references) == sorted(other.references)
        for frame, exact in zip(sample.media, other.media, strict=True):
            # The same frames, as exactly as x264 keeps them.
            assert np.abs(np.asarray(frame).astype(int) - np.asarray(exact)).mean() < 2


def test_splits_lie_beside_each_other(folder):
    videos.write_videos(folder, "validation", 1, seed=2)
    assert {file.name for file in (folder / "annotations").iterdir()} >= {"cap_val.json", "cap_test.json"}


@pytest.mark.parametrize(
    ("split", "count", "words"), [("unseen", 1, "unknown split"), ("test", 501, "1 to 500 clips")]
)
def test_what_is_not_there_is_named(tmp_path, split, count, words):
    with pytest.raises(UserError, match=words):
        videos.write_videos(tmp_path / "never", split, count)
    assert not (tmp_path / "never").exists()


def test_film_strips_show_the_clips(tmp_path):
    show.film_strips(tmp_path / "strips.png", count=2)
    page = Image.open(tmp_path / "strips.png")
    first = clips.pictures(0, 0, "validation", [0])[0].resize((96, 96), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(page.crop((12, 12, 108, 108))), np.asarray(first))
