"""Language models of Llama's kind behind a prefix, computed with fewer calls than by their own code.

Small passes cost calls and memory traffic, not operations. Here prefixes and captions go through the layers
side by side, only tokens that are there; captions attend to their prefix in one product and to themselves in
another, so that no mask is made and no keys are copied. Projections, norms and MLPs are the model's modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_outputs import BaseModelOutputWithPast

from limner.captioners.lean_attention import Attended, Grid, Pair

if TYPE_CHECKING:
    from limner.captioners.prefix_inputs import Prefix
    from limner.captioners.tree import PrefixedLM

LAYERS = (
    "LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer",
    "Qwen2VLDecoderLayer", "Qwen2_5_VLDecoderLayer", "Qwen3VLTextDecoderLayer",
)  # fmt: skip
"""Classes of transformers whose forward is what is computed here; a test compares each of them."""
SCORES = 8
"""Attention scores of a token that may be kept for the way back, in numbers of a hidden state."""


def fits(text: Any) -> bool:
    """Whether a text model is computed here: its class, single precision at least, and nothing put around it.

    What shards or offloads weights does so by hooks on modules, or by parameters of its own kind.
    """
    rotary = getattr(text, "rotary_emb", None)
    return (
        not text.training
        # These turn by other angles once there are positions beyond a limit.
        and getattr(rotary, "rope_type", "dynamic") not in ("dynamic", "longrope")
        and all(
            type(layer).__name__ in LAYERS and type(layer).__module__.startswith("transformers.models.")
            for layer in getattr(text, "layers", (None,))
        )
        and all(type(p) is nn.Parameter and p.dtype.itemsize >= 4 for p in text.parameters())
        and not any(module._forward_hooks or module._forward_pre_hooks for module in text.modules())
        and not torch.is_autocast_enabled(text.device.type)
    )


def few_scores(text: Any, positions: int) -> bool:
    """Whether tokens that see so many positions may keep their attention scores."""
    return text.config.num_attention_heads * positions <= SCORES * text.config.hidden_size


def states(lm: PrefixedLM, prefix: Prefix, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
    """(N, T, H) hidden states that predict each of the (N, T) tokens; 0 where the mask is False."""
    embeds, deep = embedded(lm, prefix)
    captions = len(tokens) // len(embeds)
    out = embeds.new_zeros(*tokens.shape, embeds.shape[-1])
    fed = caption_mask[:, 1:]  # a token is fed where one after it is to be predicted
    if not fed.shape[1]:
        out[:, 0] = _through(lm.text, prefix, embeds, deep, None)[0].repeat_interleave(captions, 0)
        return out
    caption, time = fed.nonzero(as_tuple=True)
    whole = len(caption) == fed.numel()
    grid = Grid((len(embeds), captions, fed.shape[1]), None if whole else caption * fed.shape[1] + time)
    chosen, positions = tokens[caption, time], prefix.after[caption // captions] + time
    last, hidden, _ = _through(lm.text, prefix, embeds, deep, (chosen, positions, grid))
    out[:, 0] = last.repeat_interleave(captions, 0)
    return out.index_put((caption, time + 1), hidden)


def prefilled(lm: PrefixedLM, prefix: Prefix) -> tuple[torch.Tensor, list[Pair]]:
    """(B, H) the hidden states that predict the first tokens; (B, K, L, D) keys and values of each layer."""
    last, _, held = _through(lm.text, prefix, *embedded(lm, prefix), None)
    return last, held


def embedded(lm: PrefixedLM, prefix: Prefix) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(B, L, H) what the language model reads of a prefix, and what it adds to it on the way.

    The latter is (B * L, H) behind each of its first layers (Qwen3-VL), or nothing.
    """
    found: dict[str, Any] = {}

    def read(*, inputs_embeds: torch.Tensor, **given: Any) -> BaseModelOutputWithPast:
        found.update(given)
        return BaseModelOutputWithPast(last_hidden_state=inputs_embeds)  # pyright: ignore

    lm.text.forward = read
    try:
        embeds = lm.core(**lm.prompt(prefix), use_cache=False).last_hidden_state
    finally:
        del lm.text.forward
    deep = found.get("deepstack_visual_embeds") or ()
    where = found["visual_pos_masks"][..., None] if deep else torch.empty(0)
    return embeds, [torch.zeros_like(embeds).masked_scatter(where, level).flatten(0, 1) for level in deep]


