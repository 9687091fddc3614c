"""InstructBLIP log-probabilities and captions against transformers' own whole forward pass and generation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import InstructBlipForConditionalGeneration

import tiny
import whole_forward
from limner import captioners
from limner.decoding import Decoding

CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # float32 sums in another order


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("prompt", ["", "a red triangle"])
def test_logprobs_equal_transformers_forward(tmp_path: Path, prompt: str, smoothing: float) -> None:
    folder = tiny.instructblip(tmp_path / "captioner")
    policy = captioners.load(str(folder), device="cpu", prompt=prompt)
    plain = InstructBlipForConditionalGeneration.from_pretrained(folder).eval()
    samples = tiny.samples(4)
    # Any token but the image placeholder (below 5): transformers would put an image there.
    tokens = torch.randint(5, len(policy.tokenizer), (4, 9), generator=torch.Generator().manual_seed(1))
    caption_mask = torch.arange(9)[None] < torch.tensor([[9], [7], [4], [1]])
    instruction = torch.tensor(policy.reader(prompt)["input_ids"]).expand(4, -1)
    made = whole_forward.logits(policy, plain, samples, tokens, prompt, qformer_input_ids=instruction)
    torch.testing.assert_close(
        policy.logprobs(policy.encode(samples), tokens, caption_mask, smoothing),
        whole_forward.expected(made, tokens, caption_mask, smoothing),
        **CLOSE,
    )


def test_the_q_former_reads_the_prompt(tmp_path: Path) -> None:
    policy = captioners.load(str(tiny.instructblip(tmp_path / "captioner")), device="cpu")
    samples = tiny.samples(2)
    one, other = (
        policy.fixed_prefix(policy.encode(samples, prompt)) for prompt in ("a red star", "a blue star")
    )
    assert (one - other).abs().amax() > 0.01


@pytest.mark.parametrize("beams", [1, 4])
def test_captions_are_what_transformers_generates(tmp_path: Path, beams: int) -> None:
    folder = tiny.instructblip(tmp_path / "captioner")
    policy = captioners.load(str(folder), device="cpu")
    plain = InstructBlipForConditionalGeneration.from_pretrained(folder).eval()
    samples = tiny.samples(5)
    how = {"do_sample": False, "num_beams": beams, "min_new_tokens": 3, "max_new_tokens": 12}
    made = policy.generate(policy.encode(samples, "a red"), Decoding(**how))
    images = [sample.image for sample in samples]
    ids = [plain.config.image_token_index] * plain.config.num_query_tokens
    ids = torch.tensor(ids + policy.tokenizer("a red")["input_ids"]).expand(5, -1)
    expected = plain.generate(
        pixel_values=torch.as_tensor(policy.processor(images=images, return_tensors="pt")["pixel_values"]),
        qformer_input_ids=torch.tensor(policy.reader("a red")["input_ids"]).expand(5, -1),
        input_ids=ids,
        **how,
        eos_token_id=2,
        pad_token_id=0,
    )
    captions = expected[:, -made.tokens.shape[1] :]
    # After the end transformers' beams write the end again.
    assert torch.equal(made.tokens, captions.masked_fill(~made.caption_mask, 0))
