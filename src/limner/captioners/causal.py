"""Decoding and scoring with a decoder-only language model behind a visual prefix.

Captions are padded on the right and the prefix has one length for all rows, so causal attention alone is
exact: no padding mask is needed, and attention takes its fastest path. The prefix is prefilled once a sample
and its cache is expanded to the captions (or beams) of the sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import DynamicCache
from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor

from limner.captioners import lean_opt
from limner.captioners.base import Generated
from limner.captioners.lean_opt import OptSteps
from limner.captioners.search import beam_settings, chosen_logprobs, cut_at_end, sample
from limner.decoding import Decoding
from limner.errors import UserError


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
        """(N, T, H) hidden states that predict each of the (N, T) tokens.

        Args:
            prefix: (N, P, H), or (B, P, H) that is shared by N / B captions each.
            tokens: (N, T).
        """
        if len(prefix) != len(tokens):
            prefix = prefix.repeat_interleave(len(tokens) // len(prefix), 0)
        before = torch.cat([prefix, self.embed(tokens[:, :-1])], 1)
        out = self.model.get_decoder()(inputs_embeds=before, use_cache=False)
        return out.last_hidden_state[:, prefix.shape[1] - 1 :]

    def logprobs(
        self, prefix: torch.Tensor, tokens: torch.Tensor, caption_mask: torch.Tensor, smoothing: float = 0.0
    ) -> torch.Tensor:
        """(N, T) float32 log-probabilities of the tokens after the prefix; 0 where the mask is False.

        Only caption positions reach the output layer: of (N, T, V) logits nothing is made for padding.
        """
        logits = self.model.get_output_embeddings()(self.states(prefix, tokens)[caption_mask])
        return chosen_logprobs(logits.float(), tokens, caption_mask, smoothing)

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

    def prefill(self, prefix: torch.Tensor, rows: int) -> DynamicCache:
        """Keys and values of all prefix positions but the last, each row `rows` times."""
        cache = DynamicCache(config=self.model.config)
        if prefix.shape[1] > 1:
            self.model.get_decoder()(inputs_embeds=prefix[:, :-1], past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(rows)
        return cache

    def _sample(
        self, prefix: torch.Tensor, decoding: Decoding, captions: int, generator: torch.Generator | None
    ) -> Generated:
        kind = OptSteps if lean_opt.fits(self.model) else CachedSteps
        steps = kind(self, prefix, captions)
        return sample(steps, len(prefix) * captions, decoding, self.eos_ids, self.pad_id, generator)

    def _beams(self, prefix: torch.Tensor, decoding: Decoding, captions: int) -> Generated:
        cache = self.prefill(prefix, decoding.num_beams)
        settings = beam_settings(decoding, captions, self.eos_ids, self.pad_id)
        size = decoding.no_repeat_ngram_size
        del settings[
            "no_repeat_ngram_size"
        ]  # what transformers says of it, that captions alone count, is meant
        tokens = self.model.generate(
            inputs_embeds=prefix, past_key_values=cache,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device),
            logits_processor=[NoRepeatNGramLogitsProcessor(size)] if size else None,
            **settings,
        )  # fmt: skip
        tokens, caption_mask, ended = cut_at_end(tokens, self.eos_ids, self.pad_id)
        return Generated(tokens, caption_mask, self.logprobs(prefix, tokens, caption_mask), ended)


class CachedSteps:
    """Logits of the next token of every growing caption, the tokens before it in a cache."""

    def __init__(self, lm: CausalLM, prefix: torch.Tensor, captions: int):
        """Prefill the prefix (B, P, H) for `captions` captions a row."""
        self.lm = lm
        self.cache = lm.prefill(prefix, captions)
        self.last = prefix[:, -1:].repeat_interleave(captions, 0)

    def logits(self, chosen: torch.Tensor | None) -> torch.Tensor:
        """(rows, V) float32 after the tokens (rows,) chosen last; None before the first."""
        embeds = self.last if chosen is None else self.lm.embed(chosen[:, None])
        out = self.lm.model(
            inputs_embeds=embeds, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        )
        return out.logits[:, -1].float()

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        self.cache.batch_select_indices(rows)
