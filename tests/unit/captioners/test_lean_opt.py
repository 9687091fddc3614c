"""OPT by fewer calls: what transformers computes."""

from __future__ import annotations

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from limner.captioners import adapters, lean_opt
from limner.captioners.causal import CachedSteps, CausalLM
from limner.captioners.lean_opt import OptSteps
from limner.captioners.steps import ROOM

VOCABULARY, WIDTH, LENGTH, CAPTIONS, TOKENS = 60, 32, 7, 3, 5
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "word_embed_proj_dim": WIDTH, "ffn_dim": 40,
    "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 128, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "activation_function": "relu",
}  # fmt: skip
KINDS = {
    "usual": {}, "without biases": {"enable_bias": False, "activation_function": "gelu"},
    "norms without weights": {"layer_norm_elementwise_affine": False},
    "no norm at the end": {"_remove_final_layer_norm": True},
}  # fmt: skip


def opt(**changes: object) -> CausalLM:
    """An OPT with random weights, those of norms and biases too, in double precision."""
    torch.manual_seed(0)
    model = OPTForCausalLM(OPTConfig(**{**SHAPE, **changes})).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return CausalLM(model, (2,), 0)


def compare(lm: CausalLM, tokens: torch.Tensor, *, leave: dict[int, list[int]]) -> None:
    """Token by token, with captions that leave, against transformers' forward of whole rows."""
    prefix = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64)
    head = lm.model.get_output_embeddings()
    with torch.no_grad():
        before = torch.cat([prefix.repeat_interleave(CAPTIONS, 0), lm.embed(tokens)], 1)
        expected = lm.model(inputs_embeds=before, use_cache=False).logits[:, LENGTH - 1 :]
        steps, held = OptSteps(lm, prefix, CAPTIONS), torch.arange(len(tokens))
        first = head(steps.states(None)).repeat_interleave(CAPTIONS, 0)
        torch.testing.assert_close(first, expected[:, 0], rtol=1e-9, atol=1e-9)
        for time in range(tokens.shape[1]):
            found = head(steps.states(tokens[held, time]))
            torch.testing.assert_close(found, expected[held, time + 1], rtol=1e-9, atol=1e-9)
            if time in leave:
                steps.keep(torch.tensor(leave[time]))
                held = held[leave[time]]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind: str) -> None:
    lm = opt(**KINDS[kind])
    assert lean_opt.fits(lm.model)
    compare(lm, torch.randint(4, VOCABULARY, (2 * CAPTIONS, TOKENS)), leave={1: [0, 2, 3], 3: [2]})


def test_captions_longer_than_the_room_behind_them_are_too() -> None:
    tokens = torch.randint(4, VOCABULARY, (2 * CAPTIONS, ROOM + 8))
    compare(opt(), tokens, leave={0: [0, 1, 2, 3, 4], ROOM - 2: [1, 4]})


def test_adapters_are_computed_with_the_layers_that_they_are_in() -> None:
    lm = opt()
    adapters.add(lm.model, adapters.POLICY_ADAPTER, layers=["q_proj", "fc1"], rank=2, alpha=4)
    adapters.switch(lm.model, on=(adapters.POLICY_ADAPTER,), trained=adapters.POLICY_ADAPTER)
    lm.model.eval().double()
    for name, parameter in lm.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    assert lean_opt.fits(lm.model)
    compare(lm, torch.randint(4, VOCABULARY, (2 * CAPTIONS, TOKENS)), leave={2: [5]})


def test_logits_are_in_single_precision_and_of_every_caption() -> None:
    lm = opt()
    prefix, tokens = torch.randn(2, LENGTH, WIDTH).double(), torch.arange(4, 4 + 2 * CAPTIONS)
    with torch.no_grad():
        lean, plain = OptSteps(lm, prefix, CAPTIONS), CachedSteps(lm, prefix, CAPTIONS)
        for chosen in (None, tokens):
            found = lean.logits(chosen)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, plain.logits(chosen))


def test_other_models_are_left_to_transformers() -> None:
    half = opt().model.bfloat16()
    training = opt().model.train()
    hooked = opt().model
    hooked.model.decoder.layers[1].register_forward_pre_hook(lambda *_: None)
    after = opt(do_layer_norm_before=False).model
    narrow = opt(word_embed_proj_dim=16).model
    meta = opt().model.to("meta")
    assert not any(map(lean_opt.fits, (half, training, hooked, after, narrow, meta)))
