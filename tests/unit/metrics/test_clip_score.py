"""CLIPScore from embeddings against the formulas of arXiv 2104.08718, and through a CLIP of transformers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, CLIPModel

import tiny
from limner.evaluate import evaluate
from limner.meters import ClipScoreMeter
from limner.metrics.clip_score import clip_score, ref_clip_score
from limner.types import Sample
from limner.vision_language import load_clip
from limner.world import models


def test_angles_worked_out_by_hand():
    image = torch.tensor([[2.0, 0.0]] * 3)
    captions = torch.tensor([[3.0, 4.0], [0.0, 1.0], [-1.0, 1.0]])
    assert clip_score(captions, image) == pytest.approx([2.5 * 0.6, 0, 0])
    references = [torch.tensor([[0.0, 1.0], [0.0, -5.0]]), torch.tensor([[0.0, 7.0]]), torch.zeros(0, 2)]
    # 2 * 1.5 * 0.8 / (1.5 + 0.8); a factor 0; no reference.
    assert ref_clip_score(captions, image, references) == pytest.approx([2.4 / 2.3, 0, np.nan], nan_ok=True)


def test_both_similarities_nought():
    caption, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    assert ref_clip_score(caption, other, [other]) == pytest.approx([0])


def test_an_embedding_without_direction_is_unscored():
    good = torch.ones(3, 2)
    wrong = torch.tensor([[0.0, 0.0], [torch.nan, 1.0], [torch.inf, 1.0]])
    for pair in ((good, wrong), (wrong, good)):
        assert np.isnan(clip_score(*pair)).all()
        assert np.isnan(ref_clip_score(*pair, [good] * 3)).all()
    assert clip_score(good * 1e30, good * 1e-30) == pytest.approx([2.5] * 3)


def test_shapes_that_differ():
    with pytest.raises(ValueError, match="differ"):
        clip_score(torch.ones(2, 3), torch.ones(3, 3))
    with pytest.raises(ValueError, match="references of 1 images and 2 captions"):
        ref_clip_score(torch.ones(2, 3), torch.ones(2, 3), [torch.ones(1, 3)])


@settings(max_examples=50)
@given(st.integers(0, 1000), st.integers(1, 6), st.floats(1e-3, 1e3))
def test_lengths_of_vectors_and_order_of_references_do_not_matter(seed: int, rows: int, scale: float):
    generator = torch.Generator().manual_seed(seed)
    captions, images = (torch.randn(rows, 4, generator=generator) for _ in range(2))
    references = [torch.randn(1 + row, 4, generator=generator) for row in range(rows)]
    found = ref_clip_score(captions, images, references)
    again = ref_clip_score(captions * scale, images / scale, [reference.flip(0) for reference in references])
    # The vectors are float32: scaling them rounds.
    assert again == pytest.approx(found, abs=1e-5)
    more = [
        torch.cat([reference, caption[None]]) for reference, caption in zip(references, captions, strict=True)
    ]
    assert (ref_clip_score(captions, images, more) >= found - 1e-12).all()
    assert ((found >= 0) & (found <= 2 * 2.5 / 3.5 + 1e-12)).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "clip"
    clip = models.clip()
    tiny.sharpen(clip, seed=1)
    models.save(clip, folder, kind="clip")
    return str(folder)


@torch.no_grad()
def test_the_measures_against_plain_transformers(folder):
    clip = load_clip(folder)
    pictures = [sample.image for sample in tiny.samples(3)]
    references = [("a red star", "a square"), (), ("blue",)]
    samples = [Sample(str(n), (pictures[n],), references[n]) for n in range(3)]
    captions = ["a green circle above a star", "", "a blue square"]
    found = evaluate(captions, samples, metrics=("clip_score",), clip=clip, batch=2).columns()
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    def text(caption: str) -> torch.Tensor:
        ids = tokenizer(f"A photo depicts {caption}", return_tensors="pt", truncation=True)
        return model.get_text_features(input_ids=ids.input_ids).pooler_output[0].double()

    for row, caption in enumerate(captions):
        pixels = clip.image_processor(images=[pictures[row]], return_tensors="pt")["pixel_values"]
        image = model.get_image_features(pixel_values=pixels).pooler_output[0].double()
        cosine = torch.cosine_similarity(text(caption), image, dim=0).item()
        score = 2.5 * max(cosine, 0)
        assert found["clip_score"][row] == pytest.approx(score, abs=1e-5)  # float32 in the model
        if references[row]:
            nearest = max(
                torch.cosine_similarity(text(caption), text(r), dim=0).item() for r in references[row]
            )
            mean = 2 * score * nearest / (score + nearest) if score > 0 and nearest > 0 else 0
            assert found["ref_clip_score"][row] == pytest.approx(mean, abs=1e-5)
        else:
            assert np.isnan(found["ref_clip_score"][row])


def test_a_video_is_the_mean_of_its_frames(folder):
    clip = load_clip(folder)
    first, second = (sample.image for sample in tiny.samples(2))
    meter = ClipScoreMeter(clip)
    meter.add(
        ["a star"] * 3,
        [Sample(n, m) for n, m in (("a", (first,)), ("b", (first, first)), ("c", (first, second)))],
    )
    one, twice, both = meter.values()["clip_score"]
    assert one == pytest.approx(twice, abs=1e-6)
    vectors = clip.images([first, second]).double()
    mean = torch.nn.functional.normalize(vectors.mean(0), dim=0)
    caption = clip.texts(["A photo depicts a star"])[0].double()
    assert both == pytest.approx(2.5 * max((mean @ caption).item(), 0), abs=1e-6)
