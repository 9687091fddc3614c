"""Language models of Llama's kind, one token a caption at a time, with fewer calls than by their own code.

Hidden states stand in columns here: in a product of the weights with them, threads share out the weights,
which are most of what has to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from limner.captioners import lean
from limner.captioners.steps import PROMPT, ROOM, SharedSteps

if TYPE_CHECKING:
    from limner.captioners.prefix_inputs import Prefix
    from limner.captioners.tree import PrefixedLM

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
JOINED = 1 << 20
"""So many weights of queries, keys and values are copied into one product; of more, a call is the least."""


def bare(text: Any) -> bool:
    """Whether the layers of a text model that `lean.fits` hold no adapters."""
    return all(
        type(module) is nn.Linear
        for name, module in text.layers.named_modules()
        if name.rpartition(".")[2] in PROJECTIONS
    )


class Norm:
    """A root mean square of 1, times a weight."""

    def __init__(self, norm: Any):
        """With a norm of transformers."""
        size = len(norm.weight)
        self.weight = norm.weight[:, None] * size**0.5
        self.least = torch.tensor((norm.variance_epsilon * size) ** 0.5, device=norm.weight.device)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(..., H, M), over H."""
        length = torch.linalg.vector_norm(states, dim=-2, keepdim=True)
        return (states / torch.hypot(length, self.least)).mul_(self.weight)


