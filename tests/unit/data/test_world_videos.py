import numpy as np
import pytest

from limner.data import world_videos
from limner.errors import UserError
from limner.world import clips
from limner.world.clip_captions import references_of


def test_samples_are_the_clips_of_the_split():
    source = world_videos.Source(seed=3, split="test", count=4)
    assert source.ids() == tuple(f"test-clip-{index:06d}" for index in range(4))
    for index, sample in enumerate(source):
        clip = clips.clip(3, index, "test")
        assert sample.extra["clip"] == clip
        assert sample.references == source.references(index) == references_of(3, index, "test")
        numbers = [place * clip.frames // 8 for place in range(8)]
        shown = clips.pictures(3, index, "test", numbers)
        assert all(np.array_equal(a, b) for a, b in zip(sample.media, shown, strict=True))


@pytest.mark.parametrize("frames", [1, 4, 32])
@pytest.mark.parametrize("sampling", ["uniform", "headtail"])
def test_as_many_frames_as_asked_for(frames, sampling):
    source = world_videos.Source(split="validation", count=3, frames=frames, sampling=sampling)
    assert all(len(sample.media) == frames for sample in source)


def test_headtail_depends_on_the_seed_alone():
    first, again = (world_videos.Source(count=3, sampling="headtail") for _ in range(2))
    for index in (2, 0, 1):
        pairs = zip(first.read(index).media, again.read(index).media, strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


def test_a_clip_is_drawn_once():
    source = world_videos.Source(count=2)
    assert source.read(1) is source.read(1)


@pytest.mark.parametrize("split", clips.SPLITS)
def test_a_whole_split(split):
    assert len(world_videos.Source(split=split)) == clips.SPLITS[split]
    assert str(world_videos.Source(split=split)) == f"world:videos-{split}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split": "unseen"}, "no split 'unseen' of clips"),
        ({"count": 0}, "outside of 1 to"),
        ({"count": 10**6}, "outside of"),
    ],
)
def test_settings_that_name_no_clips(settings, words):
    with pytest.raises(UserError, match=words):
        world_videos.Source(**settings).ids()
