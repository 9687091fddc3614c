"""BLIP-2 log-probabilities against transformers' own whole forward pass."""

from __future__ import annotations

import torch
from transformers import Blip2ForConditionalGeneration

import tiny
from limner import captioners


def test_logprobs_equal_transformers_forward(tmp_path) -> None:
    folder = tiny.blip2(tmp_path / "captioner")
    policy = captioners.load(str(folder), device="cpu")
    plain = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    samples = tiny.samples(4)
    inputs = policy.encode(samples)
    # Any words but the image placeholder (below 5): transformers would put an image there.
    tokens = torch.randint(
        5, plain.config.text_config.vocab_size, (4, 9), generator=torch.Generator().manual_seed(1)
    )
    caption_mask = torch.arange(9)[None] < torch.tensor([[9], [7], [4], [1]])
    queries = plain.config.num_query_tokens
    start = torch.tensor([[plain.config.image_token_index] * queries + policy.tokenizer("")["input_ids"]] * 4)
    pixels = torch.as_tensor(
        policy.processor(images=[s.image for s in samples], return_tensors="pt")["pixel_values"]
    )
    ids = torch.cat([start, tokens], 1)
    with torch.no_grad():
        logits = plain(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    expected = logits.log_softmax(-1)[:, start.shape[1] - 1 : -1].gather(-1, tokens[..., None])[..., 0]
    # float32 sums in another order
    torch.testing.assert_close(
        policy.logprobs(inputs, tokens, caption_mask), expected * caption_mask, rtol=1e-4, atol=2e-5
    )
