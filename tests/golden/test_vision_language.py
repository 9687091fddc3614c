"""Image-text matching and CLIP give what transformers' own classes give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, Blip2ForImageTextRetrieval, CLIPModel

import tiny
import tiny_judges
from limner.errors import UserError
from limner.vision_language import MATCH, load_clip, load_itm
from limner.world import models
from limner.world.tokenizer import IMAGE

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def itm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_judges.itm(tmp_path_factory.mktemp("itm"))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_judges.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [sample.image for sample in tiny.samples(6)]


@pytest.mark.parametrize("form", ["with places for the image", "older"])
def test_itm_equals_transformers(form: str, tmp_path: Path, images: list[Image.Image]) -> None:
    old = form == "older"
    folder = (tiny_judges.itm_without_image_token if old else tiny_judges.itm)(tmp_path / "itm")
    reference = Blip2ForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32)
    texts = tiny_judges.captions(6)
    texts[2] = "a triangle"
    encoded = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    assert (mask == 0).any(), "texts of one length would not test the padding"
    if not old:  # transformers wants a place in the text for every query, and cuts them off again
        places = torch.full((6, models.QUERIES), IMAGE)
        ids, mask = torch.cat([places, ids], 1), torch.cat([torch.ones_like(places), mask], 1)
    with torch.no_grad():
        expected = reference(
            pixel_values=models.pixels(images),
            input_ids=ids,
            attention_mask=mask,
            use_image_text_matching_head=True,
        ).logits_per_image
    itm = load_itm(str(folder))
    found = itm.logits(itm.encode(images), texts)
    assert found.std(0).min() > 0.01, "a model that says the same of all would test nothing"
    torch.testing.assert_close(found, expected, **CLOSE)


def test_match_is_the_second_logit_of_each_pair_in_any_micro_batch(
    itm_folder: Path, images: list[Image.Image]
) -> None:
    itm = load_itm(str(itm_folder))
    features = itm.encode(images[:3])
    texts = tiny_judges.captions(6)
    expected = torch.stack([itm.logits(features[[n // 2]], [texts[n]])[0, 1] for n in range(6)])
    for size in (1, 4, 128):
        torch.testing.assert_close(itm.match(features, texts, micro_batch=size), expected, **CLOSE)


def test_clip_equals_transformers(clip_folder: Path, images: list[Image.Image]) -> None:
    reference = CLIPModel.from_pretrained(clip_folder, dtype=torch.float32)
    texts = tiny_judges.captions(6)
    encoded = AutoTokenizer.from_pretrained(clip_folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = reference(
            pixel_values=models.pixels(images),
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
        )
    clip = load_clip(str(clip_folder))
    found_images, found_texts = clip.images(images, micro_batch=4), clip.texts(texts, micro_batch=4)
    torch.testing.assert_close(found_images, out.image_embeds, **CLOSE)
    torch.testing.assert_close(found_texts, out.text_embeds, **CLOSE)
    similar = found_texts @ found_images.T * reference.logit_scale.exp().detach()
    torch.testing.assert_close(similar, out.logits_per_text, rtol=1e-4, atol=1e-3)


def test_texts_longer_than_the_model_are_cut(itm_folder: Path, clip_folder: Path, images) -> None:
    long = "a red triangle and " * 30
    itm, clip = load_itm(str(itm_folder)), load_clip(str(clip_folder))
    scores = itm.logits(itm.encode(images[:1]), [long])
    torch.testing.assert_close(scores, itm.logits(itm.encode(images[:1]), [long + long]))
    torch.testing.assert_close(clip.texts([long]), clip.texts([long + long]))


def test_empty_text_is_a_text(itm_folder: Path, clip_folder: Path, images) -> None:
    itm, clip = load_itm(str(itm_folder)), load_clip(str(clip_folder))
    features = itm.encode(images[:2])
    alone = itm.logits(features[:1], [""])
    assert alone.isfinite().all()
    torch.testing.assert_close(itm.logits(features, ["", "a red triangle"])[:1], alone, **CLOSE)
    torch.testing.assert_close(clip.texts(["", "a red triangle"])[:1], clip.texts([""]), **CLOSE)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (5, 3), (1, 400), (400, 1), (31, 700)])
def test_images_of_any_shape(itm_folder: Path, clip_folder: Path, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (200, 30, 90))
    assert load_itm(str(itm_folder)).encode([image]).shape == (1, models.PATCHES + 1, models.WIDTH)
    assert load_clip(str(clip_folder)).images([image]).shape == (1, models.WIDTH)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(itm_folder: Path, images: list[Image.Image], dtype: torch.dtype) -> None:
    texts = tiny_judges.captions(6)
    exact, half = load_itm(str(itm_folder)), load_itm(str(itm_folder), dtype=dtype)
    expected = exact.logits(exact.encode(images), texts)
    found = half.logits(half.encode(images), texts)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.1 * expected.std()


def test_what_cannot_be_loaded_is_named(itm_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"clip.*'clip'.*'blip-2'"):
        load_itm(str(clip_folder))
    with pytest.raises(UserError, match=r"no config\.json"):
        load_clip(str(tmp_path))
    with pytest.raises(UserError, match=r"captioner: lacks \d+ weights of Blip2ForImageTextRetrieval, .*"):
        load_itm(str(tiny.blip2(tmp_path / "captioner")))
    itm = tiny_judges.itm(tmp_path / "bare")
    (itm / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="bare: cannot load"):
        load_itm(str(itm))
    (tiny_judges.itm(tmp_path / "damaged") / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="damaged"):
        load_itm(str(tmp_path / "damaged"))


def test_match_index_on_the_miniature_world() -> None:
    """Which of the two classes is "match" is checked on a trained model: true captions win there."""
    itm = load_itm("world:itm")
    features = itm.encode([sample.image for sample in tiny.samples(50)])
    texts = tiny_judges.captions(50)
    true, false = itm.logits(features, texts), itm.logits(features, texts[1:] + texts[:1])
    better = (true > false).float().mean(0)
    assert better[MATCH] > 0.95
    assert better[1 - MATCH] < 0.5, "the other class falls for most"
