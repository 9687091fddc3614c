"""Tokens equal those of the Java tool that pycocoevalcap runs: on recorded lines, and live on many more."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limner.metrics import ptb
from ptb_reference import BREAKS, FOLDER, PIECES, lines, needs_java, reference, tool

GOLDEN = json.loads((FOLDER / "tokens.json").read_text())


def test_every_line_of_the_inputs_is_recorded():
    inputs = json.loads((FOLDER / "inputs.json").read_text())
    for kind, written in inputs["lines"].items():
        assert list(GOLDEN["lines"][kind]) == list(dict.fromkeys(written)), kind
    assert [captions for captions, _ in GOLDEN["files"]] == inputs["files"]


@pytest.mark.parametrize("kind", GOLDEN["lines"])
def test_recorded_lines(kind: str):
    recorded = GOLDEN["lines"][kind]
    assert {line: " ".join(ptb.tokenise(line)) for line in recorded} == recorded


def test_recorded_files():
    for captions, tokens in GOLDEN["files"]:
        assert [" ".join(line) for line in ptb.tokenise_all(captions)] == tokens


def differences(captions: list[str]) -> list[tuple[str, str, str]]:
    """Captions of one file, our tokens and the reference's, where they differ."""
    ours = [" ".join(tokens) for tokens in ptb.tokenise_all(captions)]
    theirs = reference(captions)
    return [
        (caption, mine, other)
        for caption, mine, other in zip(captions, ours, theirs, strict=True)
        if mine != other
    ]


@needs_java
def test_twenty_thousand_made_up_lines():
    assert not differences(lines(20_260_101, 20_000))


@needs_java
def test_case_and_punctuation_before_pycocoevalcap_changes_them():
    made = lines(7, 4_000)
    theirs = tool("".join(f"{line}\nx\n" for line in made))[:-1:2]
    ours = [" ".join(ptb.lex(f"{line}\nx", len(line))) for line in made]
    assert [pair for pair in zip(made, ours, theirs, strict=True) if pair[1] != pair[2]] == []


@needs_java
def test_every_character_of_the_basic_plane():
    """Alone, in words and numbers. The halves of surrogate pairs are left out: they cannot be written."""
    signs = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000 and code not in BREAKS]
    made = [f"{sign} a{sign}b {sign}c 1{sign}2 etc. {sign}" for sign in signs]
    theirs = tool("".join(f"{line}\n" for line in made))[:-1]
    ours = [" ".join(ptb.lex(f"{line}\n", len(line))) for line in made]
    assert [pair for pair in zip(made, ours, theirs, strict=True) if pair[1] != pair[2]] == []


PARTS = st.one_of(
    st.sampled_from(PIECES["words"]),
    st.sampled_from(PIECES["pieces"]),
    st.sampled_from(PIECES["phrases"]),
    st.text(st.sampled_from(PIECES["signs"]), max_size=6),
    st.text(
        st.characters(exclude_characters="".join(map(chr, BREAKS)), exclude_categories=["Cs"]), max_size=4
    ),
)
LINES = st.lists(st.tuples(PARTS, st.sampled_from([" ", " ", " ", "", ". ", ", "])), max_size=6).map(
    lambda parts: "".join(part + gap for part, gap in parts)
)


@needs_java
@settings(max_examples=8, suppress_health_check=[HealthCheck.data_too_large])
@given(st.lists(LINES, min_size=40, max_size=120))
def test_no_difference_is_found(captions: list[str]):
    """Many lines an example, for each starts Java. No capital sigma: see `ptb`, what does not match."""
    assert not differences([caption.replace("\u03a3", "") for caption in captions])
