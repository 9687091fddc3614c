"""Language models of Llama's kind by fewer calls: what transformers computes, for every class claimed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

import tiny_vl
from limner import captioners
from limner.captioners import lean, lean_steps
from limner.captioners.lean_attention import Attended, Grid
from limner.captioners.lean_steps import LeanSteps
from limner.captioners.prefix_inputs import Prefix
from limner.captioners.prefixed import PrefixedPolicy
from limner.captioners.tree import PrefixedLM

VOCABULARY, LENGTH, CAPTIONS, TOKENS = 60, 7, 3, 5
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
TEXTS: dict[str, PreTrainedConfig] = {
    "LlamaDecoderLayer": LlamaConfig(
        **SHAPE, head_dim=12, attention_bias=True, mlp_bias=True, hidden_act="gelu"
    ),
    "MistralDecoderLayer": MistralConfig(**SHAPE, sliding_window=None),
    "Qwen2DecoderLayer": Qwen2Config(**SHAPE),
    "Qwen3DecoderLayer": Qwen3Config(**SHAPE, head_dim=12),
}
"""Language models that a LLaVA may have; those of Qwen-VL have checkpoints of their own."""
QWEN = {
    "Qwen2VLDecoderLayer": tiny_vl.qwen2_vl,
    "Qwen2_5_VLDecoderLayer": tiny_vl.qwen2_5_vl,
    "Qwen3VLTextDecoderLayer": tiny_vl.qwen3_vl,
}


def llava(text: PreTrainedConfig) -> PrefixedLM:
    """A LLaVA with random weights, those of norms and biases too, in double precision."""
    config = tiny_vl.LlavaConfig(
        vision_config=tiny_vl.CLIPVisionConfig(**tiny_vl._siglip()),
        text_config=text.to_dict(),
        image_token_index=3,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval().double()
    with torch.no_grad():
        for parameter in model.model.language_model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return PrefixedLM(model, lambda prefix: None, (2,), 0)


def loaded(folder: Path, *train: str) -> PrefixedPolicy:
    policy = captioners.load(str(folder), train=train, prompt="a", device="cpu")
    assert isinstance(policy, PrefixedPolicy)
    return policy


def prefixes(lm: PrefixedLM, *lengths: int) -> Prefix:
    """Made-up words of several lengths, padded on the left."""
    ids = torch.randint(4, VOCABULARY, (len(lengths), max(lengths)))
    there = torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]
    positions = (there.long().cumsum(1) - 1).clamp(min=0)
    whole = bool(there.all())
    return Prefix(
        ids.masked_fill(~there, 0), None if whole else there, positions.expand(lm.axes, -1, -1), {}, {}
    )


def plain(lm: PrefixedLM, prefix: Prefix, row: int, caption: torch.Tensor) -> torch.Tensor:
    """(T, V) logits by the model's own forward, one caption at a time."""
    ids = prefix.ids[row] if prefix.there is None else prefix.ids[row][prefix.there[row]]
    return lm.model(input_ids=torch.cat([ids, caption])[None]).logits[0, len(ids) - 1 : -1]


def test_every_class_that_is_claimed_is_compared() -> None:
    assert set(TEXTS) | set(QWEN) == set(lean.LAYERS)


