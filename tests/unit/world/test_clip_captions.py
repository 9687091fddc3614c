"""References are true, varied, and say nothing that the set of frames does not show."""

from collections import Counter

import numpy as np
import pytest

from limner.world.clip_captions import (
    REFERENCES,
    SEEN,
    VERBS,
    WORDS,
    alt_text,
    motions_right,
    references,
    references_of,
    still_text,
)
from limner.world.clips import Actor, Clip, clip
from limner.world.scenes import BACKGROUNDS, COLOURS, SHAPES

CLIPS = [clip(0, index, "train") for index in range(300)]
TOLD = [references_of(0, index, "train") for index in range(300)]
BLUE_STAR = Actor("star", "blue", "stay", 1, 1, start=0.5)
RED_CIRCLE = Actor("circle", "red", "left", 1, 0, start=0.5)


def test_five_references_that_are_the_same_every_time():
    assert all(len(told) == REFERENCES for told in TOLD)
    assert references_of(0, 4, "train") == TOLD[4] != references_of(1, 4, "train")


def test_people_differ():
    assert np.mean([len(set(told)) for told in TOLD]) > 4.5
    lengths = Counter(len(caption.split()) for told in TOLD for caption in told)
    assert min(lengths) <= 4
    assert max(lengths) >= 17


def test_every_word_is_known_and_every_phrase_is_said():
    said = " ".join(caption for told in TOLD for caption in told)
    assert set(said.split()) <= set(WORDS)
    for phrases in VERBS.values():
        assert all(phrase.partition("{")[0].strip() in said for phrase in phrases)


def test_all_that_is_said_is_true():
    for told, captions in zip(CLIPS, TOLD, strict=True):
        for caption in captions:
            right, verbs = motions_right(told, caption)
            assert right == verbs >= 1
            words = set(caption.split())
            colours = {a.colour for a in told.actors} | {a.later_colour for a in told.actors}
            assert words & set(COLOURS) <= colours
            assert words & set(BACKGROUNDS) <= {told.background}
            assert words & set(SHAPES) <= {actor.shape for actor in told.actors}


@pytest.mark.parametrize(
    ("one", "other"),
    [("left", "right"), ("up", "down"), ("enter", "leave")],
)
def test_what_only_the_order_of_frames_tells_is_not_told(one, other):
    """Both clips hold the same set of pictures, and people say the same of them."""
    first, second = (Clip("teal", (Actor("star", "red", motion, 0, 0, 0.4),), 16) for motion in (one, other))
    assert references(first, np.random.default_rng(3)) == references(second, np.random.default_rng(3))
    assert alt_text(first) == alt_text(second)


def test_alt_text_has_one_style():
    assert alt_text(Clip("pink", (BLUE_STAR, RED_CIRCLE), 16)) == (
        "sliding red circle and unmoved blue star in pink"
    )
    changing = Actor("ring", "red", "change", 0, 0, start=0.5, later_colour="white")
    assert alt_text(Clip("grey", (changing,), 16)) == "changing ring in grey"
    assert still_text("pink", [("blue", "star"), ("red", "circle")]) == "red circle and blue star in pink"
    assert still_text("pink", []) == "in pink"
    for told in CLIPS:
        assert motions_right(told, alt_text(told)) == (len(told.actors),) * 2


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red circle slides across while a blue star rests", (2, 2)),
        ("a red circle visits while a blue star rests", (1, 2)),
        ("a ring slides across", (0, 1)),
        ("a blue star near a circle", (0, 0)),
        ("", (0, 0)),
        ("moves sideways", (0, 0)),
        ("unmoved red circle and sliding star in pink", (0, 2)),
    ],
)
def test_motions_are_checked_against_the_clip(caption, expected):
    assert motions_right(Clip("pink", (BLUE_STAR, RED_CIRCLE), 16), caption) == expected


def test_every_motion_is_seen_as_something_that_people_have_words_for():
    assert set(SEEN.values()) == set(VERBS)
