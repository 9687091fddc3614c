"""The truth checker, against facts counted by hand and against strings of any words."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.world.captions import WORDS, full
from limner.world.scenes import Scene, Thing, scene
from limner.world.truth import check

THREE = Scene(
    "pink",
    (
        Thing("star", "white", 0, 0, 0, 0),
        Thing("ring", "blue", 1, 0, 0, 0),
        Thing("square", "red", 0, 1, 0, 0),
    ),
)


def facts(caption: str) -> dict[str, bool]:
    return {fact.text: fact.true for fact in check(THREE, caption).stated}


def test_a_full_caption_word_by_word():
    truth = check(THREE, "a white star left of a blue ring above a red square on a pink background")
    assert [(fact.kind, fact.words, fact.text) for fact in truth.stated] == [
        ("colour", (1, 2), "white star"),
        ("shape", (2, 3), "star"),
        ("relation", (3, 5), "star left of ring"),
        ("colour", (6, 7), "blue ring"),
        ("shape", (7, 8), "ring"),
        ("relation", (8, 9), "ring above square"),
        ("colour", (10, 11), "red square"),
        ("shape", (11, 12), "square"),
        ("background", (14, 15), "pink background"),
    ]
    assert truth.share_true == 1
    assert truth.coverage == 1
    assert truth.missing == ()
    assert (truth.relations_stated, truth.relations_true) == (2, 2)


def test_what_is_missing():
    truth = check(THREE, "a star and a blue ring")
    assert truth.share_true == 1
    assert truth.coverage == pytest.approx(3 / 9)
    assert set(truth.missing) == {
        "square",
        "white star",
        "red square",
        "pink background",
        "star and ring related",
        "ring and square related",
    }


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red star", {"red star": False, "star": True}),
        ("a circle", {"circle": False}),
        ("a white circle", {"white circle": False, "circle": False}),
        ("a star right of a ring", {"star": True, "star right of ring": False, "ring": True}),
        ("a star above a circle", {"star": True, "star above circle": False, "circle": False}),
        ("a square below a ring", {"square": True, "square below ring": True, "ring": True}),
        ("a star above left of a ring", {"star": True, "star above ring": False, "star left of ring": True}
         | {"ring": True}),
        ("a teal background", {"teal background": False}),
        ("a pink star", {"pink star": False, "star": True}),
        ("a red white star", {"red star": False, "white star": True, "star": True}),
        ("above a star left of", {"star": True}),
        ("a star above and a ring", {"star": True, "ring": True}),
        ("a white", {}),
        ("", {}),
        ("zebra of of image", {}),
    ],
)  # fmt: skip
def test_single_claims(caption, expected):
    assert facts(caption) == expected


def test_what_is_said_twice_is_false_the_second_time():
    stated = check(THREE, "a white star and a white star on a pink background on a pink background").stated
    assert [fact.true for fact in stated] == [True, True, False, False, True, False]
    assert not any(fact.true for fact in check(THREE, "a ring above a square above a square").stated[-2:])


def test_nothing_stated_is_nan_and_covers_nothing():
    truth = check(THREE, "an image of")
    assert math.isnan(truth.share_true)
    assert truth.coverage == 0


@given(st.lists(st.sampled_from([*WORDS, "zebra"]), max_size=30), st.integers(0, 200))
def test_any_words_are_read(words, index):
    told = scene(0, index, "validation")
    truth = check(told, " ".join(words))
    assert 0 <= truth.coverage <= 1
    assert truth.total == 3 * len(told.things)
    assert truth.relations_true <= truth.relations_stated
    for fact in truth.stated:
        start, stop = fact.words
        assert 0 <= start < stop <= len(words)
    spans = [place for fact in truth.stated for place in range(*fact.words)]
    assert len(spans) == len(set(spans)), "no word belongs to two facts"


@given(st.integers(0, 500), st.data())
def test_saying_less_of_a_true_caption_stays_true_and_covers_less(index, data):
    told = scene(0, index, "train")
    words = full(told).split()
    cut = data.draw(st.integers(0, len(words)))
    truth = check(told, " ".join(words[:cut]))
    assert all(fact.true for fact in truth.stated)
    assert truth.coverage <= check(told, full(told)).coverage
    assert truth.coverage == pytest.approx(len(truth.stated) / truth.total)
