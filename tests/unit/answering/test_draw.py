"""Questions as they are asked once: drawn, shuffled, lettered, put into a prompt."""

import random
from collections import Counter

import pytest

from limner.answering.draw import CANNOT_ANSWER, draw, shuffled
from limner.answering.prompt import PROMPT, Prompt
from limner.errors import UserError
from limner.questions import Question

COLOUR = Question("What colour is the car?", ("red", "green", "blue", "white"), 2)
COUNT = Question("How many cars are there?", ("one", "two"), 0)
AGAIN = {"seed": 3, "sample_id": "a/b.jpg", "step": 7}


def test_a_draw_is_made_by_seed_sample_and_step():
    first = draw((COLOUR, COUNT), 8, **AGAIN)
    assert draw((COLOUR, COUNT), 8, **AGAIN) == first
    for other in ({"seed": 4}, {"sample_id": "a/c.jpg"}, {"step": 8}):
        assert draw((COLOUR, COUNT), 8, **{**AGAIN, **other}) != first


def test_a_draw_is_the_same_on_every_machine():
    """Pinned as first drawn: hash() and the order of sets differ from process to process."""
    drawn = draw((COLOUR, COUNT), 4, **AGAIN)
    assert [(each.question.text[:8], "".join(sorted(each.right))) for each in drawn] == PINNED


PINNED = [("What col", "A"), ("How many", "B"), ("What col", "A"), ("How many", "A")]


def test_draws_are_uniform_with_replacement():
    drawn = draw((COLOUR, COUNT), 4000, **AGAIN)
    asked = Counter(each.question.text for each in drawn)
    letters = Counter(min(each.right) for each in drawn if each.question is COLOUR)
    # five standard deviations of a binomial of 4000 with .5, and of 2000 with .25
    assert abs(asked[COLOUR.text] - 2000) < 5 * 32
    assert all(abs(letters[letter] - 500) < 5 * 20 for letter in "ABCD")


def test_of_no_questions_none_is_drawn():
    assert draw((), 8, **AGAIN) == ()


def test_the_right_letter_follows_the_right_option():
    for drawn in draw((COLOUR,), 50, **AGAIN):
        assert {drawn.options["ABCDE".index(letter)] for letter in drawn.right} == {"blue"}
        assert sorted(drawn.options[:-1]) == sorted(COLOUR.options)


def test_cannot_answer_is_the_last_option_and_never_right():
    drawn = shuffled(COLOUR, random.Random(0))
    assert (drawn.options[-1], drawn.cannot, drawn.letters) == (CANNOT_ANSWER, "E", "ABCDE")
    assert "E" not in drawn.right
    without = shuffled(COLOUR, random.Random(0), None)
    assert (len(without.options), without.cannot, without.letters) == (4, "", "ABCD")


def test_25_options_leave_the_last_letter_for_cannot_answer():
    full = Question("Which?", tuple(str(k) for k in range(25)), 3)
    assert shuffled(full, random.Random(0)).cannot == "Z"


def test_duplicated_options_are_right_together():
    """The published code maps texts to letters, and the map of a question with equal options has a hole."""
    doubled = Question("Colour?", ("red", " Red.", "blue", "red"), 0)
    for drawn in draw((doubled,), 20, **AGAIN):
        right = {drawn.options["ABCDE".index(letter)].strip(" .").lower() for letter in drawn.right}
        assert (right, len(drawn.right)) == ({"red"}, 3)


def test_an_option_of_many_lines_stands_on_one():
    """In the published code it shifts the letters of all that follows."""
    lines = Question("What does it say?", ("STOP\nB) go\n", "go"), 0)
    drawn = shuffled(lines, random.Random(0))
    assert {*drawn.options[:2]} == {"STOP B) go", "go"}
    shown = Prompt().conversation("a sign", drawn)[0]["content"].partition("Question: ")[2]
    assert [line[:2] for line in shown.split("\n")[1:4]] == ["A)", "B)", "C)"]


def test_the_prompt_names_no_letter_but_those_of_the_options():
    """The published prompt's example answered with another letter than "can not answer" has."""
    drawn = shuffled(COLOUR, random.Random(0))
    text = Prompt().conversation("", drawn)[0]["content"]
    for line in (f"{letter}) {option}" for letter, option in zip("ABCDE", drawn.options, strict=True)):
        assert text.count(line) == 1
        text = text.replace(line, "")
    assert CANNOT_ANSWER not in text
    assert not {word.strip(".):") for word in text.split()} & set("ABCDEFGH")


def test_the_caption_stands_before_all_that_differs():
    texts = [Prompt().conversation("a car", each)[0]["content"] for each in draw((COLOUR, COUNT), 4, **AGAIN)]
    start = PROMPT.partition("{question}")[0].replace("{caption}", "a car")
    assert all(text.startswith(start) for text in texts)


def test_what_looks_like_a_placeholder_stays_text():
    drawn = shuffled(Question("Which {options}?", ("{letter}", "\\1"), 0), random.Random(1), None)
    prompt = Prompt("{caption}|{question}|{options}", "{letter}={text}")
    text = prompt.conversation("a {question} \\g<0>", drawn)[0]["content"]
    assert text.startswith("a {question} \\g<0>|Which {options}?|")
    assert "={letter}" in text
    assert "=\\1" in text


@pytest.mark.parametrize(
    "template",
    ["{caption} {question}", "{question} {caption} {options}", "{caption}{question}{options}{options}"],
)
def test_a_prompt_that_leaves_something_out_is_refused(template):
    with pytest.raises(UserError, match="the caption first"):
        Prompt(template)


def test_an_option_without_letter_is_refused():
    with pytest.raises(UserError, match="option: "):
        Prompt(option="{text}")
