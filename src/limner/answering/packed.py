"""Next-token log-probabilities after many prompts that share their beginnings, each beginning read once.

The prompts of one group (the questions about one caption) have a common prefix of token ids, found in the ids
themselves, so that nothing depends on how a tokenizer cuts a text. A prefix is prefilled once; then the rests
of its prompts go through side by side in one row, each with the positions it has in its own prompt and a mask
that shows it the prefix and itself. Groups of like length share a pass, and a pass holds a bounded number of
tokens, so neither the number of questions nor that of captions changes what memory must hold.

Shapes: R rows (groups) in a pass, P prefix positions, W positions of rests, K prompts a row, V vocabulary, C
columns asked for.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

Ids = Sequence[int]
Group = Sequence[Ids]
"""Token ids of the prompts that belong together; none is empty."""
_log = logging.getLogger(__name__)
WIDEST = 512
"""Positions of rests in one row at most: every one of them is compared with every other, masked or not."""


@dataclass(frozen=True)
class Rest:
    """One prompt of a row without the prefix."""

    group: int
    """Index of its group."""
    prompt: int
    """Index within the group."""
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
        self.window = _window(model.config.get_text_config().to_dict())
        self.shares = self._can_share()

    @torch.no_grad()
    def logprobs(self, groups: Sequence[Group], columns: Sequence[int]) -> list[torch.Tensor]:
        """(prompts of the group, C) float32 log-probabilities a group, on the CPU.

        Args:
            groups: token ids of prompts; equal groups are read once.
            columns: token ids whose log-probability (over the whole vocabulary) is asked for.
        """
        keys = [tuple(tuple(ids) for ids in group) for group in groups]
        unlike = list(dict.fromkeys(keys))
        wanted = torch.tensor(columns, device=self.model.device)
        found = {key: torch.empty(len(key), len(columns)) for key in unlike}
        whole, shared = [], []
        for key in unlike:
            longest = max(map(len, key), default=0)
            (shared if self.shares and len(key) > 1 and longest <= self.window else whole).append(key)
        prompts = [(key, k) for key in whole for k in range(len(key))]
        for places, values in self._whole([key[k] for key, k in prompts], wanted):
            for place, row in zip(places, values, strict=True):
                key, k = prompts[place]
                found[key][k] = row
        for places, values in self._shared(shared, wanted):
            for (group, k), row in zip(places, values, strict=True):
                found[shared[group]][k] = row
        return [found[key] for key in keys]

    def _whole(
        self, prompts: Sequence[Ids], columns: torch.Tensor
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Each prompt in a row of its own, padded on the right, where causal attention does not see it."""
        order = sorted(range(len(prompts)), key=lambda k: len(prompts[k]))
        for places in _passes(order, [len(prompts[k]) for k in order], self.max_tokens):
            ids = _padded([prompts[k] for k in places]).to(self.model.device)
            last = torch.tensor([[len(prompts[k]) - 1] for k in places], device=ids.device)
            yield places, self._columns(last, columns, input_ids=ids, use_cache=False)[:, 0]

    def _shared(
        self, groups: Sequence[Group], columns: torch.Tensor
    ) -> Iterator[tuple[list[tuple[int, int]], torch.Tensor]]:
        """Each group in a row: the prefix once, then the rests of its prompts, in as many turns as needed."""
        prefixes = [common_prefix(group) for group in groups]
        # A row must hold the prefix in one pass and a rest in another.
        widths = [
            max(p, max(len(ids) - p for ids in group)) for p, group in zip(prefixes, groups, strict=True)
        ]
        order = sorted(range(len(groups)), key=lambda k: widths[k])
        for chosen in _passes(order, [widths[k] for k in order], self.max_tokens):
            lengths = [prefixes[k] for k in chosen]
            cache = self._prefill([groups[k][0][:p] for k, p in zip(chosen, lengths, strict=True)])
            width = min(max(self.max_tokens // len(chosen), 1), WIDEST)
            turns = [_turns(k, groups[k], prefixes[k], width) for k in chosen]
            for turn in range(max(map(len, turns))):
                rests = [row[turn] if turn < len(row) else [] for row in turns]
                yield (
                    [(rest.group, rest.prompt) for row in rests for rest in row],
                    self._behind(cache, lengths, rests, columns),
                )

    def _prefill(self, prefixes: Sequence[Ids]) -> DynamicCache:
        """Keys and values of the prefixes, padded on the right: real tokens never see what comes later."""
        # without the config every layer keeps all positions, also those with a window, see `window`
        cache = DynamicCache()
        ids = _padded(prefixes).to(self.model.device)
        self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache

    def _behind(
        self,
        cache: DynamicCache,
        lengths: Sequence[int],
        rests: Sequence[Sequence[Rest]],
        columns: torch.Tensor,
    ) -> torch.Tensor:
        """(rests of all rows, C): one turn behind the prefixes in the cache, which is left as it was."""
        layout = _Layout.of(rests, lengths)
        device, dtype = self.model.device, self.model.dtype
        mask = torch.zeros(layout.visible.shape, dtype=dtype).masked_fill_(
            ~layout.visible, torch.finfo(dtype).min
        )
        values = self._columns(
            layout.last.to(device), columns,
            input_ids=layout.ids.to(device), position_ids=layout.positions.to(device),
            attention_mask=mask[:, None].to(device), past_key_values=cache, use_cache=True,
        )  # fmt: skip
        cache.crop(-layout.ids.shape[1])  # what to take away is negative
        return values[layout.real]

    def _columns(self, last: torch.Tensor, columns: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """(R, K, C) float32 log-probabilities after the positions `last` (R, K); on the CPU."""
        logits = self.model(**inputs, logits_to_keep=last).logits.float()
        return (logits[..., columns] - logits.logsumexp(-1, keepdim=True)).cpu()

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
        prompts = [(g, k) for g, group in enumerate(groups) for k in range(len(group))]
        with torch.no_grad():
            expected = {
                prompts[place]: row
                for places, values in self._whole([groups[g][k] for g, k in prompts], columns)
                for place, row in zip(places, values, strict=True)
            }
            try:
                found = {
                    place: row
                    for places, values in self._shared(groups, columns)
                    for place, row in zip(places, values, strict=True)
                }
            except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
                _log.warning("prompts are read one by one: sharing their beginning failed: %s", error)
                return False
        # A wrong position or mask moves log-probabilities by about their spread; rounding does not.
        close = 1e-2 if self.model.dtype == torch.float32 else 0.2
        return all(
            bool((found[place] - row).abs().max() <= close * row.std()) for place, row in expected.items()
        )


@dataclass(frozen=True)
class _Layout:
    """Where the rests of one turn stand."""

    ids: torch.Tensor
    """(R, W) token ids; 0 where nothing stands."""
    positions: torch.Tensor
    """(R, W) the position of each in its own prompt."""
    visible: torch.Tensor
    """(R, W, P + W) True where a token may look."""
    last: torch.Tensor
    """(R, K) column of each rest's last token."""
    real: torch.Tensor
    """(R, K) bool, True where there is a rest."""

    @classmethod
    def of(cls, rests: Sequence[Sequence[Rest]], lengths: Sequence[int]) -> _Layout:
        """Rests side by side behind prefixes of these lengths."""
        rows, prefix = len(rests), max(lengths)
        width = max(sum(len(rest.ids) for rest in row) for row in rests)
        ids = torch.zeros(rows, width, dtype=torch.long)
        starts = torch.tensor(lengths)
        positions = starts[:, None].repeat(1, width)
        part = torch.full((rows, width), -1)  # which rest a token belongs to
        last = torch.zeros(rows, max(map(len, rests)), dtype=torch.long)
        real = torch.zeros(last.shape, dtype=torch.bool)
        for r, row in enumerate(rests):
            start = 0
            for k, rest in enumerate(row):
                stop = start + len(rest.ids)
                ids[r, start:stop] = torch.tensor(rest.ids)
                positions[r, start:stop] += torch.arange(len(rest.ids))
                part[r, start:stop] = k
                last[r, k], real[r, k] = stop - 1, True
                start = stop
        own = (part[:, :, None] == part[:, None, :]) & torch.ones(width, width, dtype=torch.bool).tril()
        before = (torch.arange(prefix) < starts[:, None])[:, None, :].expand(-1, width, -1)
        return cls(ids, positions, torch.cat([before, own], 2), last, real)


def common_prefix(group: Group) -> int:
    """Tokens with which all prompts of a group begin, but not the whole of any: each has a last token."""
    longest = min(map(len, group)) - 1
    first = group[0]
    for place in range(longest):
        if any(ids[place] != first[place] for ids in group):
            return place
    return longest


def _turns(group: int, prompts: Group, prefix: int, width: int) -> list[list[Rest]]:
    """The rests of a group, so many at a time as stand in `width` columns; a longer one stands alone."""
    turns: list[list[Rest]] = [[]]
    filled = 0
    for k, ids in enumerate(prompts):
        rest = Rest(group, k, ids[prefix:])
        if turns[-1] and filled + len(rest.ids) > width:
            turns.append([])
            filled = 0
        turns[-1].append(rest)
        filled += len(rest.ids)
    return turns


def _passes(order: Sequence[int], lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Runs of rows in order of length that hold at most so many tokens, padding included."""
    chosen: list[int] = []
    for place, length in zip(order, lengths, strict=True):
        if chosen and (len(chosen) + 1) * length > max_tokens:
            yield chosen
            chosen = []
        chosen.append(place)
    if chosen:
        yield chosen


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
