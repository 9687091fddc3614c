"""CLIP recall of the miniature world's captions by its shipped CLIP, against a plain computation."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, CLIPModel

from limner.data import world
from limner.evaluate import evaluate
from limner.paths import resolve
from limner.world.captions import full, terse
from limner.world.models import pixels

CLIP = "world:clip"


@pytest.fixture(scope="module")
def samples():
    return list(world.Source(split="validation"))


def test_full_captions_find_their_images_and_terse_ones_do_not(samples):
    rng = np.random.default_rng(0)
    scenes = [sample.extra["scene"] for sample in samples]
    dense = evaluate(
        [full(scene) for scene in scenes], samples, metrics=("clip_recall",), clip=CLIP, batch=250
    )
    brief = evaluate(
        [terse(s, rng) for s in scenes], samples, metrics=("clip_recall_r1",), clip=CLIP, batch=250
    )
    assert dense.summary["clip_recall_r1"].n == 1000
    assert dense.summary["clip_recall_r1"].value >= 0.9
    assert dense.summary["clip_recall_r1"].low > brief.summary["clip_recall_r1"].high + 0.6


@torch.no_grad()
def test_equals_plain_transformers_and_a_sort(samples):
    samples = samples[:150]
    rng = np.random.default_rng(1)
    captions = [terse(sample.extra["scene"], rng) for sample in samples]
    found = evaluate(captions, samples, metrics=("clip_recall",), clip=CLIP).columns()
    model, tokenizer = CLIPModel.from_pretrained(resolve(CLIP)), AutoTokenizer.from_pretrained(resolve(CLIP))
    output = model(
        pixel_values=pixels([s.image for s in samples]),
        **tokenizer(captions, padding=True, return_tensors="pt"),
    )
    checked = 0
    for own, similar in enumerate(output.logits_per_text.tolist()):
        # No two pictures are equal, so that a plain rank is the whole truth; near ties may fall either way.
        gap = min(abs(value - similar[own]) for place, value in enumerate(similar) if place != own)
        rank = 1 + sum(value > similar[own] for value in similar)
        if gap > 1e-3:
            checked += 1
            assert found["clip_recall_mrr"][own] == pytest.approx(1 / rank)
            for k in (1, 5, 10):
                assert found[f"clip_recall_r{k}"][own] == (rank <= k)
    assert checked > 100