def _through(
    text: Any, prefix: Prefix, embeds: torch.Tensor, deep: Sequence[torch.Tensor],
    behind: tuple[torch.Tensor, torch.Tensor, Grid] | None,
) -> tuple[torch.Tensor, torch.Tensor, list[Pair]]:  # fmt: skip
    """(B, H) last hidden state of each prefix, (M, H) those of the tokens behind them; and keys and values.

    Args:
        text: the text model.
        prefix: B prefixes.
        embeds: what is read of them.
        deep: what is added to them.
        behind: (M,) tokens, (M,) their positions, and where they stand.
    """
    rows, length = prefix.ids.shape
    hidden, places = embeds.flatten(0, 1), prefix.positions.flatten(1)
    if behind is not None:
        hidden = torch.cat([hidden, text.embed_tokens(behind[0])])
        places = torch.cat([places, behind[1].expand(len(places), -1)], 1)
    places = places if len(places) == 1 else places[:, None]
    turn = [turn[0, :, None] for turn in text.rotary_emb(hidden[None], places)]
    seen, before = _seen(prefix, hidden.dtype)
    held: list[Pair] = []
    for number, layer in enumerate(text.layers):
        attention, normal = layer.self_attn, layer.input_layernorm(hidden)
        query, key, value = (
            projection(normal).unflatten(-1, (-1, attention.head_dim))
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        query, key = turned(query, *turn), turned(key, *turn)
        # Parted by one call: the way back joins both parts then, and adds no zeros.
        both = [x.split([rows * length, len(x) - rows * length]) for x in (query, key, value)]
        prompt = [x.unflatten(0, (rows, length)).transpose(1, 2) for x, _ in both]
        held.append((prompt[1], prompt[2]))
        if layer is text.layers[-1] and number >= len(deep):  # only the last position of a prefix is read
            first, rest = hidden.split([rows * length, len(hidden) - rows * length])
            hidden = torch.cat([first[length - 1 :: length], rest])
            prompt[0], seen = prompt[0][:, :, -1:], None if seen is None else seen[:, :, -1:]
        read = scaled_dot_product_attention(
            *prompt, attn_mask=seen, is_causal=seen is None and prompt[0].shape[2] > 1,
            scale=attention.scaling, enable_gqa=prompt[0].shape[1] != prompt[1].shape[1],
        )  # fmt: skip
        read = read.transpose(1, 2).flatten(2).flatten(0, 1)
        if behind is not None:
            own = Attended.apply(*(x for _, x in both), *held[-1], behind[2], before, attention.scaling)
            read = torch.cat([read, own.flatten(1)])
        hidden = hidden + attention.o_proj(read)
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        if number < len(deep):
            hidden = torch.cat([hidden[: rows * length] + deep[number], hidden[rows * length :]])
    last, hidden = text.norm(hidden).tensor_split([len(hidden) - (0 if behind is None else len(behind[0]))])
    return last.unflatten(0, (rows, -1))[:, -1], hidden, held


def _seen(prefix: Prefix, dtype: torch.dtype) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """What prefix tokens see of each other, (B, 1, L, L) bool, and what is added to scores of captions.

    The latter is (B, L), minus infinity on padding. None and None where no row is padded.
    """
    if prefix.there is None:
        return None, None
    length = prefix.there.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=prefix.there.device).tril_()
    itself = torch.eye(length, dtype=torch.bool, device=prefix.there.device)  # padding sees something too
    before = torch.zeros(prefix.there.shape, dtype=dtype, device=prefix.there.device)
    before.masked_fill_(~prefix.there, -torch.inf)
    return (earlier & prefix.there[:, None] | itself)[:, None], before


def turned(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(M, heads, D) with rotary positions."""
    first, second = states.chunk(2, -1)
    return torch.addcmul(states * cos, torch.cat([-second, first], -1), sin)
