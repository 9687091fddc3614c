"""Decoding and scoring with a decoder-only language model behind a visual prefix.

Captions are padded on the right and the prefix has one length for all rows, so causal attention alone is
exact: no padding mask is needed, and attention takes its fastest path. The prefix is prefilled once a sample
and its cache is expanded to the captions (or beams) of the sample.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import (
    DynamicCache,
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
from limner.decoding import Decoding
from limner.errors import UserError

COMPACT_BELOW = 0.8
"""Finished rows leave the cache when fewer than this share still grow: each copy must pay for itself."""


@dataclass(frozen=True)
class CausalLM:
    """A frozen decoder-only language model with its special tokens. P prefix positions, H hidden size."""

    model: Any
    """A Hugging Face decoder-only model with `generate`, an output layer and input embeddings."""
    eos_ids: tuple[int, ...]
    pad_id: int

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, T, H) input embeddings of token ids."""
        return self.model.get_input_embeddings()(tokens)

    def states(self, prefix: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(N, T, H) hidden states that predict each of the (N, T) tokens, after a prefix (N, P, H)."""
        before = torch.cat([prefix, self.embed(tokens[:, :-1])], 1)
        out = self.model.get_decoder()(inputs_embeds=before, use_cache=False)
        return out.last_hidden_state[:, prefix.shape[1] - 1 :]

    def logprobs(
        self, prefix: torch.Tensor, tokens: torch.Tensor, caption_mask: torch.Tensor
    ) -> torch.Tensor:
        """(N, T) float32 log-probabilities of the tokens after the prefix; 0 where the mask is False.

        Only caption positions reach the output layer: of (N, T, V) logits nothing is made for padding.
        """
        states = self.states(prefix, tokens)[caption_mask]
        logits = self.model.get_output_embeddings()(states).float()
        chosen = logits.gather(-1, tokens[caption_mask][:, None])[:, 0] - logits.logsumexp(-1)
        out = torch.zeros(tokens.shape, dtype=torch.float32, device=tokens.device)
        return out.masked_scatter(caption_mask, chosen)

    @torch.no_grad()
    def generate(
        self, prefix: torch.Tensor, decoding: Decoding, *, captions: int, generator: torch.Generator | None
    ) -> Generated:
        """Captions after a prefix (B, P, H): sampled or greedy here, beams by transformers.

        A caption is cut where the language model has no more positions, also before `max_new_tokens`.

        Raises:
            UserError: the prefix leaves no position for a caption.
        """
        room = int(self.model.config.get_text_config().max_position_embeddings) - prefix.shape[1]
        if room < 1:
            raise UserError(
                f"the prompt is too long: {-room} tokens more than the language model has positions"
            )
        longest = min(decoding.max_new_tokens, room)
        decoding = replace(
            decoding, max_new_tokens=longest, min_new_tokens=min(decoding.min_new_tokens, longest)
        )
        if decoding.num_beams > 1:
            return self._beams(prefix, decoding, captions)
        return self._sample(prefix, decoding, captions, generator)

    def _prefill(self, prefix: torch.Tensor, rows: int) -> DynamicCache:
        """Keys and values of all prefix positions but the last, each row `rows` times."""
        cache = DynamicCache(config=self.model.config)
        if prefix.shape[1] > 1:
            self.model.get_decoder()(inputs_embeds=prefix[:, :-1], past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(rows)
        return cache

    def _sample(
        self, prefix: torch.Tensor, decoding: Decoding, captions: int, generator: torch.Generator | None
    ) -> Generated:
        device = prefix.device
        rows = len(prefix) * captions
        cache = self._prefill(prefix, captions)
        embeds = prefix[:, -1:].repeat_interleave(captions, 0)
        filters = _filters(decoding, self.eos_ids, device)
        eos = torch.tensor(self.eos_ids, device=device)
        tokens = torch.full((rows, decoding.max_new_tokens), self.pad_id, device=device)
        caption_mask = torch.zeros_like(tokens, dtype=torch.bool)
        logprobs = torch.zeros(tokens.shape, dtype=torch.float32, device=device)
        ended = torch.zeros(rows, dtype=torch.bool, device=device)
        held = torch.arange(rows, device=device)  # which row each line of the cache belongs to
        for t in range(decoding.max_new_tokens):
            out = self.model(inputs_embeds=embeds, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits = out.logits[:, -1].float()
            scores = filters(tokens[held, :t], logits)
            if decoding.do_sample:
                chosen = torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
            else:
                chosen = scores.argmax(-1)
            growing = ~ended[held]
            chosen = chosen.where(growing, torch.full_like(chosen, self.pad_id))
            tokens[held, t] = chosen
            caption_mask[held, t] = growing
            picked = logits.gather(-1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
            logprobs[held, t] = picked.where(growing, torch.zeros_like(picked))
            ended[held] |= torch.isin(chosen, eos) & growing
            left = ~ended[held]
            count = int(left.sum())
            if count == 0:
                break
            if count < COMPACT_BELOW * len(held):
                keep = left.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                held, chosen = held[keep], chosen[keep]
            embeds = self.embed(chosen[:, None])
        width = int(caption_mask.sum(1).max())
        return Generated(tokens[:, :width], caption_mask[:, :width], logprobs[:, :width], ended)

    def _beams(self, prefix: torch.Tensor, decoding: Decoding, captions: int) -> Generated:
        cache = self._prefill(prefix, decoding.num_beams)
        with warnings.catch_warnings():
            # An n-gram of captions only is what is meant.
            warnings.filterwarnings("ignore", message=".*no_repeat_ngram_size.*")
            tokens = self.model.generate(
                inputs_embeds=prefix, past_key_values=cache,
                attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device),
                do_sample=decoding.do_sample, num_beams=decoding.num_beams, num_return_sequences=captions,
                min_new_tokens=decoding.min_new_tokens, max_new_tokens=decoding.max_new_tokens,
                no_repeat_ngram_size=decoding.no_repeat_ngram_size, length_penalty=decoding.length_penalty,
                eos_token_id=list(self.eos_ids), pad_token_id=self.pad_id,
                **({"top_k": decoding.top_k, "top_p": decoding.top_p, "temperature": decoding.temperature}
                   if decoding.do_sample else {}),
            )  # fmt: skip
        is_eos = torch.isin(tokens, torch.tensor(self.eos_ids, device=tokens.device))
        # The first end-of-sequence token belongs to the caption; all after it is padding.
        caption_mask = (is_eos.cumsum(1) - is_eos.long()) == 0
        tokens = tokens.masked_fill(~caption_mask, self.pad_id)
        logprobs = self.logprobs(prefix.repeat_interleave(captions, 0), tokens, caption_mask)
        return Generated(tokens, caption_mask, logprobs, is_eos.any(1))


def _filters(decoding: Decoding, eos_ids: tuple[int, ...], device: torch.device) -> LogitsProcessorList:
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
