"""The chosen option is read where one is chosen, and nowhere else."""

import pytest

from limner.answering.draw import CANNOT_ANSWER
from limner.answering.letters import read_letter

OPTIONS = ("red", "a green car", "blue", "two", CANNOT_ANSWER)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        ("c", "C"),
        (" C\n", "C"),
        ("(C)", "C"),
        ("[C]", "C"),
        ("C.", "C"),
        ("C)", "C"),
        ("**C**", "C"),
        ("`C`", "C"),
        ("Option C", "C"),
        ("C) blue", "C"),
        ("(C) blue", "C"),
        ("C. blue.", "C"),
        ("C: blue", "C"),
        ("C blue", "C"),
        ("C - blue", "C"),
        ("C\nblue", "C"),
        ("**C) blue**", "C"),
        ("C, because the caption says so", "C"),
        ("Answer: C", "C"),
        ("ANSWER: C", "C"),
        ("**Answer:** C", "C"),
        ("Answer: (C) blue", "C"),
        ("The answer is C", "C"),
        ("The answer is C) blue", "C"),
        ("The correct answer is option C because it is blue.", "C"),
        ("The best option is C.", "C"),
        ("The answer is A", "A"),
        ("The answer is A.", "A"),
        ("The answer is A red", "A"),
        ("A) red", "A"),
        ("A red", "A"),
        ("\\boxed{C}", "C"),
        ("It is blue, so \\boxed{\\text{C}}.", "C"),
        ("<think>A or B? B) is wrong</think>\n\nC", "C"),
        ("blue", "C"),
        ("Blue.", "C"),
        ("a green car", "B"),
        ("E", "E"),
        ("E) Can not answer based on the caption", "E"),
        ("Can not answer based on the caption", "E"),
        ("Can not answer based on the caption.", "E"),
        ("Cannot answer based on the caption", "E"),
        ("Can not answer based", "E"),  # cut by the length limit
    ],
)
def test_a_choice_is_read(text, letter):
    assert read_letter(text, OPTIONS) == letter


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "Can",
        "A red car",
        "A car that is red",
        "The answer is A red car",
        "I think so",
        "The answer is not A",
        "Both A and B",
        "A, B",
        "A or B",
        "A and C",
        "A) red\nB) a green car\nC) blue",
        "The answer is A. No, the answer is B.",
        "C) red",  # the letter of one option, the text of another
        "F",
        "F) purple",
        "Z",
        "<think>it is C",
        "purple",
        "Blue and two",
        "\\boxed{A} or \\boxed{B}",
    ],
)
def test_what_is_no_choice_is_none(text):
    assert read_letter(text, OPTIONS) is None


def test_options_that_say_the_same_are_read_as_the_first():
    assert read_letter("red", ("blue", "Red.", "red")) == "B"


def test_a_letter_is_a_letter_before_it_is_the_text_of_an_option():
    assert read_letter("B", ("B", "A")) == "B"
    assert read_letter("A) B", ("B", "A")) == "A"


def test_a_number_is_an_option_s_text():
    assert read_letter("2", ("1", "2", "3")) == "B"
    assert read_letter("B) 2", ("1", "2", "3")) == "B"
