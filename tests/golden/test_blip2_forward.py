"""BLIP-2 log-probabilities and captions against transformers' own whole forward pass and generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Blip2ForConditionalGeneration

import tiny
import whole_forward
from limner import captioners
from limner.decoding import Decoding

BUILDS = [tiny.blip2, tiny.blip2_t5]
CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # float32 sums in another order


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("prompt", ["", "a red"])
@pytest.mark.parametrize("build", BUILDS)
def test_logprobs_equal_transformers_forward(
    tmp_path: Path, build: Callable[[Path], Path], prompt: str, smoothing: float
) -> None:
    folder = build(tmp_path / "captioner")
    policy = captioners.load(str(folder), device="cpu", prompt=prompt)
    plain = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    samples = tiny.samples(4)
    # Any words but the image placeholder (below 5): transformers would put an image there.
    tokens = torch.randint(5, len(policy.tokenizer), (4, 9), generator=torch.Generator().manual_seed(1))
    caption_mask = torch.arange(9)[None] < torch.tensor([[9], [7], [4], [1]])
    made = whole_forward.logits(policy, plain, samples, tokens, prompt)
    torch.testing.assert_close(
        policy.logprobs(policy.encode(samples), tokens, caption_mask, smoothing),
        whole_forward.expected(made, tokens, caption_mask, smoothing),
        **CLOSE,
    )


@pytest.mark.parametrize("beams", [1, 4])
def test_an_encoder_decoder_writes_what_transformers_generates(tmp_path: Path, beams: int) -> None:
    folder = tiny.blip2_t5(tmp_path / "captioner")
    policy = captioners.load(str(folder), device="cpu")
    plain = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    samples = tiny.samples(5)
    how = {"do_sample": False, "num_beams": beams, "min_new_tokens": 3, "max_new_tokens": 12}
    made = policy.generate(policy.encode(samples, "a red"), Decoding(**how))
    images = [sample.image for sample in samples]
    ids = [plain.config.image_token_index] * plain.config.num_query_tokens
    ids = torch.tensor(ids + policy.tokenizer("a red")["input_ids"]).expand(5, -1)
    pixels = torch.as_tensor(policy.processor(images=images, return_tensors="pt")["pixel_values"])
    expected = plain.generate(pixel_values=pixels, input_ids=ids, **how, eos_token_id=2, pad_token_id=0)
    # The first is the decoder's start; after the end transformers' beams write the end again.
    assert torch.equal(made.tokens, expected[:, 1:].masked_fill(~made.caption_mask, 0))
    assert len(set(made.caption_mask.sum(1).tolist())) > 1
