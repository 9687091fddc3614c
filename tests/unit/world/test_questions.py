"""Questions of the miniature world: true of their scenes, and answerable from full captions."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limner.data.world import Source
from limner.questions import Question
from limner.world import questions as asked
from limner.world.captions import WORDS, full, invent, terse, varied
from limner.world.questions import KINDS, answer, questions, questions_of, read
from limner.world.scenes import Scene, Thing, random_scene, scene

THREE = Scene(
    "teal",
    (
        Thing("triangle", "black", 1, 0, 0, 0),
        Thing("star", "blue", 0, 1, 0, 0),
        Thing("square", "black", 1, 1, 0, 0),
    ),
)
"""Nothing at the top left."""
SCENES = [scene(0, index, "train") for index in range(300)] + [
    scene(0, index, "unseen") for index in range(50)
]


def of_kind(kind: str, told: Scene = THREE, seed: int = 0) -> list[Question]:
    return [one for one in questions(told, np.random.default_rng(seed)) if one.kind == kind]


def true_options(told: Scene, question: Question) -> set[str]:
    """The options that hold in a scene, worked out from its grid anew."""
    cells = {thing.shape: (thing.row, thing.column) for thing in told.things}
    colours = {thing.shape: thing.colour for thing in told.things}
    words = question.text.rstrip("?").replace(",", "").split()
    if question.kind == "existence":
        return set(question.options) & set(cells)
    if question.kind == "background":
        return {told.background} & set(question.options)
    if question.kind == "count":
        return {["none", "one", "two", "three"][len(cells)]}
    if question.kind == "position":
        row, column = cells[words[-1]]
        return {f"{'bottom' if row else 'top'} {'right' if column else 'left'}"}
    if question.kind == "colour" and words[-1] in cells:
        return {colours[words[-1]]}
    if question.kind == "colour":
        return {shape for shape, colour in colours.items() if colour == words[-1]} & set(question.options)
    (row, column), (other_row, other_column) = cells[words[3]], cells[words[-1]]
    holds = {
        "above it": row < other_row,
        "below it": row > other_row,
        "left of it": column < other_column,
        "right of it": column > other_column,
    }
    return {option for option in question.options if holds[option]}


def test_every_question_has_one_right_option_which_is_its_answer():
    for number, told in enumerate(SCENES):
        for question in questions(told, np.random.default_rng(number)):
            assert true_options(told, question) == {question.options[question.answer]}, question


def test_every_question_is_answered_by_the_full_caption():
    for number, told in enumerate(SCENES):
        for question in questions(told, np.random.default_rng(number)):
            assert answer(full(told), question) == question.answer, (full(told), question)


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_what_a_true_caption_says_is_right_but_for_what_it_leaves_out(seed: int, density: float):
    # A caption lists what there is: one that leaves a thing out is wrong about how many there are.
    rng = np.random.default_rng(seed)
    told = random_scene(rng, pairs="any")
    caption = varied(told, rng, density)
    for question in questions(told, rng):
        if question.kind != "count":
            assert answer(caption, question) in (None, question.answer), (caption, question)


@settings(max_examples=150)
@given(st.lists(st.sampled_from([*WORDS, "dog", ""]), max_size=24), st.integers(0, 2**32))
def test_any_string_is_read(words: list[str], seed: int):
    for question in questions(random_scene(np.random.default_rng(seed)), np.random.default_rng(seed)):
        place = answer(" ".join(words), question)
        assert place is None or 0 <= place < len(question.options)


def test_nothing_is_answered_by_nothing_and_little_by_little():
    everything = [
        (told, question) for told in SCENES for question in questions(told, np.random.default_rng(1))
    ]
    assert not any(answer("", question) is not None for _, question in everything)
    said = {id(told): terse(told, np.random.default_rng(2)) for told in SCENES}
    right = [answer(said[id(told)], question) == question.answer for told, question in everything]
    assert np.mean(right) < 0.25


def test_all_kinds_are_asked_with_three_or_four_options():
    made = [questions(told, np.random.default_rng(3)) for told in SCENES]
    assert all(5 <= len(one) <= 15 for one in made)
    kinds = Counter(question.kind for one in made for question in one)
    assert set(kinds) == set(KINDS)
    assert {len(question.options) for one in made for question in one} == {3, 4}
    assert all(len(set(question.options)) == len(question.options) for one in made for question in one)


def test_no_place_is_right_more_often_than_others():
    made = [questions(told, np.random.default_rng([5, number])) for number, told in enumerate(SCENES)]
    places = Counter(question.answer for one in made for question in one if len(question.options) == 4)
    # 3,900 questions: three standard errors of a quarter are .021
    assert places.total() > 3900
    assert all(abs(count / places.total() - 0.25) < 0.021 for count in places.values())


def test_wrong_colours_are_those_of_the_other_things():
    told = Scene("pink", (Thing("star", "red", 0, 0, 0, 0), Thing("ring", "blue", 1, 1, 0, 0)))
    of_star, of_ring, *_ = of_kind("colour", told)
    assert {"red", "blue"} <= set(of_star.options)
    assert {"red", "blue"} <= set(of_ring.options)


def test_a_colour_of_two_things_is_not_asked_for_by_its_shape():
    texts = [question.text for question in of_kind("colour")]
    assert "Which shape is blue?" in texts
    assert "Which shape is black?" not in texts


def test_corners_are_asked_where_the_caption_leaves_one_arrangement():
    assert full(THREE) == "a black triangle above a blue star left of a black square on a teal background"
    # the triangle may be at the top left as well
    assert [question.text for question in of_kind("position")] == [
        "In which corner is the star?",
        "In which corner is the square?",
    ]
    assert not of_kind("position", Scene("pink", THREE.things[1:]))


@pytest.mark.parametrize(
    ("caption", "relation", "right"),
    [
        ("a triangle above a star", "above it", True),
        # in reading order, what is right of the next thing is above it as well
        ("a triangle right of a star", "above it", True),
        ("a triangle left of a star", "above it", False),
        ("a triangle and a star", "above it", False),
        ("a triangle above a star left of a square", "above it", True),
        ("a triangle above a triangle above a star", "above it", False),
        ("a star left of a triangle", "above it", False),
    ],
)
def test_relations_are_inferred(caption: str, relation: str, right: bool):
    options = ("above it", "below it", "left of it")
    question = Question("Where is the triangle, seen from the star?", options, 0, "relation")
    place = answer(caption, question)
    assert (place is not None and options[place] == relation) == right


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("a red star", "red"),
        ("a star and a red ring", None),
        ("a red blue star", None),
        ("a pink star", None),
        ("a red star and a blue star", None),
        ("a black star", None),
    ],
)
def test_colours_are_those_said_of_the_shape(caption: str, found: str | None):
    options = ("blue", "red", "green", "white")
    place = answer(caption, Question("What colour is the star?", options, 1, "colour"))
    assert (None if place is None else options[place]) == found


def test_a_thing_invented_or_said_twice_costs_answers():
    rng = np.random.default_rng(4)
    full_right = invented_right = 0
    for told in SCENES[:100]:
        caption = invent(told, full(told), rng)
        for question in questions(told, rng):
            full_right += answer(full(told), question) == question.answer
            invented_right += answer(caption, question) == question.answer
    assert invented_right < 0.8 * full_right


def test_the_reader_of_captions():
    told = read("an image of a red star above a ring and a blue cross on a teal background")
    assert told.shapes == ("star", "ring", "cross")
    assert told.colours == (frozenset({"red"}), frozenset(), frozenset({"blue"}))
    assert told.relations == ((1, "above"),)
    assert told.backgrounds == {"teal"}


def test_a_sample_of_the_world_holds_the_questions_of_its_scene():
    source = Source(split="validation", count=3)
    assert source.read(2).extra["questions"] == questions_of(0, 2, "validation")
    assert source.read(2).extra["questions"] != questions_of(1, 2, "validation")
    assert asked.questions_of(0, 2, "validation") == questions_of(0, 2, "validation")
