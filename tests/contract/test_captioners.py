"""What every captioner family must hold, on small models of the real classes."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, Blip2ForConditionalGeneration

import tiny
from limner import captioners, component
from limner.advantages.base import Value
from limner.captioners.base import Policy
from limner.critic import add_adapter, switch_adapter
from limner.decoding import Decoding
from limner.errors import UserError
from limner.paths import resolve

FAMILIES = {"blip2": tiny.blip2}
SAMPLING = Decoding(do_sample=True, top_k=20, max_new_tokens=30)
GREEDY = Decoding(do_sample=False, max_new_tokens=12)
CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # float32 sums in another order


def test_every_family_on_disk_is_tested() -> None:
    assert set(component.available("captioners")) == set(FAMILIES)


@pytest.fixture(params=FAMILIES, scope="module")
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return request.param, FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def policy(checkpoint) -> Policy:
    kind, folder = checkpoint
    settings = component.find("captioners", kind)(path=str(folder))
    return settings.load(device=torch.device("cpu"), dtype=torch.float32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("captions", [1, 3])
@pytest.mark.parametrize("prompt", ["", "a red"])
def test_logprobs_of_generated_tokens_equal_those_of_generation(
    policy: Policy, captions: int, prompt: str
) -> None:
    inputs = policy.encode(tiny.samples(5), prompt)
    made = policy.generate(inputs, SAMPLING, captions=captions, generator=generator())
    again = policy.logprobs(inputs, made.tokens, made.caption_mask)
    assert len(made.tokens) == 5 * captions
    assert len(set(made.caption_mask.sum(1).tolist())) > 1, "captions of one length would test nothing"
    torch.testing.assert_close(again, made.logprobs, **CLOSE)


def test_batch_size_and_padding_change_nothing(policy: Policy) -> None:
    samples = tiny.samples(6)
    inputs = policy.encode(samples)
    made = policy.generate(inputs, SAMPLING, generator=generator())
    whole = policy.logprobs(inputs, made.tokens, made.caption_mask)
    for row in range(6):
        length = int(made.caption_mask[row].sum())
        alone = policy.logprobs(policy.encode(samples[row : row + 1]), made.tokens[row : row + 1, :length],
                                made.caption_mask[row : row + 1, :length])  # fmt: skip
        torch.testing.assert_close(alone[0], whole[row, :length], **CLOSE)
        assert not whole[row, length:].any()


def test_greedy_captions_do_not_depend_on_the_batch(policy: Policy) -> None:
    samples = tiny.samples(6)
    together = policy.caption(samples, GREEDY)
    assert together == [policy.caption([sample], GREEDY)[0] for sample in samples]


def test_selecting_rows_before_or_after_is_the_same(policy: Policy) -> None:
    inputs = policy.encode(tiny.samples(4))
    made = policy.generate(inputs, SAMPLING, generator=generator())
    rows = torch.tensor([2, 0])
    before = policy.logprobs(inputs.select(rows), made.tokens[rows], made.caption_mask[rows])
    after = policy.logprobs(inputs, made.tokens, made.caption_mask)[rows]
    torch.testing.assert_close(before, after, **CLOSE)


def test_repeated_inputs_equal_shared_inputs(policy: Policy) -> None:
    inputs = policy.encode(tiny.samples(3))
    made = policy.generate(inputs, SAMPLING, captions=2, generator=generator())
    shared = policy.logprobs(inputs, made.tokens, made.caption_mask)
    torch.testing.assert_close(
        policy.logprobs(inputs.repeat(2), made.tokens, made.caption_mask), shared, **CLOSE
    )


def test_adapters_off_is_the_base_model_bit_for_bit(policy: Policy) -> None:
    inputs = policy.encode(tiny.samples(4))
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


@pytest.mark.parametrize("beams", [1, 3])
def test_a_caption_ends_where_the_positions_end(policy: Policy, beams: int) -> None:
    decoding = Decoding(do_sample=False, num_beams=beams, min_new_tokens=500, max_new_tokens=500)
    inputs = policy.encode(tiny.samples(2))
    made = policy.generate(inputs, decoding)
    room = policy.language_model.config.max_position_embeddings - policy.model.config.num_query_tokens - 1
    assert made.tokens.shape[1] == room
    assert not made.ended.any()
    with pytest.raises(UserError, match="prompt is too long"):
        policy.generate(policy.encode(tiny.samples(1), "red " * 80), decoding)


def test_only_the_chosen_parts_get_gradient(policy: Policy) -> None:
    add_adapter(policy, Value(lora_rank=2))
    inputs = policy.encode(tiny.samples(3))
    made = policy.generate(inputs, SAMPLING, generator=generator())
    policy.logprobs(inputs, made.tokens, made.caption_mask).sum().backward()
    moved = {name for name, parameter in policy.model.named_parameters() if parameter.grad is not None}
    assert moved == set(policy.trained())
    assert all(any(name.startswith(part) for part in policy.settings.train) for name in moved)


def test_one_copy_of_every_weight(policy: Policy) -> None:
    before = {p.data_ptr() for p in policy.language_model.parameters()}
    adapter = add_adapter(policy, Value(lora_rank=2))
    after = {p.data_ptr() for p in policy.language_model.parameters()}
    assert after == before | {p.data_ptr() for p in adapter.values()}


def test_language_model_alone_ignores_the_image(policy: Policy) -> None:
    inputs = policy.encode(tiny.samples(4))
    made = policy.generate(inputs, SAMPLING, generator=generator())
    alone = policy.lm_logprobs(made.tokens, made.caption_mask)
    start = torch.tensor(policy.tokenizer("")["input_ids"]).expand(4, -1)
    ids = torch.cat([start, made.tokens], 1)
    expected = policy.language_model(input_ids=ids).logits.log_softmax(-1)[:, start.shape[1] - 1 : -1]
    expected = expected.gather(-1, made.tokens[..., None])[..., 0] * made.caption_mask
    torch.testing.assert_close(alone, expected, **CLOSE)


def test_exported_and_reloaded_is_the_trained_model(policy: Policy, tmp_path) -> None:
    add_adapter(policy, Value(lora_rank=2))
    with torch.no_grad():
        for parameter in policy.trained().values():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator(3)))
    samples = tiny.samples(5)
    policy.save(tmp_path / "out")
    reloaded = type(policy.settings)(path=str(tmp_path / "out")).load(
        device=torch.device("cpu"), dtype=torch.float32
    )
    inputs = policy.encode(samples)
    made = policy.generate(inputs, SAMPLING, generator=generator())
    after = reloaded.logprobs(reloaded.encode(samples), made.tokens, made.caption_mask)
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
