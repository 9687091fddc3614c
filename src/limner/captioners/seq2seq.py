"""Decoding and scoring with an encoder-decoder language model (T5) whose encoder reads the visual prefix.

The encoder runs once a sample and so do the keys and values of cross-attention; both are expanded to the
captions of the sample. Captions are padded on the right, so no padding mask is needed; positions are
relative, so a caption may be of any length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from limner.captioners.base import Generated
from limner.captioners.search import beam_settings, chosen_logprobs, cut_at_end, sample
from limner.decoding import Decoding


@dataclass(frozen=True)
class Seq2SeqLM:
    """A frozen encoder-decoder with its special tokens. P prefix positions, H hidden size."""

    model: Any
    """A Hugging Face encoder-decoder of T5's kind."""
    eos_ids: tuple[int, ...]
    pad_id: int

    @property
    def start_id(self) -> int:
        """The token that the decoder starts with."""
        return int(self.model.config.decoder_start_token_id)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, T, H) input embeddings of token ids."""
        return self.model.get_input_embeddings()(tokens)

    def encoded(self, prefix: torch.Tensor) -> torch.Tensor:
        """(B, P, H) what the decoder sees of a prefix (B, P, H)."""
        return self.model.get_encoder()(inputs_embeds=prefix).last_hidden_state

    def states(self, prefix: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(N, T, H) decoder states that predict each of the (N, T) tokens.

        Args:
            prefix: (N, P, H), or (B, P, H) that is shared by N / B captions each.
            tokens: (N, T).
        """
        seen = self.encoded(prefix)
        seen = seen.repeat_interleave(len(tokens) // len(seen), 0)
        start = torch.full_like(tokens[:, :1], self.start_id)
        out = self.model.get_decoder()(
            input_ids=torch.cat([start, tokens[:, :-1]], 1), encoder_hidden_states=seen, use_cache=False
        )
        return out.last_hidden_state

    def logprobs(
        self, prefix: torch.Tensor, tokens: torch.Tensor, caption_mask: torch.Tensor, smoothing: float = 0.0
    ) -> torch.Tensor:
        """(N, T) float32 log-probabilities of the tokens after the prefix; 0 where the mask is False."""
        states = self.states(prefix, tokens)[caption_mask]
        if self.model.config.scale_decoder_outputs:
            states = states * self.model.config.d_model**-0.5
        logits = self.model.get_output_embeddings()(states).float()
        return chosen_logprobs(logits, tokens, caption_mask, smoothing)

    @torch.no_grad()
    def generate(
        self, prefix: torch.Tensor, decoding: Decoding, *, captions: int, generator: torch.Generator | None
    ) -> Generated:
        """Captions for a prefix (B, P, H): sampled or greedy here, beams by transformers."""
        if decoding.num_beams == 1:
            steps = CachedSteps(self, self.encoded(prefix), captions)
            return sample(steps, len(prefix) * captions, decoding, self.eos_ids, self.pad_id, generator)
        tokens = self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.encoded(prefix)),
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device),
            decoder_start_token_id=self.start_id,
            **beam_settings(decoding, captions, self.eos_ids, self.pad_id),
        )[:, 1:]  # the first is the decoder's start
        tokens, caption_mask, ended = cut_at_end(tokens, self.eos_ids, self.pad_id)
        return Generated(tokens, caption_mask, self.logprobs(prefix, tokens, caption_mask), ended)


class CachedSteps:
    """Logits of the next token of every growing caption; keys and values of prefix and tokens in a cache."""

    def __init__(self, lm: Seq2SeqLM, seen: torch.Tensor, captions: int):
        """For encoder output (B, P, H) and `captions` captions a row."""
        self.lm, self.seen, self.captions = lm, seen, captions
        config = lm.model.config
        self.cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))

    def logits(self, chosen: torch.Tensor | None) -> torch.Tensor:
        """(rows, V) float32 after the tokens (rows,) chosen last; None before the first."""
        if chosen is not None:
            return self._step(chosen)
        # All captions of a sample start alike: the first step is done once and its cache expanded.
        out = self._step(torch.full((len(self.seen),), self.lm.start_id, device=self.seen.device))
        self.cache.batch_repeat_interleave(self.captions)
        self.seen = self.seen.repeat_interleave(self.captions, 0)
        return out.repeat_interleave(self.captions, 0)

    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        out = self.lm.model(
            decoder_input_ids=tokens[:, None],
            encoder_outputs=(self.seen,),
            past_key_values=self.cache,
            use_cache=True,
        )
        return out.logits[:, -1].float()

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        self.cache.batch_select_indices(rows)
        self.seen = self.seen[rows]
