"""distinct-n by hand and self-BLEU against pycocoevalcap with the other captions as references."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu

from limner.errors import UserError
from limner.metrics.diversity import distinct, self_bleu
from random_captions import ROUNDING, Caption, captions, hunt, peer

grouped = st.lists(st.tuples(captions, st.integers(0, 2)), min_size=1, max_size=8)


@hunt
@given(grouped)
def test_self_bleu_equals_bleu_against_the_others(given: list[tuple[Caption, int]]):
    ours = self_bleu([caption for caption, _ in given], groups=[group for _, group in given])
    for row, (caption, group) in enumerate(given):
        others = [each for other, (each, its) in enumerate(given) if its == group and other != row]
        if others:
            _, images = peer(Bleu(4), [caption], [others])
            np.testing.assert_allclose(ours[row], images[:, 0], rtol=0, atol=ROUNDING)
        else:
            assert np.isnan(ours[row]).all()


@hunt
@given(st.lists(captions, min_size=1, max_size=6), st.integers(1, 4))
def test_distinct_counts_different_ngrams(texts: list[Caption], n: int):
    rows = [" ".join(text).split() for text in texts]
    grams = [tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)]
    ours = distinct(texts, n)
    assert ours.ngrams.sum() == len(grams)
    assert ours.shares.sum() == pytest.approx(len(set(grams)), abs=ROUNDING)
    assert ours.value == pytest.approx(len(set(grams)) / len(grams) if grams else math.nan, nan_ok=True)


def test_distinct_by_hand():
    ours = distinct([["a", "b", "a"], ["a", "c"], []], 1)
    assert ours.shares.tolist() == [1.5, 1.5, 0.0]
    assert ours.ngrams.tolist() == [3, 2, 0]
    assert ours.value == 3 / 5


def test_one_group_is_the_default_and_a_caption_alone_has_no_score():
    texts = [["a", "b"], ["a", "b"], ["c"]]
    np.testing.assert_array_equal(self_bleu(texts), self_bleu(texts, groups=["x", "x", "x"]))
    assert np.isnan(self_bleu([["a"]])).all()
    assert self_bleu([]).shape == (0, 4)


def test_what_is_refused():
    with pytest.raises(UserError, match="distinct-5: n goes from 1 to 4"):
        distinct([["a"]], 5)
    with pytest.raises(UserError, match="caption 0 is a text"):
        distinct(["a dog"], 1)
    with pytest.raises(UserError, match="1 captions and 2 groups"):
        self_bleu([["a"]], groups=[0, 1])
