"""Clips are functions of their numbers, things never meet, and eight frames show what happens."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from limner.data.video import Video, choose
from limner.world import clips
from limner.world.scenes import HELD_OUT, PIXELS

CLIPS = [clips.clip(0, index, "train") for index in range(400)]


def test_a_clip_is_a_function_of_seed_split_and_index():
    assert clips.clip(0, 7, "train") == CLIPS[7]
    others = [clips.clip(1, 7, "train"), clips.clip(0, 7, "test"), clips.clip(0, 8, "train")]
    assert CLIPS[7] not in others


def test_a_frame_is_the_same_by_itself_and_among_others():
    together = clips.pictures(0, 3, "test", [0, 5, 9])
    alone = clips.pictures(0, 3, "test", [5])[0]
    assert np.array_equal(np.asarray(together[1]), np.asarray(alone))
    assert alone.size == (PIXELS, PIXELS)
    assert alone.mode == "RGB"


def test_every_motion_occurs_and_lengths_fill_their_range():
    motions = Counter(actor.motion for clip in CLIPS for actor in clip.actors)
    assert set(motions) == set(clips.MOTIONS)
    lengths = {clip.frames for clip in CLIPS}
    assert (min(lengths), max(lengths)) == clips.FRAMES


def test_things_are_told_apart_and_never_meet():
    for clip in CLIPS:
        shapes = [actor.shape for actor in clip.actors]
        assert len(set(shapes)) == len(shapes) <= 2
        for number in range(clip.frames):
            scene = clips.scene_at(clip, number)
            if len(scene.things) == 2:
                first, second = (_middle(thing) for thing in scene.things)
                # Cells are 24 pixels apart; each thing is shifted by at most one.
                assert max(abs(first[0] - second[0]), abs(first[1] - second[1])) >= 22


def test_held_out_pairs_are_never_shown():
    shown = {(actor.colour, actor.shape) for clip in CLIPS for actor in clip.actors}
    shown |= {(actor.later_colour, actor.shape) for clip in CLIPS for actor in clip.actors}
    assert not shown & HELD_OUT


@pytest.mark.parametrize("motion", clips.MOTIONS)
def test_eight_frames_show_before_and_after(motion):
    """Uniform sampling sees a thing at rest both before and after what happens to it."""
    for clip in CLIPS:
        times = [number / clips.FPS for number in range(clip.frames)]
        numbers = choose(Video(Path()), times, id="", epoch=0)
        first, *_, last = [clips.scene_at(clip, number).things for number in numbers]
        for place, actor in enumerate(clip.actors):
            if actor.motion != motion:
                continue
            before, after = first[place], last[place]
            moved = np.subtract(_middle(after), _middle(before)).tolist()
            expected = {
                "left": [-24, 0], "right": [24, 0], "up": [0, -24], "down": [0, 24],
            }.get(motion, [0, 0])  # fmt: skip
            if motion in ("enter", "leave"):
                assert sorted(map(abs, moved)) == [0, 24]
                assert _inside(after) == (motion == "enter")
                assert _inside(before) == (motion == "leave")
            else:
                assert moved == expected
            assert (before.colour != after.colour) == (motion == "change")


def test_one_frame_is_the_first_and_shows_no_change():
    """What LAVIS's uniform sampling takes as the only frame lies before every action."""
    for clip in CLIPS:
        assert choose(Video(Path(), frames=1), [0.0] * clip.frames, id="", epoch=0) == (0,)
        for thing, actor in zip(clips.scene_at(clip, 0).things, clip.actors, strict=True):
            outside = actor.motion == "enter"
            assert outside or (thing.dx, thing.dy) == (actor.dx, actor.dy)


def test_numbers_outside_are_refused():
    with pytest.raises(ValueError, match="unknown split 'unseen'"):
        clips.clip(0, 0, "unseen")
    with pytest.raises(ValueError, match="has clips 0 to 299, not 300"):
        clips.clip(0, 300, "validation")
    with pytest.raises(ValueError, match="frames 0 to"):
        clips.scene_at(CLIPS[0], CLIPS[0].frames)


def _middle(thing):
    return 12 + 24 * thing.column + thing.dx, 12 + 24 * thing.row + thing.dy


def _inside(thing):
    return all(0 <= place < PIXELS for place in _middle(thing))
