"""Captions that share a row behind one prefix: values, gradients and work; and what users get wrong."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
import tiny_vl
from limner import captioners, component
from limner.captioners.lean_steps import LeanSteps
from limner.captioners.packing import Slots, sharing
from limner.captioners.prefix_inputs import PrefixInputs
from limner.captioners.prefixed import PrefixedPolicy
from limner.captioners.qwen_vl import Captioner as Qwen
from limner.captioners.search import sample
from limner.captioners.steps import CachedSteps, SharedSteps
from limner.decoding import Decoding
from limner.errors import UserError
from limner.rollout import micro_batches, roll_out
from limner.types import Sample

SAMPLING = Decoding(do_sample=True, top_k=20, min_new_tokens=2, max_new_tokens=10)
PROMPT = "a red"
PARTS = {
    tiny_vl.llava: "model.multi_modal_projector",
    tiny_vl.gemma3: "model.multi_modal_projector",
    tiny_vl.idefics3: "model.connector",
    tiny_vl.smolvlm: "model.connector",
    tiny_vl.internvl: "model.multi_modal_projector",
    tiny_vl.qwen2_vl: "model.visual.merger",
    tiny_vl.qwen2_5_vl: "model.visual.merger",
    tiny_vl.qwen3_vl: "model.visual.deepstack_merger_list",
    tiny_vl.qwen3_vl_moe: "model.visual.merger",
}
"""The layers between tower and language model."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[Callable[[Path], Path], Path]:
    return {build: build(tmp_path_factory.mktemp(build.__name__)) for build in PARTS}


def load(folder: Path, *train: str, double: bool = False) -> PrefixedPolicy:
    policy = captioners.load(str(folder), train=train, prompt=PROMPT, device="cpu")
    assert isinstance(policy, PrefixedPolicy)
    return policy.double() if double else policy


def samples() -> list[Sample]:
    """One picture, one of another shape, and two."""
    first, second = tiny.samples(2)
    other = Sample("other", (second.image.resize((72, 36)),))
    return [first, other, tiny.clips(1, 2)[0]]