class Product:
    """A linear layer of (in, M)."""

    def __init__(self, *projections: nn.Linear):
        """With a layer of transformers, or with several of the same states, whose outputs follow."""
        self.weight, bias = projections[0].weight, projections[0].bias
        if len(projections) > 1:
            self.weight = torch.cat([projection.weight for projection in projections])
            bias = None if bias is None else torch.cat([projection.bias for projection in projections])
        self.bias = None if bias is None else bias[:, None]

    def __call__(self, states: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """(out, M)."""
        if self.bias is None:
            return torch.mm(self.weight, states, out=out)
        return torch.addmm(self.bias, self.weight, states, out=out)

    def add(self, hidden: torch.Tensor, states: torch.Tensor) -> None:
        """Add it to (out, M)."""
        hidden.addmm_(self.weight, states)
        if self.bias is not None:
            hidden.add_(self.bias)


class Layer:
    """A layer with the keys and values of what it has read, and room behind them.

    Its parts stand here as they are: a step has too little to do for looking them up in modules.
    """

    def __init__(self, layer: Any, keys: torch.Tensor, values: torch.Tensor):
        """Begin with keys and values (rows, K, S, D)."""
        attention, mlp = layer.self_attn, layer.mlp
        self.norms = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
        read = [getattr(attention, name) for name in PROJECTIONS[:3]]
        few = sum(projection.weight.numel() for projection in read) <= JOINED
        self.read = [Product(*read)] if few else [Product(projection) for projection in read]
        self.sizes = [len(product.weight) for product in self.read]
        self.write = Product(attention.o_proj)
        self.gate, self.up, self.down = (Product(getattr(mlp, name)) for name in PROJECTIONS[4:])
        self.act, self.scaling, self.size = mlp.act_fn, attention.scaling, attention.head_dim
        turning = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
        self.turning = tuple(Norm(norm) for norm in turning if norm is not None)
        self.held = torch.stack([keys, values])
        """(2, rows, K, S and room, D)."""
        self.length = keys.shape[2]

    def __call__(
        self, hidden: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], unseen: torch.Tensor
    ) -> None:
        """Change hidden states (H, rows * W) of W tokens a row behind what there is, which grows by them.

        Args:
            hidden: columns.
            turn: (D, rows * W) cosines and sines; the first half of the sines is negative.
            unseen: (rows * K, R * W, S) what is added to scores, of positions before and of the tokens
                themselves.
        """
        self.write.add(hidden, self._attended(self.norms[0](hidden), turn, unseen))
        normal = self.norms[1](hidden)
        self.down.add(hidden, self.act(self.gate(normal)) * self.up(normal))

    def _attended(
        self, states: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], unseen: torch.Tensor
    ) -> torch.Tensor:
        """(heads * D, rows * W) what tokens read."""
        _, rows, keys, _, _ = self.held.shape
        width = states.shape[1] // rows
        made = states.new_empty(sum(self.sizes), states.shape[1])
        for product, part in zip(self.read, made.split(self.sizes), strict=True):
            product(states, out=part)
        made = made.view(-1, self.size, rows * width)
        turning = made[:-keys]
        if self.turning:
            parts = turning.split([len(turning) - keys, keys])
            turning = torch.cat([norm(part) for norm, part in zip(self.turning, parts, strict=True)])
        torch.addcmul(turning * turn[0], turning.roll(self.size // 2, 1), turn[1], out=made[:-keys])
        made = made.view(-1, self.size, rows, width)
        held = self._put(made[-2 * keys :].view(2, keys, self.size, rows, width))
        query = made[: -2 * keys].view(keys, -1, self.size, rows, width).permute(3, 0, 1, 4, 2)
        query = query.reshape(rows * keys, -1, self.size)
        shares = torch.baddbmm(unseen, query, held[0].mT, alpha=self.scaling).softmax(-1)
        read = torch.bmm(shares, held[1])
        read = read.view(rows, keys, -1, width, self.size).permute(1, 2, 4, 0, 3)
        return read.reshape(-1, rows * width)

    def _put(self, states: torch.Tensor) -> torch.Tensor:
        """Take up keys and values of a step, (2, K, D, rows, W); returns all, (2, rows * K, S, D)."""
        before, self.length = self.length, self.length + states.shape[-1]
        if self.held.shape[3] < self.length:
            shape = (*self.held.shape[:3], max(ROOM, self.length // 2), self.size)
            self.held = torch.cat([self.held, self.held.new_empty(shape)], 3)
        self.held[:, :, :, before : self.length] = states.permute(0, 3, 1, 4, 2)
        return self.held.flatten(1, 2)[:, :, : self.length]

    def take(self, rows: torch.Tensor, order: torch.Tensor) -> None:
        """Go on with these rows (int64 indices), and of each its positions `order` (rows, positions)."""
        self.held = self.held.transpose(2, 3)[:, rows[:, None], order].transpose(2, 3).contiguous()
        self.length = order.shape[1]


class LeanSteps(SharedSteps):
    """Captions that share a row behind their prefix, for models that `lean.fits` and that are `bare`."""

    def __init__(self, lm: PrefixedLM, prefix: Prefix, captions: int):
        """Prefill B prefixes, once for `captions` captions each."""
        super().__init__(lm, prefix, captions)
        self._begin()

    def prefill(self, prefix: Prefix) -> torch.Tensor:
        """(B, H) the hidden states that predict the first tokens."""
        last, held = lean.prefilled(self.lm, prefix)
        self.layers = [Layer(layer, *pair) for layer, pair in zip(self.lm.text.layers, held, strict=True)]
        self.norm = Norm(self.lm.text.norm)
        return last

    def _begin(self) -> None:
        """Make what stays the same until captions leave."""
        text, rows, width = self.lm.text, *self.number.shape
        self.whole = len(self.slot) == rows * width
        seen = (self.owner[:, None] == self.number[..., None]) | (self.owner == PROMPT)[:, None]
        self.unseen = self._hidden(~seen)
        """(rows * K, R * W, S) what is added to scores."""
        self.others = self._hidden(self.number[:, None] != self.number[..., None])
        """(rows * K, R * W, W) the same for the tokens of a step."""
        later = torch.arange(ROOM, device=self.next.device)
        positions = (later[:, None, None] + self.next[:, None]).expand(-1, -1, width).flatten(1)
        some = text.embed_tokens.weight[:1]
        turns = (
            turn[0].view(ROOM, rows * width, -1).mT
            for turn in text.rotary_emb(some, positions.reshape(1, -1))
        )
        cos, sin = (turn.contiguous() for turn in turns)
        sin[:, : sin.shape[1] // 2].neg_()
        self.turns = list(zip(cos, sin, strict=True))[::-1]
        """(D, rows * W) cosines and sines of the next steps, the last of them first."""

    def logits(self, chosen: torch.Tensor | None) -> torch.Tensor:
        """(lines, V) float32 after the tokens (lines,) chosen last; None before the first."""
        if chosen is None:
            return super().logits(None)
        if not self.turns:
            self._begin()
        rows, width = self.number.shape
        if not self.whole:
            chosen = chosen.new_full((rows * width,), self.lm.pad_id).index_copy_(0, self.slot, chosen)
        self.owner = torch.cat([self.owner, self.number], 1)
        self.place = torch.cat([self.place, self.place.new_full((rows, width), self.end)], 1)
        self.unseen = torch.cat([self.unseen, self.others], 2)
        hidden = self.lm.text.embed_tokens(chosen).t().contiguous()
        turn = self.turns.pop()
        for layer in self.layers:
            layer(hidden, turn, self.unseen)
        hidden = self.norm(hidden).t()
        self.next, self.end = self.next + 1, self.end + 1
        return self.lm.head(hidden if self.whole else hidden[self.slot])

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these lines only."""
        super().keep(rows)
        self._begin()

    def _hidden(self, mask: torch.Tensor) -> torch.Tensor:
        """(rows, W, S) bool -> (rows * K, R * W, S) minus infinity where it is True, and 0 elsewhere."""
        held = self.layers[0].held
        keys, heads = held.shape[2], self.lm.text_config.num_attention_heads
        added = torch.zeros(mask.shape, dtype=held.dtype, device=mask.device).masked_fill_(mask, -torch.inf)
        return added.repeat(1, heads // keys, 1).repeat_interleave(keys, 0)
