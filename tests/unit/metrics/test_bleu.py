"""BLEU against pycocoevalcap on random captions, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from pycocoevalcap.bleu.bleu import Bleu

from limner.errors import UserError
from limner.metrics.bleu import bleu, of_counts
from random_captions import ROUNDING, Pair, captions, hunt, pairs, peer, split


@hunt
@given(pairs)
def test_equals_pycocoevalcap(given: list[Pair]):
    candidates, references = split(given)
    corpus, images = peer(Bleu(4), candidates, references)
    ours = bleu(candidates, references)
    np.testing.assert_allclose(ours.corpus, corpus, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(ours.images, images.T, rtol=0, atol=ROUNDING)


@hunt
@given(pairs)
def test_counts_make_the_scores_of_any_part(given: list[Pair]):
    candidates, references = split(given)
    ours = bleu(candidates, references)
    half = bleu(candidates[:2], references[:2])
    sums = [np.asarray(each)[:2].sum(0) for each in ours[2:]]
    np.testing.assert_array_equal(of_counts(*sums), half.corpus)


@hunt
@given(captions.filter(lambda caption: len(" ".join(caption).split()) >= 4))
def test_a_caption_equal_to_a_reference_has_one(caption: list[str]):
    assert bleu([caption], [[["other"], caption]]).corpus == pytest.approx((1, 1, 1, 1), abs=1e-8)


def test_counts_by_hand():
    scores = bleu([["the", "the", "the", "cat"]], [[["the", "cat", "the", "dog"], ["cat"]]])
    assert scores.matches.tolist() == [[3, 1, 0, 0]]
    assert scores.guesses.tolist() == [[4, 3, 2, 1]]
    assert (scores.lengths.tolist(), scores.reference_lengths.tolist()) == ([4], [4])


def test_the_shorter_of_two_equally_close_references_counts():
    assert bleu([["a"] * 5], [[["a"] * 7, ["a"] * 3]]).reference_lengths.tolist() == [3]


def test_an_empty_caption_scores_nothing_or_is_refused():
    candidates, references = [[], ["a"]], [[["a"]], [["a"]]]
    assert bleu(candidates, references).images[0].max() < 1e-6
    with pytest.raises(UserError, match="no words in candidate 0;"):
        bleu(candidates, references, empty="refuse")
    with pytest.raises(UserError, match="no words in references of image 1;"):
        bleu([["a"], ["b"]], [[["a"]], [["a"], []]], empty="refuse")


def test_what_is_refused():
    with pytest.raises(UserError, match="2 candidates and references of 1 images"):
        bleu([["a"], ["b"]], [[["a"]]])
    with pytest.raises(UserError, match="no captions"):
        bleu([], [])
    with pytest.raises(UserError, match="no references: image 1;"):
        bleu([["a"], ["b"]], [[["a"]], []])
    with pytest.raises(UserError, match="candidate 0 is a text, 'a dog'"):
        bleu(["a dog"], [[["a"]]])
    with pytest.raises(UserError, match="reference 1 is a text"):
        bleu([["a"]], [[["a"], "a dog"]])
    with pytest.raises(UserError, match="candidate 0 holds list, not words; an image has one candidate"):
        bleu([[["a"], ["b"]]], [[["a"]]])  # type: ignore[list-item]
