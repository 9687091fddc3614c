"""CLIP recall against numbers worked out by hand and against a slow version that enumerates orders."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from limner.metrics import clip_recall as module
from limner.metrics.clip_recall import clip_recall


def values(captions, images, at=(1, 5, 10)) -> dict[str, list[float]]:
    captions, images = (torch.as_tensor(x, dtype=torch.float64) for x in (captions, images))
    return {
        name.removeprefix("clip_recall_"): v.tolist()
        for name, v in clip_recall(captions, images, at=at).items()
    }


def test_by_hand_without_ties():
    # Unit images along x, y and between; the third caption lies nearest to the first image, then its own.
    images = [[1, 0], [0, 1], [3, 4]]
    captions = [[1, 0.1], [0.2, -1], [4, 2.5]]
    # Cosines of caption 1 (.2, -1): .196, -.98, -.667 -> own image (0, 1) is third.
    # Caption 2 (4, 2.5)/4.717: .848, .53, (12 + 10)/5/4.717 = .933 -> first.
    found = values(captions, images, at=(1, 2))
    assert found["mrr"] == pytest.approx([1, 1 / 3, 1])
    assert found["r1"] == [1, 0, 1]
    assert found["r2"] == [1, 0, 1]


def test_by_hand_with_ties():
    # Images 0 and 1 are the same. Caption 0: both tied at the top. Caption 2 points to them, not to its own.
    images = [[1, 0], [1, 0], [0, 1]]
    captions = [[1, 0], [0, 1], [1, 0.1]]
    found = values(captions, images, at=(1, 2, 3))
    # Caption 0: rank 1 or 2, equally likely. Caption 1: rank 2 or 3. Caption 2: rank 3.
    assert found["mrr"] == pytest.approx([(1 + 1 / 2) / 2, (1 / 2 + 1 / 3) / 2, 1 / 3])
    assert found["r1"] == pytest.approx([0.5, 0, 0])
    assert found["r2"] == pytest.approx([1, 0.5, 0])
    assert found["r3"] == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("count", [1, 4, 7, 50])
def test_embeddings_without_information_score_chance(count: int):
    rng = torch.Generator().manual_seed(count)
    same = torch.randn(33, generator=rng).repeat(count, 1)
    found = values(torch.randn(count, 33, generator=rng), same)
    for k in (1, 5, 10):
        assert found[f"r{k}"] == pytest.approx([min(1, k / count)] * count)
    assert found["mrr"] == pytest.approx([sum(1 / r for r in range(1, count + 1)) / count] * count)


def test_what_has_no_direction_is_unscored_and_leaves_the_gallery():
    images = torch.eye(5)
    captions = torch.eye(5)
    captions[1] = 0
    captions[2, 0] = torch.nan
    images[3] = 0
    # Caption 4 is orthogonal to every image but its own; caption 0 is tied with none.
    found = values(captions, images)
    assert np.isnan(found["r1"]).tolist() == [False, True, True, True, False]
    assert found["r1"][0] == found["r1"][4] == 1
    captions[4] = torch.tensor([0.0, 0, 0, 1, 0])
    # Orthogonal to the images 0, 1, 2 and 4 (3 is out of the gallery): a tie of four, its own among them.
    assert values(captions, images)["r1"][4] == pytest.approx(1 / 4)


def test_the_length_of_a_vector_says_nothing():
    rng = torch.Generator().manual_seed(0)
    captions, images = torch.randn(2, 40, 8, generator=rng, dtype=torch.float64)
    lengths = 10.0 ** torch.randint(-200, 200, (40, 1), generator=rng).double()
    assert values(captions * lengths, images * lengths.flip(0)) == values(captions, images)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(3, 2\) and images \(4, 2\)"):
        clip_recall(torch.ones(3, 2), torch.ones(4, 2))


def test_nothing_to_score():
    assert values(torch.zeros(2, 3), torch.eye(3)[:2])["mrr"] == pytest.approx([np.nan] * 2, nan_ok=True)
    assert values(torch.zeros(0, 3), torch.zeros(0, 3))["mrr"] == []


def enumerated(captions: np.ndarray, images: np.ndarray, at: int) -> tuple[list[float], list[float]]:
    """The expectation taken literally: every order of the gallery, sorted stably by similarity."""
    recalls, reciprocals = [], []
    for own in range(len(images)):
        similar = [sum(a * b for a, b in zip(captions[own], image, strict=True)) for image in images]
        ranks = []
        for order in permutations(range(len(images))):
            ranked = sorted(order, key=lambda n: -similar[n])
            ranks.append(ranked.index(own) + 1)
        recalls.append(sum(rank <= at for rank in ranks) / len(ranks))
        reciprocals.append(sum(1 / rank for rank in ranks) / len(ranks))
    return recalls, reciprocals


@settings(max_examples=40)
@given(st.data(), st.integers(1, 5), st.integers(1, 4))
def test_equals_the_mean_over_every_order(data: st.DataObject, count: int, at: int):
    # Signed permutations of (1, 2, 2), all of one length: integer products order as cosines do, exactly.
    vectors = [[1, 2, 2], [2, 1, 2], [2, 2, 1], [-1, 2, 2], [2, -1, 2], [2, 2, -1]]
    choose = st.lists(st.sampled_from(vectors), min_size=count, max_size=count)
    captions, images = data.draw(choose), data.draw(choose)
    recalls, reciprocals = enumerated(np.array(captions), np.array(images), at)
    found = values(captions, images, at=(at,))
    assert found[f"r{at}"] == pytest.approx(recalls)
    assert found["mrr"] == pytest.approx(reciprocals)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 20))
def test_order_of_the_set_and_chunks_change_nothing(seed: int, count: int, duplicates: int):
    rng = torch.Generator().manual_seed(seed)
    captions, images = torch.randn(2, count, 5, generator=rng)
    images[torch.randint(count, (duplicates,), generator=rng)] = images[0].clone()
    whole = clip_recall(captions, images)
    order = torch.randperm(count, generator=rng)
    shuffled = clip_recall(captions[order], images[order])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CELLS", 1)
        one_by_one = clip_recall(captions, images)
    for name, expected in whole.items():
        np.testing.assert_allclose(shuffled[name], expected[order.numpy()], atol=1e-12)
        np.testing.assert_allclose(one_by_one[name], expected, atol=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_duplicates_share_the_ranks_they_hold(seed: int, count: int):
    # Every image twice: the two captions of a pair of equal images, if equal too, score alike, and R@2 of the
    # doubled set is R@1 of the single one.
    rng = torch.Generator().manual_seed(seed)
    captions, images = torch.randn(2, count, 6, generator=rng)
    single = clip_recall(captions, images, at=(1,))["clip_recall_r1"]
    doubled = clip_recall(captions.repeat(2, 1), images.repeat(2, 1), at=(1, 2))
    np.testing.assert_allclose(doubled["clip_recall_r2"], np.tile(single, 2))
    np.testing.assert_allclose(doubled["clip_recall_r1"], np.tile(single, 2) / 2)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that an operation has made."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        made = [x.nbytes for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.bytes = max(self.bytes, *made, 0)
        return out


def test_five_thousand_images_against_numpy_with_little_memory():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(5000, 24))
    captions = images + 1.5 * rng.normal(size=(5000, 24))
    with Largest() as largest:
        found = values(captions, images)
    # The whole matrix of similarities is 200 MB.
    assert largest.bytes < 50e6
    captions, images = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (captions, images))
    for own in range(0, 5000, 25):
        similar = images @ captions[own]
        rank = 1 + np.sum(similar > similar[own] + 1e-12)
        assert found["mrr"][own] == pytest.approx(1 / rank)
        assert [found[f"r{k}"][own] for k in (1, 5, 10)] == [rank <= 1, rank <= 5, rank <= 10]
    assert 0.2 < np.mean(found["r1"]) < 0.9
