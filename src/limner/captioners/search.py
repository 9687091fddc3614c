"""What searching and scoring share, whatever the language model: the sampling loop and log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.logits_process import (
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
)

from limner.captioners.base import Generated
from limner.captioners.stepwise import Stepwise, drawn
from limner.decoding import Decoding

COMPACT_BELOW = 0.8
"""Finished rows leave the cache when fewer than this share still grow: each copy must pay for itself."""


class Steps(Protocol):
    """A language model that is asked for one token after another."""

    def logits(self, chosen: torch.Tensor | None) -> torch.Tensor:
        """(rows, V) float32 after the tokens (rows,) chosen last; None before the first."""
        ...

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        ...


@torch.no_grad()
def sample(
    steps: Steps,
    rows: int,
    decoding: Decoding,
    eos_ids: Sequence[int],
    pad_id: int,
    generator: torch.Generator | None,
    never: Sequence[int] = (),
) -> Generated:
    """Draw captions token by token, or take the likeliest token each time (greedy).

    Args:
        steps: the language model, with `rows` rows.
        rows: N captions.
        decoding: how tokens are chosen.
        eos_ids: tokens that end a caption.
        pad_id: stands after the end.
        generator: the random numbers, on the model's device; a `Stepwise` has them for each row, and watches.
        never: tokens that are not chosen, whatever their probability.
    """
    logits = steps.logits(None)
    device = logits.device
    filters, eos = _filters(decoding, eos_ids, device), torch.tensor(eos_ids, device=device)
    banned = torch.tensor(never, device=device, dtype=torch.long)
    tokens = torch.full((rows, decoding.max_new_tokens), pad_id, device=device)
    logprobs = torch.zeros(tokens.shape, dtype=torch.float32, device=device)
    held = torch.arange(rows, device=device)  # which row each line of the cache belongs to
    over = torch.zeros(rows, dtype=torch.bool, device=device)  # which lines have ended
    lengths = torch.full((rows,), decoding.max_new_tokens, device=device)
    for t in range(decoding.max_new_tokens):
        whole = logits.log_softmax(-1)
        scores = whole.index_fill(1, banned, -torch.inf) if never else whole
        if filters:
            scores = filters(tokens[held, :t], scores)  # type: ignore[arg-type]
        if not decoding.do_sample:
            chosen = scores.argmax(-1)
        elif isinstance(generator, Stepwise):
            chosen = generator.draw(scores.softmax(-1), held, t)
        else:
            chosen = drawn(scores.softmax(-1), generator)
        logprobs[held, t] = whole.gather(-1, chosen[:, None])[:, 0].masked_fill_(over, 0.0)
        chosen = chosen.masked_fill(over, pad_id)
        tokens[held, t] = chosen
        now = torch.isin(chosen, eos) & ~over
        lengths[held[now]] = t + 1
        over |= now
        if isinstance(generator, Stepwise):
            generator.see(held, chosen, over)
        count = len(held) - int(over.sum())
        if count == 0 or t + 1 == decoding.max_new_tokens:
            break
        if count < COMPACT_BELOW * len(held):
            keep = (~over).nonzero()[:, 0]
            steps.keep(keep)
            held, chosen, over = held[keep], chosen[keep], over[keep]
        logits = steps.logits(chosen)
    width = int(lengths.max())
    caption_mask = torch.arange(width, device=device) < lengths[:, None]
    ended = torch.isin(tokens.gather(1, lengths[:, None] - 1), eos)[:, 0]
    return Generated(tokens[:, :width], caption_mask, logprobs[:, :width], ended)


def chosen_logprobs(
    logits: torch.Tensor, tokens: torch.Tensor, caption_mask: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """(N, T) float32 log-probabilities of the tokens; 0 where the mask is False.

    Args:
        logits: (kept, V) float32 of the positions where the mask is True.
        tokens: (N, T).
        caption_mask: (N, T).
        smoothing: share of the mean over the vocabulary; see `Policy.logprobs`.
    """
    scores = logits.gather(-1, tokens[caption_mask][:, None])[:, 0]
    if smoothing:
        scores = (1 - smoothing) * scores + smoothing * logits.mean(-1)
    out = torch.zeros(tokens.shape, dtype=torch.float32, device=tokens.device)
    return out.masked_scatter(caption_mask, scores - logits.logsumexp(-1))


def cut_at_end(
    tokens: torch.Tensor, eos_ids: Sequence[int], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens (N, T), caption_mask (N, T) and ended (N,) of what a search gave.

    The first end-of-sequence token belongs to the caption; all after it is padding.
    """
    is_eos = torch.isin(tokens, torch.tensor(eos_ids, device=tokens.device))
    caption_mask = (is_eos.cumsum(1) - is_eos.long()) == 0
    return tokens.masked_fill(~caption_mask, pad_id), caption_mask, is_eos.any(1)


def beam_settings(
    decoding: Decoding, captions: int, eos_ids: Sequence[int], pad_id: int
) -> dict[str, object]:
    """The arguments of transformers' `generate` for a search with beams."""
    return {
        "do_sample": False,
        "num_beams": decoding.num_beams,
        "num_return_sequences": captions,
        "min_new_tokens": decoding.min_new_tokens,
        "max_new_tokens": decoding.max_new_tokens,
        "no_repeat_ngram_size": decoding.no_repeat_ngram_size,
        "length_penalty": decoding.length_penalty,
        "eos_token_id": list(eos_ids),
        "pad_token_id": pad_id,
        "synced_gpus": False,  # a rank that searches alone, among sharded weights, would wait for the others
    }


class BehindPrompt(LogitsProcessor):
    """A processor of logits that looks at the caption alone."""

    def __init__(self, processor: LogitsProcessor, length: int):
        """With the length of the prompt."""
        self.processor, self.length = processor, length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """The changed scores (rows, V)."""
        return self.processor(input_ids[:, self.length :], scores)  # type: ignore[arg-type]


def _filters(decoding: Decoding, eos_ids: Sequence[int], device: torch.device) -> LogitsProcessorList:
    """What changes the logits before a token is chosen, in transformers' order."""
    out = LogitsProcessorList()
    if decoding.no_repeat_ngram_size:
        out.append(NoRepeatNGramLogitsProcessor(decoding.no_repeat_ngram_size))
    if decoding.min_new_tokens:
        out.append(
            MinNewTokensLengthLogitsProcessor(0, decoding.min_new_tokens, list(eos_ids), device=str(device))
        )
    if decoding.do_sample:
        if decoding.temperature != 1.0:
            out.append(TemperatureLogitsWarper(decoding.temperature))
        if decoding.top_k:
            out.append(TopKLogitsWarper(decoding.top_k))
        if decoding.top_p < 1.0:
            out.append(TopPLogitsWarper(decoding.top_p))
    return out
