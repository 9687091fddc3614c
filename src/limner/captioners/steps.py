"""One token after another behind prefixes: what is kept between the steps of a generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from limner.captioners.prefix_inputs import Prefix
    from limner.captioners.tree import PrefixedLM

ROOM = 64
"""Positions for which a full cache gets room at least."""
PROMPT, NOBODY, UNUSED = -1, -2, -3
"""Who sees a position, where that is not one caption: all captions of the row, none; and an unused slot."""


class GrowingLayer(DynamicLayer):
    """Keys and values of a layer with room behind them, so that a step writes its own and copies no others.

    Without gradient only: what is there is written to.
    """

    room: tuple[torch.Tensor, torch.Tensor] | None = None
    """(rows, heads, positions and room, size) keys and values, of which `keys` and `values` are a part."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take up the keys and values of a step; returns all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        length = before + key_states.shape[-2]
        if self.room is None or self.room[0].shape[-2] < length:
            shape = (*key_states.shape[:2], length + max(ROOM, length // 2))
            grown = (
                key_states.new_empty(*shape, key_states.shape[-1]),
                value_states.new_empty(*shape, value_states.shape[-1]),
            )
            if self.keys is not None and self.values is not None and before:
                grown[0][:, :, :before] = self.keys
                grown[1][:, :, :before] = self.values
            self.room = grown
        self.room[0][:, :, before:length] = key_states
        self.room[1][:, :, before:length] = value_states
        self.keys, self.values = (tensor[:, :, :length] for tensor in self.room)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row `repeats` times."""
        super().batch_repeat_interleave(repeats)
        self.room = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """These rows only."""
        super().batch_select_indices(indices)
        self.room = None

    def take(self, rows: torch.Tensor, order: torch.Tensor) -> None:
        """These rows (int64 indices), and of each its positions `order` (rows, positions)."""
        assert self.keys is not None
        assert self.values is not None
        where = rows[:, None], slice(None), order
        self.keys, self.values = (held[where].transpose(1, 2) for held in (self.keys, self.values))
        self.room = None


def growing() -> Cache:
    """An empty cache for generation that keeps every position."""
    return Cache(layer_class_to_replicate=GrowingLayer)


class CachedSteps:
    """Logits of the next token of every growing caption, each with a row of its own in the cache."""

    def __init__(self, lm: PrefixedLM, prefix: Prefix, captions: int):
        """Prefill B prefixes, once for `captions` captions each."""
        self.lm, self.captions = lm, captions
        self.filled = lm.prefill(prefix, growing() if lm.kinds() is not None else None)
        self.next = prefix.after.repeat_interleave(captions)
        self.there = None if prefix.there is None else prefix.there.repeat_interleave(captions, 0).long()
        if captions > 1:
            self.filled.cache.batch_repeat_interleave(captions)

    def logits(self, chosen: torch.Tensor | None) -> torch.Tensor:
        """(rows, V) float32 after the tokens (rows,) chosen last; None before the first."""
        if chosen is None:
            return self.lm.head(self.filled.last).repeat_interleave(self.captions, 0)
        if self.there is not None:
            self.there = torch.nn.functional.pad(self.there, (0, 1), value=1)
        hidden = self.lm.step(self.filled, chosen[:, None], positions=self.next[:, None], mask=self.there)
        self.next = self.next + 1
        return self.lm.head(hidden[:, -1])

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        self.filled.cache.batch_select_indices(rows)
        self.next = self.next[rows]
        self.there = None if self.there is None else self.there[rows]


def less_read(config: Any, captions: int, *, length: int, tokens: int) -> bool:
    """Whether fewer keys are read at the end where captions share a row behind a prefix of `length`.

    Behind a mask, torch's attention copies the keys that several heads share for each of them.
    """
    heads = config.num_attention_heads
    copies = heads // (getattr(config, "num_key_value_heads", None) or heads)
    return copies * (length + captions * tokens) < captions * (length + tokens)


class SharedSteps:
    """The same with all captions of an image in one row: its prefix is held once, and read once a step.

    A step puts a token of every caption into the row. Each sees the prefix and its own caption.
    """

    def __init__(self, lm: PrefixedLM, prefix: Prefix, captions: int):
        """Prefill B prefixes, once for `captions` captions each."""
        self.lm, self.captions = lm, captions
        self.last = self.prefill(prefix)
        rows, length = prefix.ids.shape
        device = prefix.ids.device
        self.slot = torch.arange(rows * captions, device=device)
        """(lines,) place of each growing caption among the slots of all rows."""
        self.number = self.slot.view(rows, captions)
        """(rows, W) the caption in each slot."""
        self.owner = torch.full((rows, length), PROMPT, device=device)
        """(rows, S) the caption that sees each position of the cache."""
        if prefix.there is not None:
            self.owner.masked_fill_(~prefix.there, NOBODY)
        self.place = torch.arange(length, device=device).expand(rows, -1)
        """(rows, S) positions as a window counts them, as if each caption stood alone behind the prefix."""
        self.next = prefix.after
        self.end = length

    def prefill(self, prefix: Prefix) -> torch.Tensor:
        """(B, H) the hidden states that predict the first tokens; `layers` hold keys and values then."""
        self.filled = self.lm.prefill(prefix, growing())
        self.layers: Sequence[Any] = self.filled.cache.layers
        return self.filled.last

    def logits(self, chosen: torch.Tensor | None) -> torch.Tensor:
        """(lines, V) float32 after the tokens (lines,) chosen last; None before the first."""
        if chosen is None:
            return self.lm.head(self.last).repeat_interleave(self.captions, 0)
        rows, width = self.number.shape
        tokens = chosen.new_full((rows * width,), self.lm.pad_id)
        tokens[self.slot] = chosen
        self.owner = torch.cat([self.owner, self.number], 1)
        self.place = torch.cat([self.place, self.place.new_full((rows, width), self.end)], 1)
        seen = (self.owner[:, None] == self.number[..., None]) | (self.owner == PROMPT)[:, None]

        def mask(window: int | None) -> torch.Tensor:
            return seen if window is None else seen & (self.end - self.place < window)[:, None]

        hidden = self.lm.step(
            self.filled, tokens.view(rows, width), positions=self.next[:, None].expand(-1, width),
            mask=self.lm.by_kind(mask),
        )  # fmt: skip
        self.next, self.end = self.next + 1, self.end + 1
        return self.lm.head(hidden.flatten(0, 1)[self.slot])

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these lines only: rows close up, and what nobody sees any more leaves the cache."""
        slot, numbers = self.slot[rows], self.number.flatten()[self.slot[rows]]
        images, row, counts = (slot // self.number.shape[1]).unique_consecutive(
            return_inverse=True, return_counts=True
        )
        place = torch.arange(len(slot), device=slot.device) - (counts.cumsum(0) - counts)[row]
        width = int(counts.max())
        self.slot = row * width + place
        self.number = slot.new_full((len(images), width), UNUSED).flatten().index_put((self.slot,), numbers)
        self.number = self.number.view(len(images), width)
        owner = self.owner[images]
        seen = (owner == PROMPT) | ((owner[..., None] == self.number[:, None]).any(-1) & (owner >= 0))
        order = (~seen).long().argsort(dim=1, stable=True)[:, : int(seen.sum(1).max())]
        for layer in self.layers:
            layer.take(images, order)
        self.owner = owner.masked_fill(~seen, NOBODY).gather(1, order)
        self.place, self.next = self.place[images].gather(1, order), self.next[images]
