"""Log-probabilities by transformers' own whole forward pass, prompt and placeholders in one sequence."""

from __future__ import annotations

from typing import Any

import torch

from limner.captioners.base import Policy
from limner.types import Sample


@torch.no_grad()
def logits(
    policy: Policy, plain: Any, samples: list[Sample], tokens: torch.Tensor, prompt: str, **further: Any
) -> torch.Tensor:
    """(N, T, V) that predict each token, from a model of plain transformers; one picture a sample.

    Args:
        policy: for its tokenizer and processor.
        plain: the same checkpoint loaded by transformers.
        samples: N samples.
        tokens: (N, T).
        prompt: before the caption.
        further: more arguments of the model.
    """
    placeholder = [plain.config.image_token_index] * plain.config.num_query_tokens
    ids = torch.tensor(placeholder + policy.tokenizer(prompt)["input_ids"]).expand(len(samples), -1)
    images = [sample.image for sample in samples]
    further["pixel_values"] = torch.as_tensor(
        policy.processor(images=images, return_tensors="pt")["pixel_values"]
    )
    if plain.config.use_decoder_only_language_model:
        whole = torch.cat([ids, tokens], 1)
        out = plain(input_ids=whole, attention_mask=torch.ones_like(whole), **further).logits
        return out[:, ids.shape[1] - 1 : -1]
    start = torch.full_like(tokens[:, :1], plain.config.text_config.decoder_start_token_id)
    return plain(input_ids=ids, decoder_input_ids=torch.cat([start, tokens[:, :-1]], 1), **further).logits


def expected(
    made: torch.Tensor, tokens: torch.Tensor, caption_mask: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """(N, T) minus torch's cross-entropy of logits (N, T, V); 0 where the mask is False."""
    loss = torch.nn.functional.cross_entropy(
        made.transpose(1, 2), tokens, reduction="none", label_smoothing=smoothing
    )
    return -loss * caption_mask
