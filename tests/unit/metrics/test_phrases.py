"""Words, bad phrases, years, repetitions, colours."""

from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.metrics.phrases import (
    Phrases,
    bad_spans,
    colours,
    exempt_words,
    load_phrases,
    load_words,
    repeated,
    word_spans,
    words,
)

TABLE_1 = "an image of a man in green shirt and green shirt is talking about a car"


PHRASES = resources.files("limner.metrics").joinpath("data/bad_phrases.txt").read_text("utf-8").splitlines()


def test_all_phrases_of_the_paper_are_there_and_differ():
    assert len(set(PHRASES)) == len(PHRASES) == 212
    assert len(load_phrases()) == 211, '"on-cam" and "on- cam" are the same words'


@pytest.mark.parametrize("phrase", PHRASES)
def test_every_phrase_finds_itself_alone_and_in_a_caption(phrase: str):
    alone = words(phrase)
    assert (0, len(alone)) in bad_spans(alone, load_phrases())
    inside = words(f"red {phrase} dogs")
    assert (1, 1 + len(alone)) in bad_spans(inside, load_phrases())


@pytest.mark.parametrize(
    "caption",
    [
        *(
            "a dog in front of the camera, barking",
            "a dog on- cam",
            "the camera\u2019s view",
            "the camera's view",
        ),
        *("a dog, image", "An Image Of a dog", "A close-up of a dog", "it was 1993"),
    ],
)
def test_bad_captions_as_people_write_them(caption: str):
    assert bad_spans(words(caption), load_phrases())


@pytest.mark.parametrize(
    "caption",
    [
        "an eclipse over a cliptop",
        "a dog and 19933 cats",
        "a dog and 93 cats",
        "a man video-less",
        "",
        "camera",
    ],
)
def test_phrases_and_years_are_whole_words(caption: str):
    found = bad_spans(words(caption), load_phrases())
    assert found == ([(2, 3)] if "video" in caption else [])


def test_table_1_of_the_paper():
    caption = words(TABLE_1)
    phrases = Phrases.of(["an image of", "is talking about"])
    assert bad_spans(caption, phrases) == [(0, 3), (11, 14)]
    assert [caption[place] for place, flag in enumerate(repeated(caption, exempt_words())) if flag] == [
        "shirt"
    ]
    assert repeated(caption, exempt_words()).index(True) == 10


def test_punctuation_is_apart_and_never_repeated():
    assert words("A dog's ball, a close-up!") == ["a", "dog's", "ball", ",", "a", "close", "-", "up", "!"]
    assert repeated(words("dogs, cats, birds"), frozenset()) == [False] * 5
    assert words("  ") == []
    assert words("naïve 犬 हिन्दी") == ["naïve", "犬", "हिन्दी"]


def test_colours_keep_order_and_repetitions():
    assert colours(words("Red and blue shirt, red hat")) == ["red", "blue", "red"]


@pytest.mark.parametrize("name", ["colours", "prepositions", "articles"])
def test_word_lists_hold_single_lower_case_words(name):
    assert load_words(name)
    assert all(words(word) == [word] for word in load_words(name))


@given(st.text())
def test_spans_cover_every_visible_character_once(text: str):
    spans = word_spans(text)
    covered = [place for start, stop in spans for place in range(start, stop)]
    assert covered == [place for place, character in enumerate(text) if not character.isspace()]


@given(st.lists(st.sampled_from(["red", "dog", "cat", "a", ","])))
def test_repetitions_are_all_but_the_first_occurrence(caption: list[str]):
    flags = repeated(caption, exempt_words())
    assert sum(flags) == sum(max(0, caption.count(word) - 1) for word in ("dog", "cat"))
