"""Next-token log-probabilities after many prompts that share their beginnings, each beginning read once.

The prompts of one group (the questions about one caption) have a common prefix of token ids, found in the
ids themselves, so that nothing depends on how a tokenizer cuts a text. Prefixes of like length are prefilled
in one pass; then the rests of all their prompts go through, those of like length together, each in a row of
its own at the positions it has in its own prompt, behind the keys and values of its prefix. Those are copied
to the rows in one layer at a time, and a pass holds a bounded number of tokens, so neither the number of
questions nor that of captions changes what memory must hold.

Shapes: R rows in a pass, P prefix positions, W positions of a rest, V vocabulary, C columns asked for.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

Ids = Sequence[int]
Group = Sequence[Ids]
"""Token ids of the prompts that belong together; none is empty."""
_log = logging.getLogger(__name__)
SEEN = 4
"""Positions that the rows of a pass see, copies of their prefixes too: so many times max_tokens at most."""

PADDING = 1 / 32
"""The share of padding at which a pass ends that keeps the processor busy enough."""


@dataclass(frozen=True)
class Rest:
    """One prompt without its prefix."""

    number: int
    """Which prompt."""
    row: int
    """Which of the prefixes that were prefilled together."""
    ids: Ids
    """The tokens behind the prefix; at least one."""


class Packed:
    """A causal language model that is asked for next-token log-probabilities of groups of prompts."""

    def __init__(self, model: Any, *, max_tokens: int):
        """Try on a few tokens whether this model can share prefixes; if not, prompts are read one by one.

        Args:
            model: a Hugging Face causal language model.
            max_tokens: tokens in one pass, padding included; a prompt that is longer passes alone.
        """
        self.model = model
        self.max_tokens = max_tokens
        self.enough = 512 if model.device.type == "cpu" else 4096
        """Tokens that keep the processor about as busy as more would."""
        self.window = _window(model.config.get_text_config().to_dict())
        self.shares = self._can_share()

    @torch.no_grad()
    def logprobs(self, groups: Sequence[Group], columns: Sequence[int]) -> list[torch.Tensor]:
        """(prompts of the group, C) float32 log-probabilities a group, on the CPU.

        Args:
            groups: token ids of prompts; equal prompts are read once.
            columns: token ids whose log-probability (over the whole vocabulary) is asked for.
        """
        prompts: list[tuple[int, ...]] = []
        numbers: dict[tuple[int, ...], int] = {}
        whole: list[int] = []
        shared: list[list[int]] = []
        asked: list[list[int]] = []
        for group in groups:
            start = len(prompts)
            for ids in map(tuple, group):
                if numbers.setdefault(ids, len(prompts)) == len(prompts):
                    prompts.append(ids)
            asked.append([numbers[tuple(ids)] for ids in group])
            new = list(range(start, len(prompts)))
            if self._worth_sharing(prompts[start:]):
                shared.append(new)
            else:
                whole += new
        wanted = torch.tensor(columns, device=self.model.device)
        values = torch.empty(len(prompts), len(columns))
        for read in (self._whole(prompts, whole, wanted), self._shared(prompts, shared, wanted)):
            for chosen, found in read:
                values[chosen] = found
        return [values[own] for own in asked]

    def _worth_sharing(self, group: Group) -> bool:
        """Whether there is something to share, and no window hides a part of it."""
        return (
            self.shares
            and len(group) > 1
            and common_prefix(group) > 0
            and max(map(len, group)) <= self.window
        )

    def _whole(
        self, prompts: Sequence[Ids], which: Sequence[int], columns: torch.Tensor
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Each prompt in a row of its own, padded on the right, where causal attention does not see it."""
        order = sorted(which, key=lambda k: len(prompts[k]))
        for chosen in _passes(order, [len(prompts[k]) for k in order], self.max_tokens):
            ids = _padded([prompts[k] for k in chosen]).to(self.model.device)
            last = torch.tensor([len(prompts[k]) - 1 for k in chosen], device=ids.device)
            yield chosen, self._columns(last, columns, input_ids=ids, use_cache=False)

    def _shared(
        self, prompts: Sequence[Ids], groups: Sequence[Sequence[int]], columns: torch.Tensor
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Some prefixes once, then the rests of all their prompts by length, in as many passes as needed."""
        lengths = [common_prefix([prompts[k] for k in group]) for group in groups]
        order = sorted(range(len(groups)), key=lambda group: lengths[group])
        sizes = [lengths[group] for group in order]
        for chosen in _passes(order, sizes, self.max_tokens, enough=4 * self.enough):
            prefixes = [prompts[groups[group][0]][: lengths[group]] for group in chosen]
            seen = self._prefill(prefixes)
            rests = [
                Rest(k, row, prompts[k][len(prefix) :])
                for row, (group, prefix) in enumerate(zip(chosen, prefixes, strict=True))
                for k in groups[group]
            ]
            rests.sort(key=lambda rest: len(rest.ids))
            starts = torch.tensor([len(prefix) for prefix in prefixes], device=self.model.device)
            sizes = [len(rest.ids) for rest in rests]
            longest = len(prefixes[-1])
            passes = _passes(range(len(rests)), sizes, self.max_tokens, behind=longest, enough=self.enough)
            for some in passes:
                part = [rests[place] for place in some]
                yield [rest.number for rest in part], self._behind(seen, starts, part, columns)

    def _prefill(self, prefixes: Sequence[Ids]) -> DynamicCache:
        """Keys and values of the prefixes, padded on the right: real tokens never see what comes later."""
        # without the config every layer keeps all positions, also those with a window, see `window`
        cache = DynamicCache()
        ids = _padded(prefixes).to(self.model.device)
        self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache

    def _behind(
        self, seen: DynamicCache, starts: torch.Tensor, rests: Sequence[Rest], columns: torch.Tensor
    ) -> torch.Tensor:
        """(R, C): each rest in a row, behind the keys and values of its prefix, which stay as they are."""
        device, dtype = self.model.device, self.model.dtype
        rows = torch.tensor([rest.row for rest in rests], device=device)
        shown = _Rows(rows)
        layers: list[Any] = [_Seen(layer, shown) for layer in seen.layers]
        ids = _padded([rest.ids for rest in rests]).to(device)
        place = torch.arange(ids.shape[1], device=device)
        before = torch.arange(seen.get_seq_length(), device=device) < starts[rows, None]
        visible = torch.cat(
            [before[:, None].expand(-1, len(place), -1), (place <= place[:, None]).expand(len(rows), -1, -1)],
            2,
        )
        mask = torch.zeros(visible.shape, dtype=dtype, device=device)
        mask.masked_fill_(~visible, torch.finfo(dtype).min)
        return self._columns(
            torch.tensor([len(rest.ids) - 1 for rest in rests], device=device), columns,
            input_ids=ids, position_ids=starts[rows, None] + place, attention_mask=mask[:, None],
            past_key_values=Cache(layers=layers), use_cache=True,
        )  # fmt: skip

    def _columns(self, last: torch.Tensor, columns: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """(R, C) float32 log-probabilities after the positions `last` (R,); on the CPU."""
        logits = self.model(**inputs, logits_to_keep=last[:, None]).logits[:, 0].float()
        return (logits[:, columns] - logits.logsumexp(-1, keepdim=True)).cpu()

    def _can_share(self) -> bool:
        """Whether sharing gives what reading prompts one by one gives, tried on a few tokens.

        It does not for models that carry a state instead of keys, that take no positions, or whose attention
        makes its own mask.
        """
        parameters = inspect.signature(self.model.forward).parameters
        if "position_ids" not in parameters or self.window < 8:
            return False
        ids = torch.randint(self.model.get_input_embeddings().num_embeddings, (20,), generator=_generator())
        one, two, three, four = ids[:5].tolist(), ids[5:8].tolist(), ids[8:14].tolist(), ids[14:17].tolist()
        groups = [[one + two, one + four, one + two + four[:1]], [three + two[:1], three + four[:2]]]
        columns = torch.arange(self.model.config.get_text_config().vocab_size, device=self.model.device)
        prompts = [ids for group in groups for ids in group]
        columns = torch.arange(self.model.config.get_text_config().vocab_size, device=self.model.device)
        with torch.no_grad():
            expected = _by_number(self._whole(prompts, range(5), columns))
            try:
                found = _by_number(self._shared(prompts, [range(3), range(3, 5)], columns))
            except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
                _log.warning("prompts are read one by one: sharing their beginning failed: %s", error)
                return False
        # A wrong position or mask moves log-probabilities by about their spread; rounding does not.
        close = 1e-2 if self.model.dtype == torch.float32 else 0.2
        return all(bool((found[k] - row).abs().max() <= close * row.std()) for k, row in expected.items())


class _Rows:
    """Which prefix each row of a pass stands behind, and room for what one layer after the other sees."""

    def __init__(self, prefixes: torch.Tensor):
        """The number of the prefix (R,)."""
        self.prefixes = prefixes
        self.room: dict[str, torch.Tensor] = {}

    def behind(self, name: str, seen: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """(R, heads, P + W, D): what is seen of a row's own prefix, then what is new; until the next call."""
        prefix, width = seen.shape[2], new.shape[2]
        shape = (*new.shape[:2], prefix + width, new.shape[3])
        room = self.room.get(name)
        if room is None or room.shape != shape:
            room = self.room[name] = new.new_empty(shape)
        torch.index_select(seen, 0, self.prefixes, out=room[:, :, :prefix])
        room[:, :, prefix:] = new
        return room


class _Seen(DynamicLayer):
    """Keys and values of prefixes in one layer; what stands behind them sees its own, and adds nothing."""

    def __init__(self, layer: Any, rows: _Rows):
        """A layer that was filled with prefixes: keys and values (prefixes, heads, P, D)."""
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values, self.rows = layer.keys, layer.values, rows

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What each row sees; the next layer writes over it."""
        assert self.keys is not None
        assert self.values is not None
        return (
            self.rows.behind("keys", self.keys, key_states),
            self.rows.behind("values", self.values, value_states),
        )


def common_prefix(group: Group) -> int:
    """Tokens with which all prompts of a group begin, but not the whole of any: each has a last token."""
    # in the order of a dictionary the first and the last differ earliest
    first, last = min(group, key=tuple), max(group, key=tuple)
    longest = min(map(len, group)) - 1
    return next((place for place in range(longest) if first[place] != last[place]), longest)


def _passes(
    order: Sequence[int], lengths: Sequence[int], max_tokens: int, *, behind: int = 0, enough: int = 2**62
) -> Iterator[list[int]]:
    """Runs of rows in order of length that hold at most so many tokens, padding included.

    Behind prefixes of `behind` tokens, they see at most SEEN times as many. A pass of `enough` tokens ends
    before padding is more than PADDING of it.
    """
    chosen: list[int] = []
    tokens = 0
    for place, length in zip(order, lengths, strict=True):
        rows = len(chosen) + 1
        padded = rows * length
        wasted = tokens >= enough and padded - tokens - length > PADDING * padded
        if chosen and (wasted or padded > max_tokens or rows * behind + padded > SEEN * max_tokens):
            yield chosen
            chosen, tokens = [], 0
        chosen.append(place)
        tokens += length
    if chosen:
        yield chosen


def _by_number(read: Iterable[tuple[list[int], torch.Tensor]]) -> dict[int, torch.Tensor]:
    """What was read, by the number of the prompt."""
    return {k: row for chosen, values in read for k, row in zip(chosen, values, strict=True)}


def _padded(rows: Sequence[Ids]) -> torch.Tensor:
    """(R, longest) int64, padded with 0 on the right; what stands there is never looked at."""
    longest = max(map(len, rows))
    return torch.stack([pad(torch.tensor(row, dtype=torch.long), (0, longest - len(row))) for row in rows])


def _window(config: dict[str, Any]) -> int:
    """The shortest reach of an attention layer in tokens: up to it a window hides nothing."""
    reaches = [config.get(name) for name in ("sliding_window", "attention_chunk_size")]
    return min((int(reach) for reach in reaches if reach), default=2**62)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
