"""Small models of the real classes with random weights, made in a moment, for tests without trained ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from limner.types import Sample
from limner.world import models, scenes

HEAD_SCALE = 0.5
"""Input and output embeddings are one matrix: a larger one would repeat its input for ever."""


def sharpen(model: nn.Module, seed: int) -> None:
    """Give every matrix a spread at which the network does something visible."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)


def blip2(folder: Path, seed: int = 0) -> Path:
    """A BLIP-2 captioner checkpoint of the miniature world's shapes, as a Hugging Face folder."""
    model = models.captioner()
    sharpen(model, seed)
    with torch.no_grad():
        model.language_model.get_output_embeddings().weight.mul_(HEAD_SCALE)
    models.save(model, folder, kind="captioner")
    return folder


def samples(count: int, split: str = "validation") -> list[Sample]:
    """Pictures of the miniature world."""
    return [
        Sample(f"{split}-{i}", (scenes.picture(0, i, split),), extra={"scene": scenes.scene(0, i, split)})
        for i in range(count)
    ]
