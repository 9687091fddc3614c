"""Several frames against a plain reading of arXiv 2502.13363, section 3: one clip and one frame at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from transformers import Blip2ForConditionalGeneration, InstructBlipForConditionalGeneration

import tiny
import whole_forward
from limner import captioners
from limner.captioners import blip2, qformer
from limner.captioners.base import Policy
from limner.types import Sample

BUILDS = {
    tiny.blip2: Blip2ForConditionalGeneration,
    tiny.blip2_t5: Blip2ForConditionalGeneration,
    tiny.instructblip: InstructBlipForConditionalGeneration,
}
PROMPT = "a red"
CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # float32 sums in another order


@torch.no_grad()
def plainly(policy: Policy, model, sample: Sample, tokens: torch.Tensor) -> torch.Tensor:
    """(T,) log-probabilities of the tokens (T,) of one clip."""
    seen = []
    for frame in sample.media:
        pixels = torch.as_tensor(policy.processor(images=[frame], return_tensors="pt")["pixel_values"])
        seen.append(model.vision_model(pixel_values=pixels).last_hidden_state)
    frames = torch.cat(seen, 1)
    if isinstance(model, Blip2ForConditionalGeneration):
        read = model.qformer(query_embeds=model.query_tokens, encoder_hidden_states=frames)
    else:
        instruction = torch.tensor([policy.reader(PROMPT)["input_ids"]])  # type: ignore[attr-defined]
        read = model.qformer(
            input_ids=instruction, query_embeds=model.query_tokens, encoder_hidden_states=frames
        )
    queries = read.last_hidden_state[:, : model.config.num_query_tokens]
    language = model.language_model
    words = language.get_input_embeddings()(torch.tensor([policy.tokenizer(PROMPT)["input_ids"]]))
    prefix = torch.cat([model.language_projection(queries), words], 1)
    if model.config.use_decoder_only_language_model:
        whole = torch.cat([prefix, language.get_input_embeddings()(tokens[None])], 1)
        logits = language(inputs_embeds=whole).logits[0, prefix.shape[1] - 1 : -1]
    else:
        logits = language(inputs_embeds=prefix, labels=tokens[None].contiguous()).logits[0]
    return logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


@pytest.mark.parametrize("frames", [(3,), (4, 1, 2)])
@pytest.mark.parametrize("build", BUILDS)
def test_clips_equal_the_plain_reading(
    tmp_path: Path, build: Callable[[Path], Path], frames: tuple[int, ...]
) -> None:
    folder = build(tmp_path / "captioner")
    policy = captioners.load(str(folder), device="cpu", prompt=PROMPT)
    plain = BUILDS[build].from_pretrained(folder).eval()
    samples = tiny.clips(4, frames)
    tokens = torch.randint(5, len(policy.tokenizer), (4, 8), generator=torch.Generator().manual_seed(1))
    caption_mask = torch.arange(8)[None] < torch.tensor([[8], [6], [3], [1]])
    made = policy.logprobs(policy.encode(samples), tokens, caption_mask)
    for row, sample in enumerate(samples):
        length = int(caption_mask[row].sum())
        expected = plainly(policy, plain, sample, tokens[row, :length])
        torch.testing.assert_close(made[row, :length], expected, **CLOSE)


@pytest.mark.parametrize("together", [1, 2])
def test_the_tower_in_parts_is_the_whole_tower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    policy = captioners.load(str(tiny.blip2(tmp_path / "captioner")), device="cpu")
    vision = policy.model.vision_model
    side = vision.config.image_size
    pixels = torch.randn(5, 3, side, side, generator=torch.Generator().manual_seed(0))
    parts: list[int] = []
    hook = vision.register_forward_hook(
        lambda module, args, kwargs, made: parts.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    with torch.no_grad(), hook:
        whole = vision(pixel_values=pixels).last_hidden_state
        positions = whole.shape[1]
        monkeypatch.setattr(qformer, "CACHED", 4 * positions * vision.config.intermediate_size * together)
        made = policy.tower(pixels)
    assert parts == [5, *([1] * 5 if together == 1 else [2, 2, 1])]
    torch.testing.assert_close(made, whole, **CLOSE)


def test_every_frame_counts_and_so_does_none_twice(tmp_path: Path) -> None:
    """Frames of a clip are a set to the Q-Former, as in the paper: order alone changes nothing."""
    policy = captioners.load(str(tiny.blip2(tmp_path / "captioner")), device="cpu")
    clip = tiny.clips(1, 3)[0]
    a, b, c = clip.media
    made = [Sample("x", media) for media in ((a, b, c), (c, a, b), (a, b, a), (a, b), (a,))]
    prefix = policy.fixed_prefix(policy.encode(made))
    torch.testing.assert_close(prefix[1], prefix[0], **CLOSE)
    for other in (2, 3, 4):
        assert (prefix[other] - prefix[0]).abs().amax() > 0.01


def test_a_frame_goes_through_the_vision_tower_once_a_step(tmp_path: Path) -> None:
    policy = captioners.load(str(tiny.blip2(tmp_path / "captioner")), device="cpu", train=["qformer"])
    rows: Counter[str] = Counter()

    def count(module: torch.nn.Module, inputs: object, output: object) -> None:
        if module in (policy.vision, policy.model.qformer):
            rows[type(module).__name__] += len(output.last_hidden_state)  # type: ignore[attr-defined]

    handle = register_module_forward_hook(count)
    try:
        inputs = policy.encode(tiny.clips(4, (3, 1)))
        tokens, caption_mask = policy.tokenised(["a red ring"] * 4)
        policy.logprobs(inputs, tokens, caption_mask).sum().backward()
    finally:
        handle.remove()
    assert rows == {"Blip2VisionModel": 8, "Blip2QFormerModel": 4}


def test_a_larger_picture_has_interpolated_positions(tmp_path: Path) -> None:
    folder = tiny.blip2(tmp_path / "captioner")
    settings = blip2.Captioner(path=str(folder), image_size=80)
    policy = settings.load(device=torch.device("cpu"), dtype=torch.float32)
    plain = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    samples = tiny.samples(3)
    tokens = torch.randint(5, len(policy.tokenizer), (3, 6), generator=torch.Generator().manual_seed(1))
    caption_mask = torch.ones_like(tokens, dtype=torch.bool)
    inputs = policy.encode(samples)
    assert inputs.tensors["features"].shape[1:3] == (1, 101)  # 10 x 10 patches and the class token
    made = whole_forward.logits(policy, plain, samples, tokens, "", interpolate_pos_encoding=True)
    expected = whole_forward.expected(made, tokens, caption_mask, 0.0)
    torch.testing.assert_close(policy.logprobs(inputs, tokens, caption_mask), expected, **CLOSE)
    policy.save(tmp_path / "out")  # the size stands in the checkpoint
    again = captioners.load(str(tmp_path / "out"), device="cpu")
    assert torch.equal(again.fixed_prefix(again.encode(samples)), policy.fixed_prefix(inputs))
