"""Generation without values: the first tokens and the last are written, those between only fill the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from transformers import EncoderDecoderCache

from limner.captioners import causal, search, seq2seq, tree
from limner.captioners.base import Generated
from limner.captioners.steps import SharedSteps
from limner.captioners.stepwise import Stepwise
from limner.decoding import Decoding
from limner.plan.shadow import META, Ledger

WRITTEN = 4
"""Tokens of a caption that are really written: one after the prompt, one at the beginning, two at the end."""


class Choice(Stepwise):
    """Random numbers that are none: every draw takes the memory of torch's, and gives the same token."""

    def __new__(cls, token: int) -> Choice:
        """A generator of torch, whose numbers are not used."""
        return super().__new__(cls, (), lambda *_: None)

    def __init__(self, token: int):
        """Always this token."""
        super().__init__((), lambda *_: None)
        self.token = token

    def draw(self, shares: torch.Tensor, rows: torch.Tensor, place: int) -> torch.Tensor:
        """(lines,) the token."""
        torch.empty_like(shares)  # torch divides the probabilities by random numbers
        return torch.full((len(shares),), self.token)

    def see(self, rows: torch.Tensor, chosen: torch.Tensor, ended: torch.Tensor) -> None:
        """Nobody watches."""


class Leaping:
    """Steps of a generation that leap over its middle."""

    def __init__(self, steps: search.Steps, ledger: Ledger, tokens: int):
        """For captions of so many tokens."""
        self.steps: Any = steps
        self.ledger, self.tokens = ledger, tokens
        self.calls = 0
        self.cache_bytes = 0
        self._stack = contextlib.ExitStack()

    def logits(self, chosen: torch.Tensor | None) -> torch.Tensor:
        """The logits after a token; before the third step the cache grows to nearly its last length."""
        self.close()
        middle = self.tokens > WRITTEN
        if middle and self.calls == 2:
            leap(self.steps, self.tokens - WRITTEN)
        if self.calls:  # the steps at both ends stand for those between them
            times = (self.tokens - 1) / 2 if middle else 1.0
            times = 0.0 if middle and self.calls == 2 else times
            self._stack.enter_context(self.ledger.phase("words"))
            self._stack.enter_context(self.ledger.counting(times))
        self.calls += 1
        out = self.steps.logits(chosen)
        self.cache_bytes = held(self.steps)
        return out

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        self.steps.keep(rows)

    def close(self) -> None:
        """End the part of the last step."""
        self._stack.close()


@contextlib.contextmanager
def leaping(ledger: Ledger, caches: list[int]) -> Iterator[None]:
    """Every sampling inside leaps over its middle; the bytes of its cache are put into `caches`."""

    def sample(
        steps: search.Steps, rows: int, decoding: Decoding, eos_ids: Sequence[int], pad_id: int,
        generator: torch.Generator | None, never: Sequence[int] = (),
    ) -> Generated:  # fmt: skip
        leaps = Leaping(steps, ledger, decoding.max_new_tokens)
        limits = replace(decoding, max_new_tokens=min(WRITTEN, decoding.max_new_tokens))
        made = search.sample(cast("search.Steps", leaps), rows, limits, eos_ids, pad_id, generator, never)
        leaps.close()
        caches.append(leaps.cache_bytes)
        return made

    modules: tuple[Any, ...] = (causal, tree, seq2seq)
    for module in modules:
        module.sample = sample
    try:
        yield
    finally:
        for module in modules:
            module.sample = search.sample


def cache_of(steps: Any) -> Any:
    """The cache that grows with every token."""
    cache = steps.filled.cache if hasattr(steps, "filled") else steps.cache
    return cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache


def held(steps: Any) -> int:
    """Bytes of the cache."""
    tensors = [each for layer in cache_of(steps).layers for each in (layer.keys, layer.values)]
    return sum(each.untyped_storage().nbytes() for each in tensors if each is not None)


def leap(steps: Any, tokens: int) -> None:
    """Put the keys and values of so many tokens into the cache of a generation."""
    shared = isinstance(steps, SharedSteps)
    width = steps.number.shape[1] if shared else 1
    for layer in cache_of(steps).layers:
        left = tokens * width
        while left:
            length = layer.keys.shape[-2]
            room = getattr(layer, "room", None)
            free = 0 if room is None else (room[0].shape[-2] - length) // width * width
            # One step more than there is room for makes the cache grow as it does step by step.
            some = min(left, free or width) if hasattr(layer, "room") else left
            _put(layer, some)
            left -= some
    if shared:
        steps.owner = torch.cat([steps.owner, steps.number.repeat(1, tokens)], 1)
        steps.place = torch.cat([steps.place, steps.place.new_zeros(len(steps.number), tokens * width)], 1)
        steps.end += tokens
    if hasattr(steps, "next"):
        steps.next = steps.next + tokens
    if getattr(steps, "there", None) is not None:
        steps.there = torch.nn.functional.pad(steps.there, (0, tokens), value=1)


def _put(layer: Any, count: int) -> None:
    keys, values = (
        torch.empty(*each.shape[:2], count, each.shape[3], dtype=each.dtype, device=META)
        for each in (layer.keys, layer.values)
    )
    layer.update(keys, values)
