"""Sizes that VLRM publishes (arXiv 2404.01911, figure 2 and section 4.2).

Counted at the shapes of BLIP-2 OPT-2.7B on the meta device, where nothing has weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import nn
from transformers import Blip2Config, Blip2ForConditionalGeneration, OPTConfig

from limner import config
from limner.advantages.base import Value
from limner.captioners.base import is_adapter
from limner.captioners.blip2 import Blip2Policy, Captioner
from limner.critic import add_adapter, value_head


def count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@pytest.fixture(scope="module")
def policy() -> Blip2Policy:
    """BLIP-2 OPT-2.7B on the meta device: the defaults of transformers are its ViT-g and Q-Former."""
    language = OPTConfig(
        vocab_size=50304,
        hidden_size=2560,
        word_embed_proj_dim=2560,
        ffn_dim=10240,
        num_hidden_layers=32,
        num_attention_heads=32,
    )
    with torch.device("meta"):
        model = Blip2ForConditionalGeneration(Blip2Config(text_config=language, num_query_tokens=32))
    return Blip2Policy(Captioner(path="meta"), model, tokenizer=None, processor=None)


def test_the_policy_trains_107_million_parameters(policy: Blip2Policy) -> None:
    assert count(policy.trained().values()) == 107_130_880
    assert count(policy.vision.parameters()) == 985_952_256
    assert count(policy.language_model.parameters()) == 2_651_678_720


def test_the_value_head_has_275_million_parameters(policy: Blip2Policy) -> None:
    with torch.device("meta"):
        head = value_head(policy.hidden_size, Value().head)
        other = value_head(policy.hidden_size, (6, 6))
    assert Value().head == (2, 4, 8)
    assert count(head.parameters()) == 275_307_521
    assert count(other.parameters()) == 275_297_281, "another shape of the published size"


def test_the_published_recipe_has_these_sizes(policy: Blip2Policy) -> None:
    recipe = config.load("vlrm", ["data.path=photographs"])
    assert recipe.captioner.train == policy.settings.train
    assert recipe.advantage.value == Value()


def test_lora_has_six_million_parameters_and_adds_none_to_the_policy(policy: Blip2Policy) -> None:
    with torch.device("meta"):
        adapter = add_adapter(policy, Value())
    linears = 4 * (2560 + 2560) + 2 * (2560 + 10240)
    assert count(adapter.values()) == 32 * 4 * linears == 5_898_240
    assert len(adapter) == 32 * 6 * 2
    assert count(policy.trained().values()) == 107_130_880
    assert not any(is_adapter(name) for name in policy.trained())
