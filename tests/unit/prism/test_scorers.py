"""Scorers of Prism against values by hand, and against the published scorer where that is defective."""

import pytest

from limner.errors import Reject
from limner.prism.answers import answer_of, boxed, listed, normalised, number
from limner.prism.published import published
from limner.prism.scorers import (
    Gold,
    anls,
    check_parses,
    choice,
    distance,
    exact,
    math_match,
    mathematics,
    relaxed,
    relaxed_match,
    similarity,
)

FOUR = ("red", "blue", "green", "Both red and blue")


def reply(answer):
    """As CapRL-Eval-3B writes."""
    return f"<think>Let me see.</think><answer>It is \\boxed{{{answer}}}.</answer>"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (r"so \boxed{12}", "12"),
        (r"\boxed{1} or rather \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"<think>\boxed{1}</think> \boxed{2}", "2"),
        ("<answer> blue </answer>", "blue"),
        (r"<answer>it is \boxed{blue}</answer>", "blue"),
        ("I think.\nThe answer is **42**.", "42"),
        ("Answer: 3.5", "3.5"),
        ("First this.\nParis", "Paris"),
        ("<think>it never ends, 42", None),
        ("  \n", None),
        (r"\boxed{cut", r"\boxed{cut"),
        (r"\boxed{}", r"\boxed{}"),
    ],
)
def test_the_answer_of_a_reply(said, answer):
    assert answer_of(said) == answer


def test_braces_are_balanced():
    assert boxed(r"\boxed{a {b} \} c} d}") == r"a {b} \} c"
    assert boxed("none") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,250", 1250),
        ("$3.50", 3.5),
        (r"\$3.50", 3.5),
        ("-12%", -12),
        (r"35\%", 35),
        ("4e3", 4000),
        (".5", 0.5),
        ("\N{MINUS SIGN}2", -2),
        ("12 million", None),
        ("1,25", None),
        ("", None),
        ("nan", None),
        ("1e999", None),
    ],
)
def test_numbers(text, value):
    assert number(text) == value


def test_texts_and_lists():
    assert normalised(r" \text{New  York}. ") == "new york"
    assert listed("['a', 'b']") == ["a", "b"]
    assert listed("[2010, 2014]") == ["2010", "2014"]
    assert listed("[USA, China]") == ["USA", "China"]
    assert listed("2010") is None
    assert listed("[__import__('os').getcwd()]") == ["__import__('os').getcwd()"]  # read, not run


@pytest.mark.parametrize(
    ("said", "score", "answer"),
    [
        ("B", 1, "B"),
        ("(b)", 1, "B"),
        (reply("B"), 1, "B"),
        (reply("B. blue"), 1, "B"),
        (reply("blue"), 1, "B"),
        ("The answer is B) blue", 1, "B"),
        ("A", 0, "A"),
        ("Blue.", 1, "B"),
        ("Cannot tell from the caption", 0, None),
        ("Can not answer", 0, None),
        ("", 0, None),
        ("E", 0, None),
        ("Both red and blue", 0, "D"),
    ],
)
def test_multiple_choice(said, score, answer):
    verdict = choice(said, Gold(("B",), FOUR))
    assert (verdict.score, verdict.answer) == (score, answer)


def test_options_that_say_the_same_are_right_together():
    assert choice("C", Gold(("A",), ("red", "blue", "Red"))).score == 1


def test_letters_where_the_options_are_in_the_image():
    unknown = ("",) * 4
    assert choice(reply("C"), Gold(("C",), unknown)).score == 1
    assert choice(reply("D"), Gold(("C",), unknown)).score == 0
    assert choice("", Gold(("A",), unknown)).answer is None


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        # ChartQA (arXiv 2203.10244): within 5% of the gold answer, the limit itself included
        ("95", "100", True),
        ("105", "100", True),
        ("94.9", "100", False),
        ("105.1", "100", False),
        ("-95", "-100", True),
        ("95", "-100", False),
        ("0.19", "0.2", True),
        ("0.189", "0.2", False),
        # at the scales 1, .01, 100
        ("35", "0.35", True),
        ("0.35", "35%", True),
        ("35%", "35", True),
        ("3500", "35", True),
        ("350", "35", False),
        ("0", "0", True),
        ("0.001", "0", False),
        ("1,250", "1250", True),
        ("$5", "5", True),
        # text is compared as text
        ("united states", "United States", True),
        ("United State", "United States", False),
        ("Yes.", "yes", True),
        # lists: all elements, in order
        ("[2010, 2015]", "[2010, 2014]", True),
        ("2010", "[2010, 2014]", False),
        ("China, USA", "[China, USA]", True),
        ("[2014, 1010]", "[2010, 2014]", False),
        ("nan", "5", False),
    ],
)
def test_relaxed_accuracy_is_relative_to_the_gold_answer(answer, gold, right):
    assert relaxed_match(answer, gold) is right
    assert relaxed(reply(answer), Gold((gold,))).score == right


