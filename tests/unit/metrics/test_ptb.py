"""Tokens of captions: what the functions promise. Equality with Java: golden/test_ptb.py."""

import random
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from limner.metrics import ptb, ptb_grammar
from limner.metrics.ptb_lexer import Lexer, Rule
from limner.metrics.ptb_patterns import Grammar, characters
from ptb_reference import PIECES, lines


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A man's dog can't swim, can it?", "a man 's dog ca n't swim can it"),
        ("two dogs run . a cat sleeps .", "two dogs run a cat sleeps"),
        ("I'm gonna wait...", "i 'm gon na wait"),
        ("a black-and-white cat (asleep)", "a black-and-white cat -lrb- asleep -rrb-"),
        ("50% off: \u20ac5 & \u00a35", "50 % off $ 5 & # 5"),
        ("", ""),
        (" . , ! ? ", ""),
    ],
)
def test_tokens_by_hand(caption: str, tokens: str):
    assert ptb.tokenise(caption) == tokens.split()


def test_a_newline_is_a_space():
    assert ptb.tokenise("a man\nriding\n") == ["a", "man", "riding"]


@pytest.mark.parametrize("sign", "\r\x0b\x0c\u2028\u2029")
def test_line_ends_inside_part_words_and_lose_none(sign: str):
    assert ptb.tokenise(f"a man{sign}riding {sign}a horse") == ["a", "man", "riding", "a", "horse"]


def test_the_next_caption_counts_only_in_one_call():
    captions = ["plan b.", "", "The dog", "plan b.", "a dog"]
    assert ptb.tokenise_all(captions) == [["plan", "b"], [], ["the", "dog"], ["plan", "b."], ["a", "dog"]]
    assert ptb.tokenise("plan b.") == ["plan", "b."]


def test_the_end_of_the_last_caption_is_the_end_of_the_file():
    assert ptb.tokenise_all(["a smile :)", "a smile :)"]) == [
        ["a", "smile", ":-rrb-"],
        ["a", "smile", "-rrb-"],
    ]
    assert ptb.tokenise("a smile :)") == ["a", "smile", ":-rrb-"]


def test_no_token_leaves_its_caption():
    assert ptb.tokenise_all(['<a href="x', 'y"> z']) == [["<", "a", "href", "=", "x"], ["y", ">", "z"]]


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=4))
def test_any_text_is_tokenised(captions: list[str]):
    tokens = ptb.tokenise_all(captions)
    assert len(tokens) == len(captions)
    for each in (*tokens, *map(ptb.tokenise, captions)):
        assert not ptb.PUNCTUATION & set(each)
        assert all("\n" not in token for token in each)


def test_half_pairs_are_dropped_and_whole_ones_stay_together():
    assert ptb.tokenise("a \ud83d b") == ["a", "b"]
    assert ptb.tokenise("http://a.b/\U0001f600 \U0001f600 c") == ["http://a.b/\U0001f600", "c"]


PLAIN = st.lists(
    st.one_of(
        st.sampled_from(PIECES["words"]),
        st.from_regex(ptb._Chunks.simple, fullmatch=True),
        st.sampled_from(PIECES["pieces"]),
    ),
    max_size=8,
).map(" ".join)


@given(PLAIN, st.sampled_from(["\n", "\nThe x", "\n5 x", "\n<b> x", "\nltd x"]))
@example("PTY. LIMITED", "\n")
@example("No. 5", "\n")
@example("we've", "\nThe x")
def test_the_short_cut_changes_nothing(line: str, behind: str):
    lexed = ptb._read(ptb.lex(line + behind, len(line)))
    assert ptb._lexed(line, behind) == lexed
    short = ptb._plain(line)
    assert short is None or short == lexed


@given(PLAIN)
def test_the_last_caption_takes_no_short_cut(line: str):
    """At the end of the file the tool sees no line end: `you're` has a quotation mark there, for one."""
    assert ptb.tokenise_all(["x", line]) == [["x"], ptb._read(ptb.lex(line))]


def test_plain_captions_take_the_short_cut():
    assert ptb._plain("A man, riding a well-known horse isn't here .") is not None
    assert ptb._plain("2 men") is None
    assert ptb._plain("no.") is None


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch):
    chunks = ptb._Chunks()
    monkeypatch.setattr(chunks, "limit", 10)
    for number in range(100):
        assert chunks["w" + "abcdefghij"[number % 10] * (number // 10 + 1)] is not None
        assert len(chunks) <= 10
    long = "x" * 1000
    assert chunks[long] == (long,)
    assert long not in chunks


def test_order_of_use_changes_nothing():
    """The automaton grows as texts need it; what it gives may not depend on what it met before."""
    made = lines(3, 200)
    ptb_grammar.lexer.cache_clear()
    first = [ptb.lex(line) for line in made]
    ptb_grammar.lexer.cache_clear()
    order = list(range(len(made)))
    random.Random(0).shuffle(order)
    second = {number: ptb.lex(made[number]) for number in order}
    assert first == [second[number] for number in range(len(made))]


def tokens_of(lexer: Lexer, text: str) -> list[tuple[str, str]]:
    """(action, text) of every match."""
    found: list[tuple[str, str]] = []
    at, classes = 0, lexer.classes(text)
    while at < len(text):
        action, end = lexer.match(classes, at)
        found.append((action, text[at:end]))
        at = end
    return found


def test_the_longest_match_wins_then_the_first_rule():
    rules = [Rule("if", "if"), Rule("word", "{letter}+"), Rule("other", ".")]
    lexer = Lexer(rules, Grammar({"letter": "[a-z]"}, {}))
    assert tokens_of(lexer, "if IF iffy") == [
        ("if", "if"),
        ("other", " "),
        ("if", "IF"),
        ("other", " "),
        ("word", "iffy"),
    ]


def test_trailing_context_counts_and_is_given_back():
    rules = [Rule("before b", "a+", "a?b"), Rule("as", "a+"), Rule("other", ".")]
    lexer = Lexer(rules, Grammar({}, {}))
    assert tokens_of(lexer, "aab") == [("before b", "aa"), ("other", "b")]
    assert tokens_of(lexer, "aac") == [("as", "aa"), ("other", "c")]


@given(st.text("ab", max_size=8))
def test_repeats_match_as_re_does(text: str):
    for pattern in ("(ab?){2}", "(a|bb){1,3}b*", "((a*)b)+", "(a?b?){0,2}a", "[^a]*a{2}"):
        lexer = Lexer([Rule("yes", f"({pattern})!"), Rule("no", ".")], Grammar({}, {}))
        whole = lexer.match(lexer.classes(text + "!"), 0) == ("yes", len(text) + 1)
        assert whole == (re.fullmatch(pattern, text) is not None), pattern


def test_patterns_that_cannot_be_read_are_refused():
    with pytest.raises(ValueError, match="at character 1"):
        Grammar({}, {}).tree("a)")
    with pytest.raises(KeyError, match="unknown"):
        Grammar({}, {}).tree("{unknown}")


def test_ranges_and_escapes_in_brackets():
    assert characters(r"a-c\-\u0041-C^") == frozenset("abc-ABC^")
    assert characters(",-.") == frozenset(",-.")
