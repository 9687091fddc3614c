"""Scenes: deterministic, well-formed, and the held-out pairs where they belong."""

import numpy as np
import pytest

from limner.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    PIXELS,
    SHAPES,
    SPLITS,
    Scene,
    Thing,
    picture,
    random_scene,
    render,
    scene,
    strange_palette,
)

SPLIT_NAMES = sorted(SPLITS)


def pairs(told: Scene) -> set[tuple[str, str]]:
    return {(thing.colour, thing.shape) for thing in told.things}


@pytest.mark.parametrize("split", SPLIT_NAMES)
def test_scenes_are_well_formed(split):
    for index in range(300):
        told = scene(0, index, split)
        assert told.background in BACKGROUNDS
        assert (2 if split == "unseen" else 1) <= len(told.things) <= 3
        shapes = [thing.shape for thing in told.things]
        assert len(set(shapes)) == len(shapes)
        assert set(shapes) <= set(SHAPES)
        assert {thing.colour for thing in told.things} <= set(COLOURS)
        cells = [(thing.row, thing.column) for thing in told.things]
        assert cells == sorted(set(cells)), "reading order, one thing a cell"


@pytest.mark.parametrize("split", SPLIT_NAMES)
def test_held_out_pairs_are_only_in_unseen(split):
    for index in range(SPLITS[split] if split != "train" else 3000):
        assert bool(pairs(scene(0, index, split)) & HELD_OUT) == (split == "unseen")


def test_all_pairs_are_drawn_for_the_measuring_clip():
    rng = np.random.default_rng(0)
    seen = set().union(*(pairs(random_scene(rng, pairs="any")) for _ in range(2000)))
    assert len(seen) == len(SHAPES) * len(COLOURS)


def test_a_scene_is_a_function_of_seed_split_and_index():
    assert scene(0, 7, "test") == scene(0, 7, "test")
    others = {scene(1, 7, "test"), scene(0, 8, "test"), scene(0, 7, "validation")}
    assert scene(0, 7, "test") not in others
    assert np.array_equal(picture(0, 7, "test"), picture(0, 7, "test"))
    assert not np.array_equal(render(scene(0, 7, "test"), 1), render(scene(0, 7, "test"), 2))


def test_counts_of_things_follow_the_stated_chances():
    counts = np.bincount([len(scene(0, index, "train").things) for index in range(4000)], minlength=4)
    np.testing.assert_allclose(counts[1:] / 4000, [0.08, 0.32, 0.6], atol=0.03)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thing_is_drawn_in_its_cell_and_colour(shape):
    told = Scene("grey", (Thing(shape, "red", column=1, row=0, dx=0, dy=0),))
    pixels = np.asarray(render(told, 0)).astype(int)
    assert pixels.shape == (PIXELS, PIXELS, 3)
    red = np.abs(pixels - COLOURS["red"]).max(-1) <= 8
    assert red.sum() > 40
    assert not red[:, : PIXELS // 2].any()
    assert not red[PIXELS // 2 :].any()
    grey = np.abs(pixels - BACKGROUNDS["grey"]).max(-1) <= 8
    assert grey[:, : PIXELS // 2].all()
    assert grey[PIXELS // 2 :].all()
    assert red[12, 36] == (shape != "ring"), "only a ring is hollow"


def test_strange_colours_are_far_from_all_that_have_names():
    named = np.array([*COLOURS.values(), *BACKGROUNDS.values()])
    palette = strange_palette(np.random.default_rng(0))
    assert palette.keys() == COLOURS.keys()
    for levels in palette.values():
        assert np.linalg.norm(named - levels, axis=1).min() > 70
    told = Scene("grey", (Thing("square", "red", column=0, row=0, dx=0, dy=0),))
    pixels = np.asarray(render(told, 0, palette=palette)).astype(int)
    assert np.abs(pixels[12, 12] - palette["red"]).max() <= 8


@pytest.mark.parametrize(("index", "split"), [(-1, "test"), (1000, "test"), (0, "holiday")])
def test_scenes_outside_of_the_splits_are_refused(index, split):
    with pytest.raises(ValueError, match=r"test|holiday"):
        scene(0, index, split)
