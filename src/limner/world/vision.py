"""Stage 1: the ViT that captioner and matching model share.

Every patch learns what stands in its cell and where the patch itself is. Position must be IN the features,
because the Q-Former adds none to what it reads. A third of the pictures has colours without a name, so that
shapes are told by their form and not by the colours they come with. Later stages keep this ViT as it is.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import Blip2VisionModel

from limner.world import models
from limner.world.scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, render, strange_palette
from limner.world.training import IGNORED, Report, Schedule, Targets, cross_entropy, fit, pictures, targets

SCHEDULE = Schedule(steps=2000, lr=1.5e-3, warmup=60)
_BATCH = 48
_STRANGE = 8000
"""Scenes that are shown in colours without a name as well."""
_SIDE = models.PIXELS // models.PATCH
_PATCH_ROW = torch.arange(models.PATCHES) // _SIDE
_PATCH_COLUMN = torch.arange(models.PATCHES) % _SIDE
_CELL_OF_PATCH = 2 * (_PATCH_ROW // (_SIDE // 2)) + _PATCH_COLUMN // (_SIDE // 2)
_PLACE_OF_PATCH = torch.stack([_PATCH_ROW, _PATCH_COLUMN], -1) / (_SIDE - 1) * 2 - 1
_SIZES = [len(SHAPES) + 1, len(COLOURS), 4, 4, 2]
"""Outputs a patch: shape, colour, place in reading order, cell, row and column."""


class PatchHeads(nn.Module):
    """What each patch and the class token must know."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Linear(width, sum(_SIZES))
        self.background = nn.Linear(width, len(BACKGROUNDS))

    def loss(
        self, features: torch.Tensor, truth: Targets, rows: torch.Tensor, *, named: torch.Tensor
    ) -> torch.Tensor:
        """Loss of the scenes `rows`.

        Args:
            features: (rows, 37, width).
            truth: what is in all scenes.
            rows: (rows,) numbers of scenes.
            named: (rows,) True where the colours have names; there alone they are asked for.
        """
        shape, colour, order, cell, place = self.patch(features[:, 1:]).split(_SIZES, -1)
        wanted = truth.cells[rows][:, _CELL_OF_PATCH]
        colours = wanted[..., 1].masked_fill(~named[:, None], IGNORED)
        cells = _CELL_OF_PATCH.expand(len(features), -1)
        return (
            cross_entropy(shape, wanted[..., 0])
            + cross_entropy(colour, colours)
            + 0.5 * cross_entropy(order, wanted[..., 2])
            + 0.5 * cross_entropy(cell, cells)
            + (place - _PLACE_OF_PATCH).square().mean()
            + 0.5 * cross_entropy(self.background(features[:, 0]), truth.background[rows])
        )


def _strange(seed: int, scenes: Sequence[Scene]) -> torch.Tensor:
    """The scenes again, (scenes, 3, 48, 48), in colours that have no name in this world."""
    rngs = [np.random.default_rng([seed, 3000, index]) for index in range(len(scenes))]
    drawn = [
        render(scene, [seed, 3000, index, 1], palette=strange_palette(rng))
        for index, (scene, rng) in enumerate(zip(scenes, rngs, strict=True))
    ]
    return models.pixels(drawn)


def train(work: Path, seed: int, report: Report) -> None:
    """Train the ViT into work/vit."""
    torch.manual_seed(1000 * seed + 1)
    scenes, images = pictures(seed, "train")
    images = torch.cat([images, _strange(seed, scenes[:_STRANGE])])
    named = torch.arange(len(images)) < len(scenes)
    truth = targets([*scenes, *scenes[:_STRANGE]])
    vit = Blip2VisionModel(models.vision_config())
    heads = PatchHeads(models.WIDTH)

    def loss(_: int, rng: np.random.Generator) -> torch.Tensor:
        rows = torch.from_numpy(rng.integers(0, len(images), _BATCH))
        features = vit(pixel_values=images[rows]).last_hidden_state
        return heads.loss(features, truth, rows, named=named[rows])

    fit(nn.ModuleList([vit, heads]), loss, SCHEDULE, name="vit", seed=seed, folder=work, report=report)
    # Rounded to fp16 here, once: everything that reads the ViT's features learns on the ViT as shipped.
    vit.half().float().save_pretrained(work / "vit")


def load(work: Path) -> Blip2VisionModel:
    """The ViT of work/vit, frozen."""
    vit = Blip2VisionModel.from_pretrained(work / "vit", dtype=torch.float32)
    return vit.eval().requires_grad_(False)
