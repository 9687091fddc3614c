"""The shipped video captioner: loads as it is, tells what eight frames show, and cannot see their order."""

import json

import pytest
import torch
from transformers import AutoImageProcessor, AutoTokenizer, Blip2ForConditionalGeneration

from limner.world import models, video_gates, video_models, weights
from limner.world.clip_captions import PROMPT, alt_text, motions_right, references_of
from limner.world.clips import clip, pictures
from limner.world.gates import missed

FOLDER = weights("video_captioner")
CLIPS = [clip(0, index, "validation") for index in range(60)]


@pytest.fixture(scope="module")
def model():
    return Blip2ForConditionalGeneration.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def features(model):
    return torch.stack([video_gates.features(model, told, 0, n) for n, told in enumerate(CLIPS)])


def test_it_is_small_and_holds_the_worlds_vit(model):
    assert (FOLDER / "model.safetensors").stat().st_size <= 3 * 2**20
    vit = Blip2ForConditionalGeneration.from_pretrained(weights("captioner")).vision_model.state_dict()
    own = model.vision_model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in vit.items())


def test_the_stored_numbers_pass_the_gates():
    stored = json.loads((FOLDER.parent / "video_gates.json").read_text())
    assert stored["seed"] == 0
    assert missed(stored["measured"], video_gates.GATES) == []
    assert set(stored["gates"]) == {gate.name for gate in video_gates.GATES}


def test_tokenizer_and_image_processor_agree_with_training():
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert tokenizer.get_vocab() == video_models.VOCABULARY
    caption = references_of(0, 0, "test")[0]
    ids = video_models.encode([caption])[0].tolist()
    assert tokenizer(caption).input_ids == ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == caption
    processor = AutoImageProcessor.from_pretrained(FOLDER)
    shown = pictures(0, 0, "test", [0, 1])
    made = processor(list(shown), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(made, models.pixels(shown))


def test_it_tells_motions_of_eight_frames_and_far_fewer_of_one(model, features):
    def motions(captions):
        counts = [motions_right(told, caption) for told, caption in zip(CLIPS, captions, strict=True)]
        return tuple(map(sum, zip(*counts, strict=True)))

    right, told = motions(video_models.generate(model, features.flatten(1, 2)))
    assert right >= 0.9 * told > 60
    assert motions(video_models.generate(model, features[:, 0]))[1] < 0.5 * told


def test_frames_in_another_order_are_the_same_to_it(model, features):
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = models.prefix(model, features.flatten(1, 2))
        second = models.prefix(model, features[:, order].flatten(1, 2))
    # Sums over 296 tokens in another order: float32 rounding.
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


def test_transformers_generates_from_pixels_what_the_passes_over_features_give(model, features):
    """One frame, as transformers' own BLIP-2 takes it: placeholders for the queries, the prompt, EOS."""
    images = models.pixels([pictures(0, index, "validation", [0])[0] for index in range(4)])
    prompt = torch.full((4, models.QUERIES), video_models.IMAGE)
    ids = torch.cat([prompt, video_models.encode([PROMPT]).expand(4, -1)], 1)
    longest = video_models.LONGEST_CAPTION
    made = model.generate(pixel_values=images, input_ids=ids, do_sample=False, max_new_tokens=longest)
    said = video_models.tokenizer().batch_decode(made, skip_special_tokens=True)
    assert said == video_models.generate(model, features[:4, 0])


def test_alt_text_is_told_word_for_word_most_of_the_time(model, features):
    said = video_models.generate(model, features.flatten(1, 2))
    assert sum(a == alt_text(told) for a, told in zip(said, CLIPS, strict=True)) >= 0.75 * len(CLIPS)
