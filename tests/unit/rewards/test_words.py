"""Words and the tokens that hold them, for every kind of tokenizer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limner.captioners.words import BLOCK, UNFINISHED, split, token_spans
from limner.metrics.phrases import is_mark, normal, word_spans
from limner.types import Words
from toy_tokenizers import KINDS, LINES, TABLE_1, toy

TEXTS = st.lists(
    st.sampled_from(
        [*" ".join(LINES).split(), "naïve", "漢字", "O'Neil\u2019s", "...", "10:30", "🙂", "हिन्दी"]
    )
    | st.text(max_size=6),
    max_size=14,
).map(" ".join)


def tokens_of(kind: str, text: str) -> list[int]:
    return toy(kind)(text, add_special_tokens=False)["input_ids"]


def split_ids(kind: str, ids: list[int], padding: int = 0) -> Words:
    tokens = torch.tensor([*ids, *[0] * padding], dtype=torch.long)
    return split(toy(kind), tokens, torch.arange(len(tokens)) < len(ids))


def check(kind: str, ids: list[int]) -> None:
    """What holds of any ids at all."""
    tokenizer = toy(kind)
    text, spans = token_spans(tokenizer, ids)
    words = split_ids(kind, ids)
    places = word_spans(text)
    assert words.words == tuple(normal(text[a:b]) for a, b in places)
    for character in range(len(text)):
        if text[character].isalnum():
            assert sum(a <= character < b for a, b in places) == 1
    assert len(spans) == len(ids)
    assert all(a <= b for a, b in spans)
    assert [b for _, b in spans] == sorted(b for _, b in spans)
    for word, held in zip(words.words, words.tokens, strict=True):
        assert list(held) == sorted(set(held))
        if not is_mark(word) and UNFINISHED not in word:
            pieces = [ids[t] for t in held]
            assert not set(pieces) & set(tokenizer.all_special_ids)
            assert word in normal(tokenizer.decode(pieces, clean_up_tokenization_spaces=False))
    wordless = set(range(len(ids))) - {t for held in words.tokens for t in held}
    assert all(text[a:b].strip() == "" for a, b in (spans[t] for t in wordless))


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@settings(max_examples=60)
def test_any_text(kind: str, text: str) -> None:
    ids = tokens_of(kind, text)
    check(kind, ids)
    assert token_spans(toy(kind), ids)[0] == toy(kind).decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60)
def test_any_ids(kind: str, data: st.DataObject) -> None:
    """Sampling at a high temperature draws halves of characters and special tokens in mid-sentence."""
    check(kind, data.draw(st.lists(st.integers(0, len(toy(kind)) - 1), max_size=20)))


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_table_1(kind: str) -> None:
    ids = tokens_of(kind, TABLE_1)
    words = split_ids(kind, [*ids, toy(kind).eos_token_id], padding=3)
    assert words.words == tuple(TABLE_1.split())
    held = [t for held in words.tokens for t in held]
    assert held == sorted(set(held))
    spaces = set(range(len(ids))) - set(held)
    assert all(not toy(kind).decode([ids[t]]).strip() for t in spaces)
    assert (len(held) > len(words.words)) == (kind != "word_level")


@pytest.mark.parametrize("kind", ["byte_level", "llama"])
def test_bytes_of_one_character_belong_to_its_word(kind: str) -> None:
    ids = tokens_of(kind, "a 漢 car")
    words = split_ids(kind, ids)
    assert words.words == ("a", "漢", "car")
    assert len(words.tokens[1]) == 3
    assert toy(kind).decode([ids[t] for t in words.tokens[1]]).strip() == "漢"


def test_a_token_over_two_words_belongs_to_both() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    model = Tokenizer(models.WordLevel({"on": 0, "a zoomed": 1, "</s>": 2}, unk_token="</s>"))
    model.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, eos_token="</s>")
    words = split(tokenizer, torch.tensor([0, 1, 2]), torch.ones(3, dtype=torch.bool))
    assert words == Words(("ona", "zoomed"), ((0, 1), (1,)))


def test_punctuation_hyphens_and_apostrophes() -> None:
    words = split_ids("byte_level", tokens_of("byte_level", "The dog\u2019s T-shirt, 3.5 m."))
    assert words.words == ("the", "dog's", "t", "-", "shirt", ",", "3", ".", "5", "m", ".")


def test_empty_captions() -> None:
    assert split_ids("byte_level", []) == Words((), ())
    assert split_ids("byte_level", [toy("byte_level").eos_token_id], padding=2) == Words((), ())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("word", ["skateboarder ", "café, ", "dog's 1998 "])
def test_long_captions_are_as_short_ones(kind: str, word: str) -> None:
    """Decoding goes block by block; no word is lost or torn where blocks meet."""
    once = len(split_ids(kind, tokens_of(kind, word * 2)).words)
    text = (word * 200).strip()
    ids = tokens_of(kind, text)
    assert len(ids) > 3 * BLOCK or kind == "word_level"
    words = split_ids(kind, ids)
    assert len(words.words) == 100 * once
    check(kind, ids)