def test_relaxed_takes_any_of_several_gold_answers():
    assert relaxed("7", Gold(("5", "7"))).score == 1
    assert relaxed("<think>", Gold(("5",))).answer is None


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("0.5", r"\frac{1}{2}", True),
        ("1/2", "0.5", True),
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        ("x", "x", True),
        ("3", "4", False),
        ("12 cm", "12", True),
        ("no", "on", False),
        ("sYe", "Yes", False),
        ("Yes", "yes", True),
        ("3", "3:1", False),
        ("{2, 1}", r"\{1, 2\}", True),
    ],
)
def test_mathematics(answer, gold, right):
    assert math_match(answer, gold) is right
    assert mathematics(reply(answer), Gold((gold,))).score == right


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        ("dot", ["cat", "dog"], 2 / 3),
        ("DOG ", ["cat", "dog"], 1),
        ("twelva", ["twelve"], 5 / 6),
        ("ab", ["ac"], 0.5),
        ("abc", ["axy"], 0),
        ("new   york", ["New York"], 1),
        ("1991", ["1990"], 0.75),
    ],
)
def test_anls_by_hand(answer, gold, value):
    assert anls(reply(answer), Gold(tuple(gold))).score == pytest.approx(value)


def test_levenshtein_by_hand():
    assert distance("kitten", "sitting") == 3
    assert distance("", "abc") == distance("abc", "") == 3
    assert similarity("", "") == 1


def test_exact_match():
    assert exact(reply("New York"), Gold(("new york.",))).score == 1
    assert exact(reply("York"), Gold(("new york",))).score == 0


@pytest.mark.parametrize(
    ("rules", "gold", "said", "theirs", "ours"),
    [
        # an unparsable gold answer makes every answer right
        ("math", "a\nb", reply("zzz"), 1, 0),
        ("chart", "a\nb", reply("zzz"), 1, 0),
        # 5% of the prediction, for the arguments are swapped
        ("chart", "100", reply("95"), 0, 1),
        ("chart", "100", reply("105.2"), 1, 0),
        # words are read as products of their letters
        ("math", "no", reply("on"), 1, 0),
        ("chart", "Yes", reply("sYe"), 1, 0),
        ("math", "3:1", reply("3"), 1, 0),
        # any one element of a list is the list
        ("chart", "[2010, 2014]", reply("2010"), 1, 0),
        # an answer counts in CapRL-Eval-3B's tags only, and runs from the first brace to the last
        ("math", "4", r"The answer is \boxed{4}", 0, 1),
        ("math", "4", "<think>.</think><answer>\\boxed{4} \\text{cats}</answer>", 0, 1),
        # a number within 5% is a right answer to a question about a text
        ("info", "1990", reply("1991"), 1, 0.75),
    ],
)
def test_where_the_published_scorer_differs(rules, gold, said, theirs, ours):
    scorer = {"math": mathematics, "chart": relaxed, "info": anls}[rules]
    assert published(said, gold, rules=rules) == theirs
    assert scorer(said, Gold((gold,))).score == ours


def test_the_published_scorer_misses_a_letter_with_its_option():
    assert published(reply("B. blue"), "B", rules="math") == 0
    assert published(reply("B"), "B", rules="math") == 1


def test_the_published_anls():
    assert published(reply("dot"), "['cat', 'dog']", rules="info") == pytest.approx(2 / 3)
    assert published(reply("horse"), "['cat', 'dog']", rules="info") == 0


def test_a_gold_answer_that_cannot_be_read_is_refused():
    with pytest.raises(Reject, match="cannot be read as mathematics"):
        check_parses(r"\text{}\\")
    check_parses("a\nb")  # words are compared as text
    check_parses("12")
