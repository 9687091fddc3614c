"""The shipped models: whole Hugging Face directories that load as they are and do what their gates say."""

import json

import pytest
import torch
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    CLIPModel,
    LlamaForCausalLM,
)

from limner.world import MODELS, gates, models, weights
from limner.world.captions import full
from limner.world.scenes import picture, scene
from limner.world.tokenizer import EOS, VOCABULARY, framed
from limner.world.truth import check

CLASSES = {
    "captioner": Blip2ForConditionalGeneration,
    "itm": Blip2ForImageTextRetrieval,
    "clip": CLIPModel,
    "clip_reward": CLIPModel,
    "video_captioner": Blip2ForConditionalGeneration,
    "answerer": LlamaForCausalLM,
}
FOLDER = weights("itm").parent
SCENES = [scene(0, index, "validation") for index in range(60)]
PICTURES = [picture(0, index, "validation") for index in range(60)]


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="no model 'blip'"):
        weights("blip")


def test_all_together_are_small():
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    assert size <= 12 * 2**20


@pytest.mark.parametrize("name", MODELS)
def test_a_model_loads_whole_in_plain_transformers(name):
    model, info = CLASSES[name].from_pretrained(weights(name), output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.float32
    assert all(torch.equal(value, value.half().float()) for value in model.state_dict().values()
               if value.is_floating_point())  # fmt: skip


@pytest.mark.parametrize("name", ["captioner", "itm", "clip", "clip_reward"])
def test_tokenizer_and_image_processor_agree_with_training(name):
    tokenizer = AutoTokenizer.from_pretrained(weights(name))
    assert tokenizer.get_vocab() == VOCABULARY
    caption = full(SCENES[0])
    ids = framed([caption])[0].tolist()
    assert tokenizer(caption).input_ids == (ids[:-1] if name == "captioner" else ids)
    assert tokenizer.decode(ids, skip_special_tokens=True) == caption
    assert tokenizer.eos_token_id == EOS != 2
    processor = AutoImageProcessor.from_pretrained(weights(name))
    made = processor(PICTURES[:3], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(made, models.pixels(PICTURES[:3]))
    assert processor(PICTURES[0].resize((100, 200)), return_tensors="pt")["pixel_values"].shape[-1] == 48


def test_captioner_and_matching_model_share_their_vit_to_the_bit():
    first = Blip2ForConditionalGeneration.from_pretrained(weights("captioner")).vision_model.state_dict()
    second = Blip2ForImageTextRetrieval.from_pretrained(weights("itm")).vision_model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_stored_numbers_pass_the_gates():
    stored = json.loads((FOLDER / "gates.json").read_text())
    assert stored["seed"] == 0
    assert gates.missed(stored["measured"]) == []
    assert set(stored["gates"]) == {gate.name for gate in gates.GATES}


def test_matching_through_the_models_forward_equals_matching_on_features():
    model = Blip2ForImageTextRetrieval.from_pretrained(weights("itm")).eval()
    tokens = framed([full(told) for told in SCENES[:5]])
    images = models.pixels(PICTURES[:5])
    with torch.no_grad():
        ours = models.match(model, models.image_features(model.vision_model, images), tokens)[0]
        placeholders = torch.full((5, models.QUERIES), VOCABULARY["<image>"])
        ids = torch.cat([placeholders, tokens], 1)
        theirs = model(
            pixel_values=images,
            input_ids=ids,
            attention_mask=(ids != 0).long(),
            use_image_text_matching_head=True,
        ).logits_per_image
    torch.testing.assert_close(ours, theirs)


def test_a_true_caption_matches_better_than_another_scenes():
    score = gates.matcher_scores(weights("itm"), models.pixels(PICTURES))
    said = [full(told) for told in SCENES]
    assert (score(range(60), said) > score(range(60), said[1:] + said[:1])).float().mean() >= 0.95


def test_the_captioner_says_little_and_that_is_true():
    said = gates.generate(weights("captioner"), models.pixels(PICTURES), num_beams=5)
    assert sum(len(caption.split()) for caption in said) / len(said) <= 5
    truths = [check(told, caption) for told, caption in zip(SCENES, said, strict=True)]
    assert sum(truth.share_true == 1 for truth in truths) >= 57
