import numpy as np
import pytest

from limner.data import folder, jsonl, named, world
from limner.errors import UserError
from limner.world import captions, scenes
from limner.world.truth import check


def test_samples_are_the_scenes_of_the_split():
    source = world.Source(seed=3, split="test", count=5)
    assert source.ids() == tuple(f"test-{index:06d}" for index in range(5))
    for index, sample in enumerate(source):
        scene = scenes.scene(3, index, "test")
        assert sample.extra["scene"] == scene
        assert sample.references == (captions.full(scene),)
        assert all(fact.true for fact in check(scene, sample.references[0]).stated)
        np.testing.assert_array_equal(np.asarray(sample.image), np.asarray(scenes.picture(3, index, "test")))


def test_a_scene_is_drawn_once():
    source = world.Source(count=2)
    assert source.read(1) is source.read(1)
    assert source.read(0).image is not world.Source(seed=1, count=2).read(0).image


@pytest.mark.parametrize("split", scenes.SPLITS)
def test_a_whole_split(split):
    assert len(world.Source(split=split)) == scenes.SPLITS[split]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split": "tset"}, "no split 'tset'"),
        ({"count": 0}, "outside of 1 to"),
        ({"count": 10**6}, "outside of"),
    ],
)
def test_settings_that_name_no_scenes(settings, words):
    with pytest.raises(UserError, match=words):
        world.Source(**settings).ids()


def test_a_source_is_named_by_what_it_reads(tmp_path):
    assert named.source("world:unseen") == world.Source(split="unseen")
    assert named.source("rows.JSONL") == jsonl.Source(path="rows.JSONL")
    assert named.source("photos") == folder.Source(path="photos")
    assert named.source("photos/a.png") == folder.Source(path="photos/a.png")
    (tmp_path / "odd.jsonl").mkdir()
    assert isinstance(named.source(str(tmp_path / "odd.jsonl")), folder.Source)
    assert str(named.source("world:test")) == "world:test"
    assert str(named.source("photos")) == "photos"
