"""What every captioner family must hold, on small models of the real classes, with one picture and more."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Blip2ForConditionalGeneration

import tiny
from captioner_variants import BUILDS, VARIANTS, Variant
from limner import captioners, component
from limner.advantages.base import Value
from limner.captioners.base import VALUE_ADAPTER, Policy, is_adapter, names_part
from limner.critic import add_adapter, switch_adapter
from limner.decoding import Decoding
from limner.errors import UserError
from limner.paths import resolve
from limner.types import Sample

SAMPLING = Decoding(do_sample=True, top_k=20, min_new_tokens=2, max_new_tokens=16)
GREEDY = Decoding(do_sample=False, min_new_tokens=4, max_new_tokens=8)
CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # float32 sums in another order
TEXT_ALONE = "user: redassistant: "
"""The chat of the decoder-only families without a picture."""
POSITIONS = 100
"""Tokens that no language model here has positions for behind a prompt."""


def test_every_family_on_disk_is_tested() -> None:
    assert set(component.available("captioners")) == {kind for kind, _ in BUILDS.values()}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[Callable[[Path], Path], str]:
    return {build: str(build(tmp_path_factory.mktemp(build.__name__) / "captioner")) for build in BUILDS}


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> Variant:
    return request.param


@pytest.fixture
def policy(variant: Variant, loaded: Callable[[Variant], Policy]) -> Policy:
    return copy.deepcopy(loaded(variant))


@pytest.fixture(scope="module")
def loaded(checkpoints) -> Callable[[Variant], Policy]:
    return cache(lambda variant: load(variant, checkpoints))


def load(variant: Variant, checkpoints) -> Policy:
    policy = variant.load(checkpoints[variant.build], train=(*variant.parts, *["lora(q,v)"] * variant.lora))
    with torch.no_grad():
        for name, parameter in policy.trained().items():
            if is_adapter(name):  # as after some training: a new adapter does nothing
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator(len(name))))
    # Twenty words end a caption as well: captions have many lengths whatever the random weights prefer.
    policy.lm = replace(policy.lm, eos_ids=(*policy.lm.eos_ids, *range(30, 50)))  # type: ignore[attr-defined]
    return policy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("captions", "prompt"), [(1, ""), (3, "a red")])
def test_logprobs_of_generated_tokens_equal_those_of_generation(
    variant: Variant, policy: Policy, captions: int, prompt: str
) -> None:
    inputs = policy.encode(variant.samples(5), prompt)
    made = policy.generate(inputs, SAMPLING, captions=captions, generator=generator(1))
    again = policy.logprobs(inputs, made.tokens, made.caption_mask)
    assert len(made.tokens) == 5 * captions
    assert len(set(made.caption_mask.sum(1).tolist())) > 1, "captions of one length would test nothing"
    torch.testing.assert_close(again, made.logprobs, **CLOSE)


def test_batch_size_and_padding_change_nothing(variant: Variant, policy: Policy) -> None:
    samples = variant.samples(6)
    inputs = policy.encode(samples)
    made = policy.generate(inputs, SAMPLING, generator=generator())
    whole = policy.logprobs(inputs, made.tokens, made.caption_mask)
    for row in range(6):
        length = int(made.caption_mask[row].sum())
        alone = policy.logprobs(policy.encode(samples[row : row + 1]), made.tokens[row : row + 1, :length],
                                made.caption_mask[row : row + 1, :length])  # fmt: skip
        torch.testing.assert_close(alone[0], whole[row, :length], **CLOSE)
        assert not whole[row, length:].any()


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_do_not_depend_on_the_batch(variant: Variant, policy: Policy, beams: int) -> None:
    samples = variant.samples(3)
    decoding = Decoding(do_sample=False, num_beams=beams, max_new_tokens=8)
    together = policy.caption(samples, decoding)
    assert together == [policy.caption([sample], decoding)[0] for sample in samples]


def test_clips_of_several_lengths_share_a_batch(variant: Variant, policy: Policy) -> None:
    """Frames that are not there take no part, in whatever batch a clip is and however inputs are joined."""
    samples = tiny.clips(5, (2, 1, 3, 2))
    inputs = policy.encode(samples)
    made = policy.generate(inputs, SAMPLING, generator=generator())
    whole = policy.logprobs(inputs, made.tokens, made.caption_mask)
    torch.testing.assert_close(whole, made.logprobs, **CLOSE)
    parts = [policy.encode([sample]) for sample in samples]
    alone = [
        policy.logprobs(part, made.tokens[i : i + 1], made.caption_mask[i : i + 1])
        for i, part in enumerate(parts)
    ]
    torch.testing.assert_close(torch.cat(alone), whole, **CLOSE)
    joined = policy.logprobs(type(parts[0]).concat(parts), made.tokens, made.caption_mask)
    torch.testing.assert_close(joined, whole, **CLOSE)
    rows = torch.tensor([1, 0])  # of 1 and 2 frames
    some = policy.logprobs(inputs.select(rows), made.tokens[rows], made.caption_mask[rows])
    torch.testing.assert_close(some, whole[rows], **CLOSE)


def test_a_prompt_has_as_many_positions_as_the_language_model_computes(policy: Policy) -> None:
    reader = policy.language_model
    reader = reader.get_encoder() if reader.config.is_encoder_decoder else reader.get_decoder()
    computed: list[int] = []
    reader.register_forward_hook(lambda _, __, out: computed.append(out.last_hidden_state.shape[1]))

    def counted(sample: Sample, prompt: str) -> int:
        computed.clear()
        policy.generate(policy.encode([sample], prompt), Decoding(do_sample=False, max_new_tokens=1))
        return sum(computed)  # one token needs the prompt alone

    samples = tiny.clips(3, (1, 2, 3))
    together = policy.prompt_positions(policy.encode(samples, "a red"))
    assert together == tuple(counted(sample, "a red") for sample in samples)
    (longer,) = policy.prompt_positions(policy.encode(samples[:1], "a red red"))
    assert longer == counted(samples[0], "a red red") > together[0]


def test_selecting_rows_before_or_after_is_the_same(variant: Variant, policy: Policy) -> None:
    inputs = policy.encode(variant.samples(4))
    made = policy.generate(inputs, SAMPLING, generator=generator())
    rows = torch.tensor([2, 0])
    before = policy.logprobs(inputs.select(rows), made.tokens[rows], made.caption_mask[rows])
    after = policy.logprobs(inputs, made.tokens, made.caption_mask)[rows]
    torch.testing.assert_close(before, after, **CLOSE)


def test_repeated_inputs_equal_shared_inputs(variant: Variant, policy: Policy) -> None:
    inputs = policy.encode(variant.samples(3))
    made = policy.generate(inputs, SAMPLING, captions=2, generator=generator())
    shared = policy.logprobs(inputs, made.tokens, made.caption_mask)
    repeated = policy.logprobs(inputs.repeat(2), made.tokens, made.caption_mask)
    torch.testing.assert_close(repeated, shared, **CLOSE)


def test_adapters_off_is_the_base_model_bit_for_bit(variant: Variant, policy: Policy, checkpoints) -> None:
    inputs = policy.encode(variant.samples(4))
    made = policy.generate(inputs, GREEDY)
    plain = policy.logprobs(inputs, made.tokens, made.caption_mask)
    adapter = add_adapter(policy, Value(lora_rank=2))
    assert adapter
    with torch.no_grad():
        for parameter in adapter.values():
            parameter.normal_()
    assert torch.equal(policy.logprobs(inputs, made.tokens, made.caption_mask), plain)
    switch_adapter(policy, on=True)
    assert not torch.equal(policy.logprobs(inputs, made.tokens, made.caption_mask), plain)
    switch_adapter(policy, on=False)
    assert torch.equal(policy.logprobs(inputs, made.tokens, made.caption_mask), plain)
    assert torch.equal(policy.generate(inputs, GREEDY).tokens, made.tokens)
    # Copied, as the policy is: weights read from a file may lie in memory where sums take another order.
    base = copy.deepcopy(variant.load(checkpoints[variant.build]))
    without = base.logprobs(base.encode(variant.samples(4)), made.tokens, made.caption_mask)
    assert torch.equal(without, plain) != variant.lora
    with policy.without_adapters():
        assert torch.equal(policy.logprobs(inputs, made.tokens, made.caption_mask), without)
    alone = policy.lm_logprobs(made.tokens, made.caption_mask)
    assert torch.equal(alone, base.lm_logprobs(made.tokens, made.caption_mask))


def test_a_value_step_leaves_the_policy_bit_equal(variant: Variant, policy: Policy) -> None:
    adapter = add_adapter(policy, Value(lora_rank=2))
    trained = set(policy.trained())
    inputs = policy.encode(variant.samples(4))
    made = policy.generate(inputs, SAMPLING, generator=generator())
    asked = (inputs, made.tokens, made.caption_mask)
    before, first = policy.logprobs(*asked), None
    optimiser = torch.optim.Adam([*adapter.values(), *policy.trained().values()], lr=0.1)
    for _ in range(2):
        switch_adapter(policy, on=True)
        values = policy.hidden(*asked)[..., :8].float().mean()
        values.backward()
        switch_adapter(policy, on=False)
        first = values.item() if first is None else first
        optimiser.step()
    assert values.item() != first, "the value adapter must have learnt something"
    assert torch.equal(policy.logprobs(*asked), before)
    assert set(policy.trained()) == trained


@pytest.mark.parametrize("beams", [1, 3])
def test_a_caption_ends_where_the_positions_end(variant: Variant, policy: Policy, beams: int) -> None:
    decoding = Decoding(do_sample=False, num_beams=beams, min_new_tokens=POSITIONS, max_new_tokens=POSITIONS)
    inputs = policy.encode(variant.samples(2))
    made = policy.generate(inputs, decoding)
    config = policy.language_model.config
    assert not made.ended.any()
    if config.is_encoder_decoder:
        assert made.tokens.shape[1] == POSITIONS, "T5's positions are relative"
        return
    prompt = len(inputs.rows[0].ids) if variant.chats else policy.model.config.num_query_tokens + 1
    assert made.tokens.shape[1] == config.max_position_embeddings - prompt
    with pytest.raises(UserError, match="prompt is too long"):
        policy.generate(policy.encode(variant.samples(1), "red " * 80), decoding)


def test_only_the_chosen_parts_get_gradient(variant: Variant, policy: Policy) -> None:
    add_adapter(policy, Value(lora_rank=2))
    inputs = policy.encode(variant.samples(3))
    made = policy.generate(inputs, SAMPLING, generator=generator())
    policy.logprobs(inputs, made.tokens, made.caption_mask).sum().backward()
    moved = {name for name, parameter in policy.model.named_parameters() if parameter.grad is not None}
    assert moved == set(policy.trained()) - {"qformer.embeddings.word_embeddings.weight"} | (
        moved & {"qformer.embeddings.word_embeddings.weight"}
    )
    adapted = {name for name in moved if is_adapter(name)}
    assert all(any(names_part(name, part) for part in variant.parts) for name in moved - adapted)
    assert bool(adapted) == variant.lora
    assert not any(is_adapter(name, VALUE_ADAPTER) for name in moved)


def test_one_copy_of_every_weight(policy: Policy) -> None:
    before = {p.data_ptr() for p in policy.language_model.parameters()}
    adapter = add_adapter(policy, Value(lora_rank=2))
    after = {p.data_ptr() for p in policy.language_model.parameters()}
    assert after == before | {p.data_ptr() for p in adapter.values()}


def test_language_model_alone_ignores_the_image(variant: Variant, policy: Policy, checkpoints) -> None:
    inputs = policy.encode(variant.samples(4))
    made = policy.generate(inputs, SAMPLING, generator=generator())
    alone = policy.lm_logprobs(made.tokens, made.caption_mask)
    plain = type(policy.model).from_pretrained(checkpoints[variant.build]).eval()
    plain = plain if variant.chats else plain.language_model
    before = TEXT_ALONE if variant.chats else ""
    start = torch.tensor(policy.tokenizer(before)["input_ids"]).expand(4, -1)
    with torch.no_grad():
        if plain.config.is_encoder_decoder:
            logits = plain(input_ids=start, labels=made.tokens.contiguous()).logits
        else:
            logits = plain(input_ids=torch.cat([start, made.tokens], 1)).logits[:, start.shape[1] - 1 : -1]
    expected = logits.log_softmax(-1).gather(-1, made.tokens[..., None])[..., 0] * made.caption_mask
    torch.testing.assert_close(alone, expected, **CLOSE)


def test_exported_and_reloaded_is_the_trained_model(variant: Variant, policy: Policy, tmp_path) -> None:
    add_adapter(policy, Value(lora_rank=2))
    with torch.no_grad():
        for parameter in policy.trained().values():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator(3)))
    samples = variant.samples(5)
    policy.save(tmp_path / "out")
    reloaded = variant.load(str(tmp_path / "out"))
    inputs = policy.encode(samples)
    made = policy.generate(inputs, SAMPLING, generator=generator())
    after = reloaded.logprobs(reloaded.encode(samples), made.tokens, made.caption_mask)
    expected = policy.logprobs(inputs, made.tokens, made.caption_mask)
    if variant.lora:  # (W + BA)x for Wx + B(Ax)
        torch.testing.assert_close(after, expected, rtol=1e-3, atol=2e-4)
    else:
        assert torch.equal(after, expected)
    _, report = type(policy.model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), "plain transformers finds every weight and no other"


def test_trained_parameters_are_all_a_checkpoint_needs(variant: Variant, policy: Policy, checkpoints) -> None:
    with torch.no_grad():
        for parameter in policy.trained().values():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator(3)))
    state = {name: parameter.detach().clone() for name, parameter in policy.trained().items()}
    other = variant.load(checkpoints[variant.build], train=policy.settings.train)
    with torch.no_grad():
        for name, parameter in other.trained().items():
            parameter.copy_(state[name])
    inputs = policy.encode(variant.samples(3))
    made = policy.generate(inputs, GREEDY)
    after = other.logprobs(other.encode(variant.samples(3)), made.tokens, made.caption_mask)
    assert torch.equal(after, policy.logprobs(inputs, made.tokens, made.caption_mask))


@pytest.mark.parametrize("beams", [1, 5])
def test_captions_equal_those_of_plain_transformers(beams: int) -> None:
    """Our prefill, cache and decoding against Blip2ForConditionalGeneration.generate, nothing shared.

    With trained weights: a random model writes image placeholders, which transformers counts among
    repeated n-grams.
    """
    policy = captioners.load("world:captioner", device="cpu")
    model = Blip2ForConditionalGeneration.from_pretrained(resolve("world:captioner")).eval()
    tokenizer = AutoTokenizer.from_pretrained(resolve("world:captioner"))
    samples = tiny.samples(8)
    how = {
        "do_sample": False,
        "num_beams": beams,
        "min_new_tokens": 4,
        "max_new_tokens": 20,
        "no_repeat_ngram_size": 2,
    }
    pixels = torch.as_tensor(
        policy.processor(images=[s.image for s in samples], return_tensors="pt")["pixel_values"]
    )
    ids = model.generate(pixel_values=pixels, **how)
    expected = [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
    assert policy.caption(samples, Decoding(**how)) == expected
