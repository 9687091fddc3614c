"""Stage "video_captioner": the captioner that `recipes/tiny/video_xe.yaml` starts from.

It is what a captioner trained on images and alt text of the web is to a data set of videos. On the world's
ViT, which stays as it is, a Q-Former and an encoder-decoder learn together from nothing: alt text of clips of
eight frames and of single frames, and, in every sixth step, what people say of clips. So it can speak as
people do, but left to itself it speaks as alt text does. (Where it met the words of people only as text
without pictures, the frozen language model could not be steered: cross-entropy then lost what the model had
seen move.) Its clips are in no split.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from limner.world import models, video_models, vision
from limner.world.clip_captions import SEEN, alt_text, references, still_text
from limner.world.clips import Clip, random_clip, scene_at
from limner.world.scenes import BACKGROUNDS, COLOURS, PIXELS, SHAPES, Scene, render
from limner.world.training import IGNORED, Report, Schedule, cross_entropy, fit

SCHEDULE = Schedule(steps=1200, lr=1.5e-3)
CLIPS = 4000
"""Clips that it learns from."""
FRAMES = 8
"""Frames a clip."""
_BATCH = 48
_STILL_EVERY, _PEOPLE_EVERY = 5, 6
"""Every so many steps the batch is single frames, or what people say of clips."""
_KINDS = tuple(dict.fromkeys(SEEN.values()))
_NUMBER = 4000
"""Sets the chance of these clips apart from all others."""


class _Heads(nn.Module):
    """Auxiliary heads, thrown away: query j tells thing j in the order of SHAPES, query 2 the background."""

    SIZES = (len(SHAPES) + 1, len(COLOURS), len(_KINDS))

    def __init__(self, width: int) -> None:
        super().__init__()
        self.thing = nn.Linear(width, sum(self.SIZES))
        self.background = nn.Linear(width, len(BACKGROUNDS))

    def loss(self, queries: torch.Tensor, truth: torch.Tensor, *, moving: bool) -> torch.Tensor:
        """Cross-entropies; truth is (rows, 7) as of `_truth`, of whose motions only clips are asked."""
        parts = self.thing(queries[:, :2]).split(self.SIZES, -1)
        things = truth[:, :6].view(-1, 2, 3)
        total = cross_entropy(self.background(queries[:, 2]), truth[:, 6])
        for place, part in enumerate(parts[: 3 if moving else 2]):
            total = total + cross_entropy(part, things[..., place])
        return total


def _truth(clip: Clip) -> list[int]:
    """Shape, colour, motion of two things in the order of SHAPES, then the background, as class numbers."""
    row = []
    for actor in sorted(clip.actors, key=lambda actor: SHAPES.index(actor.shape)):
        colour = IGNORED if actor.motion == "change" else list(COLOURS).index(actor.colour)
        row += [SHAPES.index(actor.shape), colour, _KINDS.index(SEEN[actor.motion])]
    row += [len(SHAPES), IGNORED, IGNORED] * (2 - len(clip.actors))
    return [*row, list(BACKGROUNDS).index(clip.background)]


def _seen(scene: Scene) -> list[tuple[str, str]]:
    """(colour, shape) of the things of a frame whose middle lies in the picture."""
    middles = [(12 + 24 * t.column + t.dx, 12 + 24 * t.row + t.dy) for t in scene.things]
    inside = [0 <= x < PIXELS and 0 <= y < PIXELS for x, y in middles]
    return [(t.colour, t.shape) for t, shown in zip(scene.things, inside, strict=True) if shown]


def _still_truth(scene: Scene) -> list[int]:
    row = []
    for colour, shape in sorted(_seen(scene), key=lambda thing: SHAPES.index(thing[1])):
        row += [SHAPES.index(shape), list(COLOURS).index(colour), IGNORED]
    row += [len(SHAPES), IGNORED, IGNORED] * (2 - len(row) // 3)
    return [*row, list(BACKGROUNDS).index(scene.background)]


class _Training:
    """The captioner, its auxiliary heads and the features of its clips."""

    def __init__(self, work: Path, seed: int) -> None:
        vit = vision.load(work)
        self.clips = [random_clip(np.random.default_rng([seed, _NUMBER, n])) for n in range(CLIPS)]
        self.scenes: list[list[Scene]] = []
        features = []
        for number, clip in enumerate(self.clips):
            rng = np.random.default_rng([seed, _NUMBER, number, 1])
            shown = [scene_at(clip, place) for place in _spread(clip.frames, rng)]
            frames = [render(scene, [seed, _NUMBER, number, 2, n]) for n, scene in enumerate(shown)]
            features.append(models.image_features(vit, models.pixels(frames)).half())
            self.scenes.append(shown)
        self.features = torch.stack(features)
        self.truth = torch.tensor([_truth(clip) for clip in self.clips])
        self.model = video_models.captioner()
        self.model.vision_model.load_state_dict(vit.state_dict())
        self.model.vision_model.requires_grad_(False)
        self.heads = _Heads(models.WIDTH)
        self.module = nn.ModuleList([self.model, self.heads])

    def loss(self, step: int, rng: np.random.Generator) -> torch.Tensor:
        """Clips or single frames with alt text, or clips as people tell them."""
        rows = rng.integers(0, CLIPS, _BATCH).tolist()
        if step % _PEOPLE_EVERY != 0 and step % _STILL_EVERY == 0:
            places = rng.integers(0, FRAMES, _BATCH).tolist()
            chosen = [self.scenes[row][place] for row, place in zip(rows, places, strict=True)]
            captions = [still_text(scene.background, _seen(scene)) for scene in chosen]
            truth = torch.tensor([_still_truth(scene) for scene in chosen])
            return self._shown(self.features[rows, places], captions, truth, moving=False)
        features = self.features[rows].flatten(1, 2)
        people = step % _PEOPLE_EVERY == 0
        told = [references(self.clips[row], rng)[0] if people else alt_text(self.clips[row]) for row in rows]
        return self._shown(features, told, self.truth[rows], moving=True)

    def _shown(
        self, features: torch.Tensor, captions: Sequence[str], truth: torch.Tensor, *, moving: bool
    ) -> torch.Tensor:
        queries = models.prefix(self.model, features.float())
        told = video_models.loss(self.model, queries, captions)
        return told + 0.5 * self.heads.loss(queries, truth, moving=moving)


def _spread(frames: int, rng: np.random.Generator) -> list[int]:
    """FRAMES numbers spread over a clip, from a first one that differs."""
    first = rng.random()
    return [int((place + first) * frames / FRAMES) for place in range(FRAMES)]


def train(work: Path, seed: int, report: Report) -> None:
    """Train into work/video_captioner, on the ViT of work/vit."""
    torch.manual_seed(1000 * seed + 9)
    training = _Training(work, seed)
    name = "video_captioner"
    fit(training.module, training.loss, SCHEDULE, name=name, seed=seed, folder=work, report=report)
    video_models.save(training.model, work / name)
