"""Measures of the texts alone, each worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.metrics.captions import caption_measures


def test_by_hand():
    found = caption_measures(
        ["A red dog, a red dog.", "a cat on a mat", "A cat on a mat", "an image of a blue and red cat", ""]
    )
    assert found["words"].tolist() == [6, 5, 5, 8, 0]
    assert found["distinct_captions"].tolist() == [1, 0.5, 0.5, 1, 1]
    assert found["colours"].tolist() == [1, 0, 0, 2, 0]
    # "red" and "a" may come again, "dog" may not.
    assert found["repetition"][:4].tolist() == [1 / 6, 0, 0, 0]
    assert np.isnan(found["repetition"][4])
    assert found["bad_phrases"].tolist() == [0, 0, 0, 1, 0]
    # a red dog cat on mat an image of blue and
    assert found["vocabulary"].sum() == pytest.approx(11)
    assert found["vocabulary"][1] == pytest.approx(1 / 4 + 1 / 3 + 1 / 2 + 1 / 2)


def test_none():
    assert all(len(values) == 0 for values in caption_measures([]).values())


@given(st.lists(st.lists(st.sampled_from(["a", "red", "dog", "cat"]), max_size=4).map(" ".join), min_size=1))
def test_shares_sum_to_what_is_distinct(captions: list[str]):
    found = caption_measures(captions)
    assert found["distinct_captions"].sum() == pytest.approx(len(set(captions)))
    assert found["vocabulary"].sum() == pytest.approx(len({word for c in captions for word in c.split()}))
