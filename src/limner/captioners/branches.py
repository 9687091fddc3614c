"""Attention of many captions behind one prefix without a mask: to the prefix, to the own caption, and joined.

A mask over a row of captions hides most of what is computed: a token is compared with the whole row, and sees
the prefix and its own caption. Here it is compared with these two alone, and the parts are joined by the
log-sums of their weights, as in Hydragen (arXiv 2402.05099). The gradient of each part is that of attention
to it with the weights of the whole.

On CPUs only: other devices' kernels do not give the log-sums in one form. There, and for models with other
attention than the plain one, captions that share a row have a mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer

from limner.captioners.packing import Slots

NAME = "limner_branches"
"""What transformers calls this attention."""
FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
NOWHERE = 1e30
"""The log-sum of a place without a token: all of its weights are 0."""
HERE = torch.ones(1, 1, 1, 1, dtype=torch.bool)
"""Stands for a mask, so that models make none."""


class Branch(DynamicLayer):
    """A cache layer that keeps the prefix apart: attention is given the keys of the captions alone."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep nothing of what comes."""
        return key_states, value_states

    @classmethod
    def of(cls, layer: Any) -> Branch:
        """Behind a filled layer."""
        made = cls()
        made.lazy_initialization(layer.keys, layer.values)
        made.keys, made.values = layer.keys, layer.values
        return made


@dataclass(frozen=True)
class Layout:
    """Where the captions of a row are: in slots, W a row, and apart, each with T places of its own."""

    slot: torch.Tensor
    """(N * T,) int64 the slot, of rows * W, that belongs to a place; 0 where there is none."""
    place: torch.Tensor
    """(rows, W) int64 the place of a slot, of N * T; any for slots without token."""
    there: torch.Tensor
    """(N, T) bool, True on places that have a slot."""
    used: torch.Tensor
    """(rows, W) bool, True on slots with a token."""
    hidden: torch.Tensor | None
    """(rows, 1, 1, L) float, 0 on the prefix, minus infinity before a shorter one; None: all see all."""

    @classmethod
    def of(cls, slots: Slots, fed: torch.Tensor, there: torch.Tensor | None) -> Layout:
        """Of captions `fed` (N, T) bool behind prefixes `there` (rows, L) bool; None: no prefix is padded."""
        place = slots.caption * fed.shape[1] + slots.time
        slot = place.new_zeros(fed.numel())
        slot[place[slots.used]] = slots.used.flatten().nonzero()[:, 0]
        hidden = None
        if there is not None:
            hidden = torch.zeros(there.shape).masked_fill(~there, float("-inf"))[:, None, None]
        return cls(slot, place, fed, slots.used, hidden)

    def apart(self, states: torch.Tensor) -> torch.Tensor:
        """(rows, heads, W, ...) in slots -> (N, heads, T, ...); anything where there is no token."""
        heads = states.transpose(1, 2).flatten(0, 1)
        return heads[self.slot].unflatten(0, self.there.shape).transpose(1, 2)

    def together(self, states: torch.Tensor) -> torch.Tensor:
        """(N, heads, T, ...) -> (rows, heads, W, ...); anything in slots without token."""
        return states.transpose(1, 2).flatten(0, 1)[self.place].transpose(1, 2)


class Joined(torch.autograd.Function):
    """Attention of (rows, heads, W, D) queries to a prefix and to the caption of each."""

    @staticmethod
    def forward(
        ctx: Any, query: Any, prefix: Any, behind: Any, key: Any, value: Any, layout: Any, scale: Any
    ):
        """(rows, heads, W, D); keys and values may have fewer heads.

        Args:
            ctx: torch's.
            query: (rows, heads, W, D).
            prefix: (rows, fewer heads, L, D) keys.
            behind: (rows, fewer heads, L, D) values.
            key: (rows, fewer heads, W, D).
            value: (rows, fewer heads, W, D).
            layout: Layout.
            scale: of products.
        """
        shape, shared = query.shape, prefix.shape[1]
        asked = query.reshape(shape[0], shared, -1, shape[3])  # heads that share keys, one after another
        first, first_sum = FORWARD(asked, prefix, behind, attn_mask=_mask(layout, asked), scale=scale)
        own = [_heads(layout.apart(t), shape[1]) for t in (query, key, value)]
        second, second_sum = (layout.together(t) for t in FORWARD(*own, is_causal=True, scale=scale))
        first, first_sum = first.reshape(shape), first_sum.reshape(shape[:3])
        total = torch.logaddexp(first_sum, second_sum)
        share = (second_sum - total).exp()[..., None]
        out = torch.lerp(first, second, share.to(first.dtype))
        ctx.save_for_backward(query, prefix, behind, key, value, out, total)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Of the queries, keys and values."""
        query, prefix, behind, key, value, out, total = ctx.saved_tensors
        layout, (grad,) = ctx.layout, grads
        shape, shared = query.shape, prefix.shape[1]
        asked, seen, back = (t.reshape(shape[0], shared, -1, shape[3]) for t in (query, out, grad))
        of_query, of_prefix, of_behind = BACKWARD(
            back.contiguous(), asked, prefix, behind, seen, total.reshape(asked.shape[:3]), 0.0, False,
            attn_mask=_mask(layout, asked), scale=ctx.scale,
        )  # fmt: skip
        there = layout.there[:, None]
        own = [_heads(layout.apart(t), shape[1]) for t in (query, key, value)]
        sums = layout.apart(total).masked_fill(~there, NOWHERE)
        back = layout.apart(grad).masked_fill(~there[..., None], 0)
        found = BACKWARD(back, *own, layout.apart(out), sums, 0.0, True, scale=ctx.scale)
        used = layout.used[:, None, :, None]
        mine, of_key, of_value = (layout.together(t).masked_fill(~used, 0) for t in found)
        of_query = of_query.reshape(shape) + mine
        return of_query, of_prefix, of_behind, _summed(of_key, shared), _summed(of_value, shared), None, None


def _mask(layout: Layout, asked: torch.Tensor) -> torch.Tensor | None:
    return None if layout.hidden is None else layout.hidden.to(asked.dtype)


def _heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys of fewer heads for each head that reads them."""
    times = heads // states.shape[1]
    return states if times == 1 else states.repeat_interleave(times, 1)


def _summed(grad: torch.Tensor, shared: int) -> torch.Tensor:
    """Gradients of all heads that read the same keys, added."""
    return grad if grad.shape[1] == shared else grad.unflatten(1, (shared, -1)).sum(2)


_current: ContextVar[tuple[Cache, Layout]] = ContextVar("branches")


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer: (rows, W, heads, D), and no weights."""
    cache, layout = _current.get()
    layer: Any = cache.layers[module.layer_idx]
    given = (query, layer.keys, layer.values, key, value)
    if torch.is_autocast_enabled(query.device.type):
        given = tuple(tensor.to(torch.get_autocast_dtype(query.device.type)) for tensor in given)
    out: Any = Joined.apply(*given, layout, scaling)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attention)


@contextmanager
def behind(config: Any, cache: Cache, layout: Layout) -> Iterator[Cache]:
    """The language model of this config attends in branches inside; give it the cache that comes out."""
    branches = Cache(layers=[Branch.of(layer) for layer in cache.layers])
    usual, token = config._attn_implementation, _current.set((branches, layout))
    config._attn_implementation = NAME
    try:
        yield branches
    finally:
        config._attn_implementation = usual
        _current.reset(token)
