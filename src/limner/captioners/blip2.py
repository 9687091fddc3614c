"""BLIP-2 captioners: frozen ViT -> Q-Former -> projection -> frozen language model (OPT or FLAN-T5).

Source: BLIP-2 as in transformers' Blip2ForConditionalGeneration; what is trained follows VLRM,
arXiv 2404.01911, section 3.2; several frames follow arXiv 2502.13363, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import AutoTokenizer, Blip2ForConditionalGeneration

from limner.captioners import files, qformer
from limner.captioners.base import TensorInputs
from limner.paths import resolve


@dataclass(frozen=True)
class Captioner(qformer.Settings):
    """BLIP-2 with a decoder-only (OPT) or an encoder-decoder (FLAN-T5) language model."""

    family = "blip2"

    @classmethod
    def matches(cls, config: Mapping[str, object]) -> bool:
        """Whether config.json is a BLIP-2 captioner's."""
        return config.get("model_type") == "blip-2"

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Blip2Policy:
        """Load a Hugging Face BLIP-2 checkpoint, and the published partial weights over it where given."""
        path = resolve(self.path)
        with files.explained(path):
            model = files.loaded(Blip2ForConditionalGeneration, path, absent=self.replaced, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            processor = self.image_processor(path)
        self.prepare(model)
        return Blip2Policy(self, model, tokenizer, processor).to(device)


class Blip2Policy(qformer.QFormerPolicy):
    """A loaded BLIP-2; see `qformer.QFormerPolicy`."""

    model: Blip2ForConditionalGeneration

    def query(self, inputs: TensorInputs, features: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """(B, Q, Dq) the Q-Former's output."""
        queries = self.model.query_tokens.expand(len(features), -1, -1)
        return self.model.qformer(
            query_embeds=queries, encoder_hidden_states=features, encoder_attention_mask=seen
        ).last_hidden_state