def captions_of(policy: PrefixedPolicy, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Made-up captions, the tokens that they have, and a weight for each."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, 300, (count, 6), generator=generator)
    lengths = torch.randint(1, 7, (count,), generator=generator)
    weights = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    return tokens, torch.arange(6) < lengths[:, None], weights


def plain_logprobs(policy: PrefixedPolicy, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """By the forward of transformers: one caption at a time behind its prompt and its pixels."""
    out = torch.zeros(tokens.shape, dtype=torch.float64)
    for row in range(len(tokens)):
        sample = samples()[row // (len(tokens) // 3)]
        read = policy.chat.row(sample.media, PROMPT)
        caption = tokens[row][mask[row]]
        kinds = {
            name: torch.cat([mark, torch.zeros_like(caption)])[None] for name, mark in read.marks.items()
        }
        takes = inspect.signature(policy.model.base_model.forward).parameters
        given = {name: tensor for name, tensor in (kinds | dict(read.pixels)).items() if name in takes}
        logits = policy.model(input_ids=torch.cat([read.ids, caption])[None], **given).logits
        logprobs = logits[0, len(read.ids) - 1 : -1].log_softmax(-1)
        out[row, : len(caption)] = logprobs.gather(-1, caption[:, None])[:, 0]
    return out


def gradients(policy: PrefixedPolicy) -> dict[str, torch.Tensor]:
    found = {n: p.grad for n, p in policy.model.named_parameters() if p.grad is not None}
    policy.zero_grad()
    return found


@pytest.mark.parametrize("build", PARTS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("train", ["*", "between"])
def test_packed_gradients_are_those_of_a_row_a_caption(checkpoints, build, train: str) -> None:
    """With everything trained, and with the layers behind a tower that does not run again."""
    double = build is not tiny_vl.qwen3_vl_moe  # experts know no float64
    policy = load(checkpoints[build], PARTS[build] if train == "between" else "*", double=double)
    tokens, mask, weights = captions_of(policy, 12)
    found = policy.logprobs(policy.encode(samples()), tokens, mask)
    assert policy.lm.found["packs"]
    (found * weights).sum().backward()
    mine = gradients(policy)
    expected = plain_logprobs(policy, tokens, mask)
    (expected * weights).sum().backward()
    theirs = gradients(policy)
    # Logits pass through float32 here: 1e-7 of about 10.
    torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    assert mine.keys() == theirs.keys()
    assert mine
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        # A bias of keys changes nothing: its gradient is rounding alone.
        scale = max(float(gradient.abs().max()), 1e-5 * largest)
        torch.testing.assert_close(mine[name] / scale, gradient / scale, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("build", [tiny_vl.llava, tiny_vl.gemma3, tiny_vl.qwen3_vl], ids=lambda b: b.__name__)
def test_eager_attention_and_rows_alone_give_the_same(checkpoints, build) -> None:
    policy = load(checkpoints[build])
    tokens, mask, _ = captions_of(policy, 12)
    inputs = policy.encode(samples())
    packed = policy.logprobs(inputs, tokens, mask)
    for way in ("lean", "packs"):
        policy.lm.found[way] = False
        torch.testing.assert_close(policy.logprobs(inputs, tokens, mask), packed, rtol=1e-4, atol=2e-5)
    policy.model.set_attn_implementation("eager")
    policy.lm.found.clear()
    torch.testing.assert_close(policy.logprobs(inputs, tokens, mask), packed, rtol=1e-4, atol=2e-5)
    assert policy.lm.packs()


@pytest.mark.parametrize("build", PARTS, ids=lambda build: build.__name__)
def test_captions_that_share_a_row_while_they_grow(checkpoints, build) -> None:
    """Prompts of several lengths; captions that end early leave the row, and images the batch."""
    policy = load(checkpoints[build])
    policy.lm = replace(policy.lm, eos_ids=(*policy.lm.eos_ids, *range(30, 90)))
    assert policy.lm.packs()
    shown = [samples()[i] for i in (0, 1, 1, 2)]
    prefix = policy._prefix(inputs := policy.encode(shown), [row.features for row in inputs.rows])
    assert prefix.there is not None, "prompts of one length would test less"
    decoding = Decoding(do_sample=True, max_new_tokens=14)
    made = [
        sample(
            kind(policy.lm, prefix, 5), 20, decoding, policy.lm.eos_ids, policy.lm.pad_id,
            torch.Generator().manual_seed(0), policy.lm.never,
        )
        for kind in (SharedSteps, CachedSteps, *[LeanSteps] * policy.lm.leans())
    ]  # fmt: skip
    for other in made[1:]:
        assert torch.equal(made[0].tokens, other.tokens)
        torch.testing.assert_close(made[0].logprobs, other.logprobs, rtol=1e-4, atol=2e-5)
    assert len(set(made[0].caption_mask.sum(1).tolist())) > 4, "captions of one length would test nothing"


@pytest.mark.parametrize("build", PARTS, ids=lambda build: build.__name__)
def test_samples_are_read_together_as_they_are_alone(checkpoints, build) -> None:
    chat = load(checkpoints[build], PARTS[build]).chat
    first, other, two = (sample.media for sample in samples())
    more = tuple(image.rotate(180) for image in two)
    asked = [(first, PROMPT), (two, PROMPT), (other, PROMPT), (more, PROMPT), ((), PROMPT), (first, "blue")]
    for row, alone in zip(chat.rows(asked), [chat.row(*one) for one in asked], strict=True):
        assert row.ids.tolist() == alone.ids.tolist()
        assert row.marks.keys() == alone.marks.keys()
        assert all(mark.equal(alone.marks[name]) for name, mark in row.marks.items())
        assert row.pixels.keys() == alone.pixels.keys()
        assert all(tensor.equal(alone.pixels[name]) for name, tensor in row.pixels.items())


def test_a_sample_asks_what_it_brings(checkpoints) -> None:
    policy = load(checkpoints[tiny_vl.llava])
    plain = tiny.samples(1)[0]
    asking = Sample("asking", plain.media, extra={"prompt": "how many red squares"})
    ids = [row.ids.tolist() for row in policy.encode([plain, asking]).rows]
    assert ids[0] == policy.encode([plain], PROMPT).rows[0].ids.tolist()
    assert ids[1] == policy.encode([plain], "how many red squares").rows[0].ids.tolist()
    assert policy.encode([asking], PROMPT).rows[0].ids.tolist() == ids[0], "what the caller asks goes first"


def test_a_model_that_misreads_the_mask_gets_a_row_a_caption(checkpoints, monkeypatch) -> None:
    """What is tried out before the first caption is scored: here every slot sees its whole row."""
    policy = load(checkpoints[tiny_vl.llava])
    monkeypatch.setattr(Slots, "sees", lambda self, there, window: torch.ones(
        len(there), self.time.shape[1], there.shape[1] + self.time.shape[1], dtype=torch.bool
    ))  # fmt: skip
    inputs = policy.encode(samples())
    made = policy.generate(inputs, SAMPLING, captions=4, generator=torch.Generator().manual_seed(0))
    again = policy.logprobs(inputs, made.tokens, made.caption_mask)
    assert policy.lm.found["packs"] is False
    torch.testing.assert_close(again, made.logprobs, rtol=1e-4, atol=2e-5)


@contextmanager
def counted(policy: PrefixedPolicy) -> Iterator[dict[str, int]]:
    """Pictures through the vision tower, and tokens through the language model."""
    seen = {"pictures": 0, "tokens": 0}

    def picture(module: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
        seen["pictures"] += len(kwargs["grid_thw"])

    def tokens(module: nn.Module, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        seen["tokens"] += kwargs["inputs_embeds"].shape[:2].numel()

    assert policy.vision is not None
    handles = [
        policy.vision.register_forward_pre_hook(picture, with_kwargs=True),
        policy.language_model.register_forward_pre_hook(tokens, with_kwargs=True),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def test_a_picture_is_encoded_once_and_its_prompt_prefilled_once_for_all_its_captions(checkpoints) -> None:
    policy = load(checkpoints[tiny_vl.qwen2_5_vl], "lora(q,v)")
    policy.lm.packs()
    pictures = tiny.samples(4)
    prompt = len(policy.encode(pictures[:1]).rows[0].ids)
    decoding = Decoding(do_sample=True, min_new_tokens=8, max_new_tokens=8)
    with counted(policy) as seen:
        rollouts = roll_out(policy, pictures, decoding, captions=6, micro_batch=12, needs=frozenset())
        assert seen == {"pictures": 4, "tokens": 4 * prompt + 24 * 7}
    with counted(policy) as seen:
        for _, part in micro_batches(rollouts, 12):
            assert isinstance(part.inputs, PrefixInputs)
            policy.logprobs(part.inputs, part.tokens, part.caption_mask).sum().backward()
    assert seen == {"pictures": 0, "tokens": 4 * prompt + 24 * 7}


def test_only_tokens_of_captions_reach_the_output_layer(checkpoints) -> None:
    policy = load(checkpoints[tiny_vl.llava])
    policy.lm.packs()
    tokens, mask, _ = captions_of(policy, 12)
    rows: list[int] = []
    handle = policy.model.lm_head.register_forward_hook(
        lambda _, args, __: rows.append(args[0].shape[:-1].numel())
    )
    policy.logprobs(policy.encode(samples()), tokens, mask)
    handle.remove()
    assert rows == [int(mask.sum())]


def test_half_precision_beside_trained_parts_in_float32(checkpoints) -> None:
    for train in ("*", "model.visual.merger", "lora(q,v)"):
        policy = Qwen(path=str(checkpoints[tiny_vl.qwen2_5_vl]), train=(train,), prompt=PROMPT).load(
            device=torch.device("cpu"), dtype=torch.bfloat16
        )
        assert {p.dtype for p in policy.trained().values()} == {torch.float32}
        inputs = policy.encode(samples())
        made = policy.generate(inputs, SAMPLING, captions=2, generator=torch.Generator().manual_seed(0))
        again = policy.logprobs(inputs, made.tokens, made.caption_mask)
        again.sum().backward()
        assert policy.lm.found["packs"]
        # bfloat16 has 3 digits, logits are about 10.
        torch.testing.assert_close(again, made.logprobs, rtol=0.05, atol=0.2)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.trained().values())


def test_slots_close_up_and_see_their_own_caption() -> None:
    fed = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]]).bool()
    slots = Slots.of(fed, 2)
    assert slots.caption[slots.used].tolist() == [0, 0, 1, 3, 3, 3]
    assert slots.time[slots.used].tolist() == [0, 1, 0, 0, 1, 2]
    there = torch.tensor([[False, True], [True, True]])
    assert slots.sees(there, None)[0].int().tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 1, 0, 0, 1]]
    assert slots.sees(there, 2)[1].int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]


def test_rows_are_not_much_longer_than_the_prefix() -> None:
    assert sharing(8, tokens=30, prefix=66) == 8
    assert sharing(8, tokens=1000, prefix=2500) == 2
    assert sharing(6, tokens=4000, prefix=100) == 1


def test_pixels_bound_the_number_of_image_tokens(checkpoints) -> None:
    def tokens(**pixels: Any) -> int:
        settings = Qwen(path=str(checkpoints[tiny_vl.qwen2_5_vl]), prompt=PROMPT, **pixels)
        policy = settings.load(device=torch.device("cpu"), dtype=torch.float32)
        return policy.features(policy.encode(tiny.samples(1))).shape[1]

    assert tokens() == (48 // 12) ** 2
    assert tokens(max_pixels=24 * 24) == 4
    assert tokens(min_pixels=96 * 96, max_pixels=96 * 96) == 64
    with pytest.raises(UserError, match="min_pixels is 9, more than"):
        tokens(min_pixels=9, max_pixels=4)


def test_auto_takes_what_no_other_family_takes() -> None:
    auto = component.find("captioners", "auto")
    assert auto.matches({"model_type": "llava"})
    assert not auto.matches({"model_type": "blip-2"})
    assert not auto.matches({"model_type": "qwen2_5_vl"})
    assert not auto.matches({"model_type": "bert"})


def test_a_trained_language_model_is_no_reference(checkpoints) -> None:
    policy = load(checkpoints[tiny_vl.llava], "model.language_model")
    tokens, mask, _ = captions_of(policy, 3)
    with pytest.raises(UserError, match="train lora"):
        policy.lm_logprobs(tokens, mask)


def test_a_sample_without_picture_is_named(checkpoints) -> None:
    policy = load(checkpoints[tiny_vl.llava])
    with pytest.raises(UserError, match="sample-7: this sample has no picture"):
        policy.encode([Sample("sample-7", ())])


def test_written_captions_end_as_the_chat_ends_them(checkpoints) -> None:
    policy = load(checkpoints[tiny_vl.llava])
    tokens, mask = policy.tokenised(["a red <image>", ""])
    assert tokens[0][mask[0]].tolist()[-1] == tokens[1, 0] == 2
    assert policy.texts(tokens, mask) == ("a red <image>", "")
    assert policy.lm.never[0] not in tokens[0].tolist(), "what looks like a picture stays text"


def test_captions_never_hold_a_place_for_a_picture(checkpoints) -> None:
    policy = load(checkpoints[tiny_vl.llava])
    with torch.no_grad():
        policy.model.lm_head.weight[policy.lm.never[0]] = 100 * policy.model.lm_head.weight.sum(0)
    inputs = policy.encode(tiny.samples(3))
    for beams in (1, 3):
        decoding = Decoding(do_sample=False, num_beams=beams, max_new_tokens=6)
        made = policy.generate(inputs, decoding)
        assert not torch.isin(made.tokens, torch.tensor(policy.lm.never)).any()
