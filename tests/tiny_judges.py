"""Small image-text matching models and CLIPs with random weights, as Hugging Face folders."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval

import tiny
from limner.world import models
from limner.world.captions import full
from limner.world.scenes import scene


def itm(folder: Path, seed: int = 1, *, captioner: Path | None = None) -> Path:
    """An ITM checkpoint; with the vision tower of a captioner's folder, where one is given."""
    model = models.matcher()
    tiny.sharpen(model, seed)
    if captioner is not None:
        other = Blip2ForConditionalGeneration.from_pretrained(captioner, dtype=torch.float32)
        model.vision_model.load_state_dict(other.vision_model.state_dict())
    models.save(model, folder, kind="itm")
    return folder


def itm_without_image_token(folder: Path, seed: int = 1) -> Path:
    """An ITM checkpoint of the older form, whose texts have no places for the image."""
    config = models.blip2_config(text=True)
    config.image_token_index = None
    model = Blip2ForImageTextRetrieval(config)
    tiny.sharpen(model, seed)
    models.save(model, folder, kind="itm")
    return folder


def clip(folder: Path, seed: int = 2) -> Path:
    """A CLIP checkpoint."""
    model = models.clip()
    tiny.sharpen(model, seed)
    models.save(model, folder, kind="clip")
    return folder


def captions(count: int) -> list[str]:
    """The full captions of the first scenes that `tiny.samples` shows, of several lengths."""
    return [full(scene(0, index, "validation")) for index in range(count)]
