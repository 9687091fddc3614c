"""The parser on what models write, on what they might write, and on anything at all."""

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from limner.curate.parse import REASONS, parse
from limner.questions import LETTERS, Question
from nasty_outputs import CASES
from patience import cheap


def shown(question):
    options = [("*" if n == question.answer else "") + text for n, text in enumerate(question.options)]
    return f"{question.text} | {' / '.join(options)}"


@pytest.mark.parametrize(
    ("text", "questions", "reasons"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_what_models_write(text, questions, reasons):
    parsed = parse(text)
    assert [shown(question) for question in parsed.questions] == questions
    assert [refused.reason for refused in parsed.refused] == reasons


def test_every_reason_is_met_and_explained():
    met = Counter(refused.reason for case in CASES for refused in parse(case[1]).refused)
    assert set(met) <= set(REASONS)
    # these two need outputs that no list of examples should be long enough for
    assert set(REASONS) - set(met) == {"no question", "too many options"}
    many = "What?\n" + "".join(f"{letter}) option {letter}\n" for letter in LETTERS) + "Answer: A\n"
    assert [refused.reason for refused in parse(many).refused] == ["too many options"]
    assert [refused.reason for refused in parse("Question 1:\nA) x\nB) y\nAnswer: A\n").refused] == [
        "no question"
    ]


def test_kinds_and_mended_duplicates_are_kept():
    (question,) = parse("Type: colour\nQuestion: What?\nType: count\nA) x\nB) y\nC) X\nAnswer: B").questions
    assert question.kind == "count"
    assert parse("What?\nA) x\nB) y\nC) X\nAnswer: B").mended == {"duplicate options": 1}
    text = '{"question": "What?", "options": ["x", "y"], "answer": "A", "type": "position"}'
    assert parse(text).questions[0].kind == "position"


def plain(question):
    lines = [f"{letter}) {text}" for letter, text in zip(LETTERS, question.options, strict=False)]
    return "\n".join([f"Question: {question.text}", *lines, f"Answer: {LETTERS[question.answer]}"])


def markdown(question):
    lines = [f"   - {letter}. {text}" for letter, text in zip(LETTERS, question.options, strict=False)]
    right = f"{LETTERS[question.answer]}. {question.options[question.answer]}"
    return "\n".join([f"#### 1. **{question.text}**", *lines, "", f"**Correct Answer:** {right}"])


def parentheses(question):
    lines = [f"({letter.lower()}) {text}" for letter, text in zip(LETTERS, question.options, strict=False)]
    return "\n".join(
        [f"Q1: {question.text}", "", *lines, "", f"The correct answer is ({LETTERS[question.answer]})"]
    )


def by_text(question):
    lines = [f"{letter}: {text}" for letter, text in zip(LETTERS, question.options, strict=False)]
    return "\n".join([question.text, *lines, f"Ans: {question.options[question.answer]}"])


def bullets(question):
    lines = [f"- {text}" for text in question.options]
    return "\n".join([f"**{question.text}**", *lines, f"Answer: {LETTERS[question.answer]}"])


def one_line(question):
    lines = [f"{letter}) {text}" for letter, text in zip(LETTERS, question.options, strict=False)]
    return f"1. {question.text} {' '.join(lines)} Answer: {LETTERS[question.answer]}"


def numbers(question):
    lines = [f"{number}. {text}" for number, text in enumerate(question.options, 1)]
    return "\n".join([f"Question 1: {question.text}", *lines, f"Answer: {question.answer + 1}"])


def ticked(question):
    lines = [
        f"{LETTERS[n]}) {text}" + (" (correct)" if n == question.answer else "")
        for n, text in enumerate(question.options)
    ]
    return "\n".join([f"Question 1. {question.text}", *lines])


STYLES = (plain, markdown, parentheses, by_text, bullets, one_line, numbers, ticked)
word = st.text(st.characters(categories=["Ll", "Lo"]), min_size=2, max_size=9).filter(
    # words that mark something where they stand alone
    lambda text: (
        text.casefold() not in {"answer", "ans", "key", "option", "choice", "question", "both", "type"}
        and not text.startswith(("\u7b54", "\u95ee", "\u554f"))
    )
)
phrase = st.lists(word, min_size=1, max_size=5).map(" ".join)


@st.composite
def question_in(draw):
    options = draw(st.lists(phrase, min_size=2, max_size=6, unique_by=str.casefold))
    return Question(draw(phrase) + "?", tuple(options), draw(st.integers(0, len(options) - 1)))


@settings(max_examples=20)
@given(st.lists(question_in(), min_size=1, max_size=4, unique_by=lambda question: question.text.casefold()))
@pytest.mark.parametrize("style", STYLES)
def test_a_question_in_any_style_is_read_as_it_is(style, questions):
    text = "\n\n".join(map(style, questions))
    if style is numbers:
        text = "\n\n".join(
            style(q).replace("Question 1", f"Question {n}", 1) for n, q in enumerate(questions, 1)
        )
    parsed = parse(text)
    assert parsed.questions == tuple(questions)
    assert not parsed.refused


MARKS = """
Question 1: | Q2. | 1. | 2) | A) | (B) | C. | D: | Answer: | Answer: B | ** | ```json | [ | { | "question":
"options" | ["x", "y"] | } | ] | , | - | ? | What? | red | --- | <think> | \u2713 | \u2460 | Type: | A: B
Explanation: | 1-B, 2-C | Answers: | None | E | _ | * | \\ | '
"""
fragments = st.sampled_from(
    [mark.strip() for line in MARKS.split("\n") for mark in line.split(" | ")] + ["\n", " "]
)


@settings(max_examples=150)
@given(
    st.one_of(
        st.text(),
        st.lists(fragments, max_size=40).map("".join),
        st.lists(fragments, max_size=40).map("\n".join),
    )
)
@example("1. \x00\ud800")
def test_no_text_breaks_the_parser(text):
    parsed = parse(text)
    assert parsed.questions or parsed.refused
    assert {refused.reason for refused in parsed.refused} <= set(REASONS)


@pytest.mark.parametrize(
    "text",
    ["A) " * 20_000, "{" * 50_000, "[{'" * 20_000, "*" * 50_000, "What? " * 20_000, "A)x " * 20_000,
     "1. x\n" * 3_000, "(" * 50_000, " " * 50_000 + "x", "**a" * 20_000, "__a" * 20_000, "Answer " * 10_000,
     '{"a":' * 10_000,
     "the correct " * 10_000, "1-B, " * 10_000, "-" * 50_000 + "x", "<think>" * 10_000, "\n" * 50_000],
    ids=lambda text: repr(text[:8]),
)  # fmt: skip
def test_long_noise_takes_no_time(text):
    cheap(lambda: parse(text))  # 0.1 s each; what grows with the square of the length would take minutes
