"""ROUGE-L against pycocoevalcap on random captions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.rouge.rouge import Rouge, my_lcs

from limner.errors import UserError
from limner.metrics.rouge import rouge_l
from random_captions import ROUNDING, Pair, hunt, pairs, peer, split


@hunt
@given(pairs)
def test_equals_pycocoevalcap(given: list[Pair]):
    candidates, references = split(given)
    corpus, images = peer(Rouge(), candidates, references)
    ours = rouge_l(candidates, references)
    np.testing.assert_allclose(ours, images, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(ours.mean(), corpus, rtol=0, atol=ROUNDING)


@hunt
@given(
    st.lists(st.sampled_from("abc"), min_size=60, max_size=150), st.lists(st.sampled_from("abcd"), min_size=1)
)
def test_captions_longer_than_a_machine_word(long: list[str], other: list[str]):
    common = my_lcs(long, other)
    precision, recall = common / len(long), common / len(other)
    expected = 2.44 * precision * recall / (recall + 1.44 * precision) if common else 0.0
    assert rouge_l([long], [[other]])[0] == pytest.approx(expected, abs=ROUNDING)


def test_by_hand():
    # Common: "a dog the ball", 4 of 5 words of the candidate and 4 of 6 of the reference.
    score = rouge_l(
        [["a", "dog", "with", "the", "ball"]], [[["a", "brown", "dog", "chases", "the", "ball"]]]
    )[0]
    assert score == pytest.approx(2.44 * 0.8 * (4 / 6) / (4 / 6 + 1.44 * 0.8), abs=1e-12)


def test_an_empty_caption_is_one_empty_word_or_is_refused():
    references = [[["a"]], [["a"], []]]
    assert rouge_l([[], []], references).tolist() == [0.0, 1.0]
    with pytest.raises(UserError, match="no words in candidate 0, candidate 1"):
        rouge_l([[], []], references, empty="refuse")


def test_numbers_of_images_must_agree():
    with pytest.raises(UserError, match="1 candidates and references of 2 images"):
        rouge_l([["a"]], [[["a"]], [["b"]]])
