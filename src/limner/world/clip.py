"""The CLIPs: one for evaluation that no reward ever sees, one as a reward (VLRM-RS).

Both towers first learn to tell what a picture shows and what a caption says, then to agree. The CLIP for
evaluation learns from scenes with all pairs of colour and shape, because it is the measuring instrument
for unseen pairs as well; the reward's CLIP never sees the held-out pairs.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPModel

from limner.world import models
from limner.world.captions import varied
from limner.world.scenes import BACKGROUNDS, COLOURS, SHAPES, SPLITS, Scene, random_scene, render
from limner.world.tokenizer import PAD, framed
from limner.world.training import Report, Schedule, cross_entropy, fit, pictures, targets
from limner.world.truth import check
from limner.world.vision import PatchHeads

PHASES = {
    "vision": Schedule(steps=900, lr=1.5e-3),
    "text": Schedule(steps=500, lr=1.5e-3),
    "both": Schedule(steps=900, lr=1e-3),
}
_ABSENT, _UNSAID = len(COLOURS), len(COLOURS) + 1
_COLOURS, _BACKGROUNDS = list(COLOURS), list(BACKGROUNDS)


class Contents(nn.Module):
    """The colour of every shape (or that it is absent, or unsaid) and the background, from one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = nn.Linear(models.WIDTH, len(SHAPES) * (len(COLOURS) + 2))
        self.background = nn.Linear(models.WIDTH, len(BACKGROUNDS) + 1)

    def loss(self, vector: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Loss of vectors (rows, WIDTH) against the classes of `contents` (rows, 7)."""
        shapes = self.shapes(vector).unflatten(1, (len(SHAPES), -1))
        background = cross_entropy(self.background(vector), wanted[:, -1])
        return cross_entropy(shapes, wanted[:, :-1]) + 0.5 * background


def contents(scene: Scene, caption: str | None = None) -> list[int]:
    """Classes for Contents: of the whole scene, or of what a true caption says."""
    classes = [_ABSENT] * len(SHAPES) + [len(_BACKGROUNDS)]
    if caption is None:
        for thing in scene.things:
            classes[SHAPES.index(thing.shape)] = _COLOURS.index(thing.colour)
        classes[-1] = _BACKGROUNDS.index(scene.background)
        return classes
    stated = check(scene, caption).stated
    for fact in stated:
        if fact.kind == "shape":
            classes[SHAPES.index(fact.text)] = _UNSAID
    for fact in stated:
        if fact.kind == "colour":
            colour, shape = fact.text.split()
            classes[SHAPES.index(shape)] = _COLOURS.index(colour)
        elif fact.kind == "background":
            classes[-1] = _BACKGROUNDS.index(fact.text.split()[0])
    return classes


def text_vectors(model: CLIPModel, tokens: torch.Tensor) -> torch.Tensor:
    """Pooled text features, (rows, WIDTH), before the projection."""
    return model.text_model(input_ids=tokens, attention_mask=(tokens != PAD).long()).pooler_output


@torch.no_grad()
def similarities(model: CLIPModel, captions: Sequence[str], images: torch.Tensor) -> torch.Tensor:
    """Cosine of every caption with every image, (captions, images)."""
    seen = [model.vision_model(pixel_values=part).pooler_output for part in images.split(250)]
    said = [text_vectors(model, part) for part in framed(captions).split(250)]
    shown = functional.normalize(model.visual_projection(torch.cat(seen)), dim=-1)
    return functional.normalize(model.text_projection(torch.cat(said)), dim=-1) @ shown.T


class _Training:
    """Both towers with their auxiliary heads, and the losses of the three phases."""

    def __init__(self, scenes: list[Scene], images: torch.Tensor) -> None:
        self.scenes, self.images = scenes, images
        self.truth = targets(scenes)
        self.contents = torch.tensor([contents(scene) for scene in scenes])
        self.model = models.clip()
        self.patches, self.seen, self.said = PatchHeads(models.WIDTH), Contents(), Contents()
        self.module = nn.ModuleList([self.model, self.patches, self.seen, self.said])

    def vision(self, _: int, rng: np.random.Generator) -> torch.Tensor:
        rows = self._rows(rng, 48)
        output = self.model.vision_model(pixel_values=self.images[rows])
        patches = self.patches.loss(output.last_hidden_state, self.truth, rows, named=_all(rows))
        return patches + 0.5 * self.seen.loss(output.pooler_output, self.contents[rows])

    def text(self, _: int, rng: np.random.Generator) -> torch.Tensor:
        return self._text(self._rows(rng, 128), rng)[1]

    def both(self, step: int, rng: np.random.Generator) -> torch.Tensor:
        rows = self._rows(rng, 128)
        output = self.model.vision_model(pixel_values=self.images[rows])
        said, text_loss = self._text(rows, rng)
        shown = functional.normalize(self.model.visual_projection(output.pooler_output), dim=-1)
        written = functional.normalize(self.model.text_projection(said), dim=-1)
        logits = self.model.logit_scale.exp().clamp(max=60) * written @ shown.T
        own = torch.arange(len(rows))
        loss = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
        loss = loss + 0.3 * self.seen.loss(output.pooler_output, self.contents[rows]) + 0.3 * text_loss
        if step % 2 == 0:
            loss = loss + 0.2 * self.patches.loss(
                output.last_hidden_state, self.truth, rows, named=_all(rows)
            )
        return loss

    def _text(self, rows: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        scenes = [self.scenes[row] for row in rows.tolist()]
        captions = [varied(scene, rng, min(1.0, 0.3 + rng.random())) for scene in scenes]
        vectors = text_vectors(self.model, framed(captions))
        wanted = [contents(scene, caption) for scene, caption in zip(scenes, captions, strict=True)]
        return vectors, self.said.loss(vectors, torch.tensor(wanted))

    def _rows(self, rng: np.random.Generator, count: int) -> torch.Tensor:
        return torch.from_numpy(rng.integers(0, len(self.scenes), count))


def _all(rows: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(rows), dtype=torch.bool)


def train(work: Path, seed: int, report: Report, *, reward: bool) -> None:
    """Train a CLIP into work/clip or, as a reward, into work/clip_reward."""
    name = "clip_reward" if reward else "clip"
    torch.manual_seed(1000 * seed + (6 if reward else 5))
    training = _Training(*(pictures(seed, "train") if reward else _all_pairs(seed)))
    losses = {"vision": training.vision, "text": training.text, "both": training.both}
    for phase, schedule in PHASES.items():
        finished = work / f"{name}_{phase}.pt"
        if finished.exists():
            training.module.load_state_dict(torch.load(finished, weights_only=True))
            continue
        label = f"{name}_{phase}"
        fit(training.module, losses[phase], schedule, name=label, seed=seed, folder=work, report=report)
        torch.save(training.module.state_dict(), finished)
    models.save(training.model, work / name, kind="clip")


def _all_pairs(seed: int) -> tuple[list[Scene], torch.Tensor]:
    """Scenes of their own for the CLIP of evaluation, the held-out pairs among them."""
    rngs = [np.random.default_rng([seed, 1000, index]) for index in range(SPLITS["train"])]
    scenes = [random_scene(rng, pairs="any") for rng in rngs]
    images = [render(scene, [seed, 1000, index, 1]) for index, scene in enumerate(scenes)]
    return scenes, models.pixels(images)
