"""OPT behind a prefix, one token a caption at a time, with fewer calls than by transformers' own code.

Keys and values have room behind them, so that a step writes its own and copies no others; no mask and no
positions are made, because no row is padded; and of the last layer only the last position of a prefix is
computed. Projections and norms are the model's modules, adapters in them included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from limner.captioners.steps import ROOM

if TYPE_CHECKING:
    from limner.captioners.causal import CausalLM


def fits(model: Any) -> bool:
    """Whether a language model is computed here: OPT of the usual kind, in single precision at least.

    What shards or offloads weights does so by hooks on modules, or by parameters of its own kind.
    """
    decoder = model.get_decoder()
    return (
        type(decoder).__module__ == "transformers.models.opt.modeling_opt"
        and decoder.config.do_layer_norm_before
        and decoder.project_in is None  # nor is anything projected at the end then
        and not model.training
        and all(
            type(p) is nn.Parameter and p.dtype.itemsize >= 4 and not p.is_meta for p in model.parameters()
        )
        and not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        and not torch.is_autocast_enabled(model.device.type)
    )


class Layer:
    """A layer with the keys and values of what it has read, and room behind them."""

    def __init__(self, layer: Any):
        """Nothing is read yet."""
        attention = layer.self_attn
        self.norms = layer.self_attn_layer_norm, layer.final_layer_norm
        self.projections = attention.q_proj, attention.k_proj, attention.v_proj
        self.out, self.widen, self.act, self.narrow = (
            attention.out_proj, layer.fc1, layer.activation_fn, layer.fc2
        )  # fmt: skip
        self.heads, self.scaling = attention.num_heads, attention.scaling
        self.held = torch.empty(0)
        """(2, rows, heads, positions and room, D)."""
        self.length = 0

    def read(self, hidden: torch.Tensor, *, last: bool) -> torch.Tensor:
        """(rows, P or 1, H) what becomes of prefixes (rows, P, H); their last position alone if `last`."""
        query, key, value = self._projected(hidden)
        self.held, self.length = torch.stack([key, value]), key.shape[2]
        if last:
            query, hidden = query[:, :, -1:], hidden[:, -1:]
        read = scaled_dot_product_attention(
            query, key, value, is_causal=query.shape[2] > 1, scale=self.scaling
        )
        return self._after(hidden, read)

    def step(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, 1, H) what becomes of one token a row, behind all that was read."""
        query, key, value = self._projected(hidden)
        before, self.length = self.length, self.length + 1
        if self.held.shape[3] < self.length:
            shape = (*self.held.shape[:3], max(ROOM, before // 2), self.held.shape[4])
            self.held = torch.cat([self.held, self.held.new_empty(shape)], 3)
        self.held[0, :, :, before : self.length] = key
        self.held[1, :, :, before : self.length] = value
        keys, values = self.held[:, :, :, : self.length]
        return self._after(hidden, scaled_dot_product_attention(query, keys, values, scale=self.scaling))

    def take(self, rows: torch.Tensor) -> None:
        """Go on with these rows (int64 indices)."""
        self.held = self.held[:, rows, :, : self.length]

    def repeat(self, times: int) -> None:
        """Every row so many times."""
        self.held = self.held.repeat_interleave(times, 1)

    def _projected(self, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Queries, keys and values (rows, heads, T, D)."""
        normal = self.norms[0](hidden)
        shape = (*hidden.shape[:2], self.heads, -1)
        return [projection(normal).view(shape).transpose(1, 2) for projection in self.projections]

    def _after(self, hidden: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """Hidden states (rows, T, H) with what they read, (rows, heads, T, D), and what comes of it."""
        hidden = hidden + self.out(read.transpose(1, 2).flatten(2))
        return hidden + self.narrow(self.act(self.widen(self.norms[1](hidden))))


class OptSteps:
    """Logits of the next token of every growing caption, for models that `fits`."""

    def __init__(self, lm: CausalLM, prefix: torch.Tensor, captions: int):
        """Prefill the prefix (B, P, H), once for `captions` captions a row."""
        self.lm, self.captions = lm, captions
        self.decoder: Any = lm.model.get_decoder()
        places = self.decoder.embed_positions
        self.places, self.next = places.weight[places.offset :], prefix.shape[1]
        self.layers = [Layer(layer) for layer in self.decoder.layers]
        hidden = prefix + self.places[: self.next]
        for layer in self.layers:
            hidden = layer.read(hidden, last=layer is self.layers[-1])
        self.last = hidden
        if captions > 1:
            for layer in self.layers:
                layer.repeat(captions)

    def logits(self, chosen: torch.Tensor | None) -> torch.Tensor:
        """(rows, V) float32 after the tokens (rows,) chosen last; None before the first."""
        out = self.lm.model.get_output_embeddings()(self.states(chosen)).float()
        return out.repeat_interleave(self.captions, 0) if chosen is None else out

    def states(self, chosen: torch.Tensor | None) -> torch.Tensor:
        """(rows, H) hidden states that predict the next tokens; None: (B, H) those of the first."""
        hidden = self.last
        if chosen is not None:
            hidden = self.lm.embed(chosen[:, None]) + self.places[self.next]
            self.next += 1
            for layer in self.layers:
                hidden = layer.step(hidden)
        norm = self.decoder.final_layer_norm
        return hidden[:, -1] if norm is None else norm(hidden[:, -1])

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        for layer in self.layers:
            layer.take(rows)