@pytest.mark.parametrize("lengths", [(LENGTH, LENGTH), (LENGTH, 4)], ids=["even", "padded"])
@pytest.mark.parametrize("name", [*TEXTS, *QWEN])
def test_logits_are_those_of_transformers(name: str, lengths: tuple[int, int], tmp_path: Path) -> None:
    """Of captions that are there, all at once and token by token, with captions that leave."""
    lm = llava(TEXTS[name]) if name in TEXTS else loaded(QWEN[name](tmp_path)).double().lm
    assert {type(layer).__name__ for layer in lm.text.layers} == {name}
    assert lean.fits(lm.text)
    assert lean_steps.bare(lm.text)
    torch.manual_seed(1)
    prefix = prefixes(lm, *lengths)
    tokens = torch.randint(4, VOCABULARY, (2 * CAPTIONS, TOKENS))
    mask = torch.arange(TOKENS) < torch.tensor([5, 2, 4, 1, 3, 5])[:, None]
    with torch.no_grad():
        expected = torch.stack(
            [plain(lm, prefix, row // CAPTIONS, tokens[row]) for row in range(len(tokens))]
        )
        found = lm.model.get_output_embeddings()(lean.states(lm, prefix, tokens, mask))
        torch.testing.assert_close(found[mask], expected[mask], rtol=1e-9, atol=1e-9)
        steps = LeanSteps(lm, prefix, CAPTIONS)
        held = torch.arange(len(tokens))
        for time in range(TOKENS):
            logits = steps.logits(tokens[held, time - 1] if time else None)
            # The output layer's numbers go on in float32.
            torch.testing.assert_close(logits, expected[held, time].float(), rtol=1e-5, atol=1e-5)
            if time in (1, 3):
                keep = torch.tensor([0, 2, 3] if time == 1 else [2])
                steps.keep(keep)
                held = held[keep]


@pytest.mark.parametrize("lengths", [(LENGTH, LENGTH), (LENGTH, 4)], ids=["even", "padded"])
@pytest.mark.parametrize("name", TEXTS)
def test_gradients_are_those_of_transformers(name: str, lengths: tuple[int, int]) -> None:
    """Of captions of several lengths, one of them too short to be fed; of every weight."""
    lm = llava(TEXTS[name])
    torch.manual_seed(1)
    prefix = prefixes(lm, *lengths)
    tokens = torch.randint(4, VOCABULARY, (2 * CAPTIONS, TOKENS))
    mask = torch.arange(TOKENS) < torch.tensor([5, 2, 4, 1, 3, 5])[:, None]
    head, weights = lm.model.get_output_embeddings(), torch.randn(int(mask.sum()), VOCABULARY).double()

    def gradients(logits: torch.Tensor) -> dict[str, torch.Tensor]:
        lm.model.zero_grad()
        (logits * weights).sum().backward()
        return {n: p.grad.clone() for n, p in lm.model.named_parameters() if p.grad is not None}

    rows = [plain(lm, prefix, row // CAPTIONS, tokens[row]) for row in range(len(tokens))]
    expected = gradients(torch.stack(rows)[mask])
    found = gradients(head(lean.states(lm, prefix, tokens, mask))[mask])
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        # Norms are computed in float32 whatever the model's precision.
        torch.testing.assert_close(gradient, expected[key], rtol=1e-5, atol=1e-5, msg=key)


@pytest.mark.parametrize("padded", [False, True], ids=["even", "padded"])
@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "ragged"])
def test_attention_has_the_gradient_of_what_it_computes(ragged: bool, padded: bool) -> None:
    torch.manual_seed(0)
    place = torch.tensor([0, 1, 2, 3, 5, 6, 7, 11]) if ragged else None
    grid, count = Grid((2, 2, 3), place), 8 if ragged else 12
    shapes = [(count, 4, 2), (count, 2, 2), (count, 2, 2), (2, 2, 5, 2), (2, 2, 5, 2)]
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    before = None
    if padded:
        before = torch.zeros(2, 5, dtype=torch.float64)
        before[1, :3] = -torch.inf
    assert torch.autograd.gradcheck(
        lambda *states: Attended.apply(*states, grid, before, 0.7), given, fast_mode=True
    )


def test_captions_of_one_token() -> None:
    lm = llava(TEXTS["Qwen2DecoderLayer"])
    prefix, tokens = prefixes(lm, LENGTH, 4), torch.randint(4, VOCABULARY, (4, 1))
    found = lean.states(lm, prefix, tokens, torch.ones(4, 1, dtype=torch.bool))
    expected = torch.stack([plain(lm, prefix, row // 2, tokens[row]) for row in range(4)])
    torch.testing.assert_close(lm.model.get_output_embeddings()(found), expected, rtol=1e-9, atol=1e-9)


def test_many_weights_are_not_copied_into_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = llava(TEXTS["LlamaDecoderLayer"])
    prefix, chosen = prefixes(lm, LENGTH, 4), torch.randint(4, VOCABULARY, (4,))
    with torch.no_grad():
        joined = LeanSteps(lm, prefix, 2)
        monkeypatch.setattr(lean_steps, "JOINED", 0)
        single = LeanSteps(lm, prefix, 2)
        assert [len(steps.layers[0].read) for steps in (joined, single)] == [1, 3]
        torch.testing.assert_close(joined.logits(chosen), single.logits(chosen))


def test_more_steps_than_there_is_room_for_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_steps, "ROOM", 2)
    lm = llava(TEXTS["Qwen2DecoderLayer"])
    prefix, tokens = prefixes(lm, LENGTH), torch.randint(4, VOCABULARY, (2, 12))
    with torch.no_grad():
        steps = LeanSteps(lm, prefix, 2)
        logits = steps.logits(None)
        for time in range(11):
            logits = steps.logits(tokens[:, time])
        expected = torch.stack([plain(lm, prefix, 0, caption)[-1] for caption in tokens])
    torch.testing.assert_close(logits, expected.float(), rtol=1e-5, atol=1e-5)


def test_what_is_not_computed_here() -> None:
    def text(**settings: Any) -> Any:
        return llava(LlamaConfig(**SHAPE, **settings)).text

    assert lean.fits(text())
    assert not lean.fits(text().train()), "dropout"
    assert not lean.fits(text().to(torch.bfloat16)), "half precision"
    assert not lean.fits(text(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}))
    hooked = text()
    hooked.layers[0].register_forward_pre_hook(lambda *_: None)
    assert not lean.fits(hooked)
    with torch.autocast("cpu", torch.bfloat16):
        assert not lean.fits(text())
    windows = llava(MistralConfig(**SHAPE, sliding_window=4))
    assert windows.packs()
    assert not windows.leans()


def test_adapters_are_trained_but_do_not_grow_captions_here(tmp_path: Path) -> None:
    lm = loaded(tiny_vl.llava(tmp_path), "lora(q,v)").lm
    assert lm.leans()
    assert not lean_steps.bare(lm.text)


def test_many_positions_have_too_many_scores_to_keep() -> None:
    text = llava(LlamaConfig(**SHAPE)).text
    assert lean.few_scores(text, 64)
    assert not lean.few_scores(text, 65)
