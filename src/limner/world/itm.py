"""Stage 4: the image-text matching model, the reward.

It tells a picture's caption from other captions. Most negatives are captions of other pictures, because a
model trained mostly on one-wrong-word negatives finds every true caption equally good and gives no reason
for detail. Positives hold a wrong word now and then, as web text does, which makes one wrong word cost
something and not everything. A second phase adds false relations. In both, captions of one scene are
ranked in pairs: one fact more must be worth more, and so must one wrong word or one invented thing less.
(Without the invented things a policy learns to invent them where a scene has only one thing to name.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from limner.world import models, vision
from limner.world.captions import (
    corrupt,
    false_relation,
    full,
    has_held_out_pair,
    invent,
    noisy,
    partial,
    varied,
)
from limner.world.scenes import BACKGROUNDS, COLOURS, HELD_OUT, SHAPES, Scene, Thing, render
from limner.world.tokenizer import framed
from limner.world.training import QueryHeads, Report, Schedule, fit, pictures, targets
from limner.world.truth import check

_PAIRS, _RANKED = 44, 12
_SIBLINGS = 6000
_MARGIN = 0.5
"""What a fact more, or a fault less, should add to the match logit at least."""


@dataclass(frozen=True)
class Negatives:
    """What the false half of a batch is made of; the rest are captions held against random other pictures."""

    similar: float = 0.5
    """Share of other pictures that are the most similar of twelve."""
    sibling: float = 0.2
    """Share of pictures that are held against a near-duplicate."""
    one_word: float = 0.15
    """Share of captions with one wrong word, on their own picture."""
    relation: float = 0.0
    """Share of captions with a false relation, on their own picture."""
    invented: float = 0.12
    """Share of captions with a thing that is not there or was named before, on their own picture."""
    word_noise: float = 0.06
    """Share of wrong words in the captions that belong to their picture."""
    ranked: bool = True
    """Are captions of one scene ranked in pairs as well?"""


PHASES = {
    "mixed": (
        (Schedule(steps=2000, lr=1.2e-3), Negatives()),
        (Schedule(steps=1000, lr=8e-4), Negatives(relation=0.3, word_noise=0.03)),
    ),
    "one_word": (
        (
            Schedule(steps=2000, lr=1.2e-3),
            Negatives(similar=0.0, sibling=0.0, one_word=0.9, invented=0.0, ranked=False),
        ),
    ),
}
"""Kind of negatives -> its phases. "one_word" is the ablation."""


def ladder(scene: Scene) -> list[str]:
    """True captions of growing detail: 1 thing, with background, 2 things, with background, all."""
    counts = range(1, min(2, len(scene.things)) + 1)
    steps = [partial(scene, count, background=shown) for count in counts for shown in (False, True)]
    return steps if len(scene.things) < 3 else [*steps, full(scene)]


def sibling(scene: Scene, rng: np.random.Generator) -> Scene:
    """A near-duplicate: the things in other cells, or one or two attributes changed."""
    while True:
        other = _moved(scene, rng) if rng.random() < 0.6 else _changed(scene, rng)
        if other != scene and not any((thing.colour, thing.shape) in HELD_OUT for thing in other.things):
            return other


def _moved(scene: Scene, rng: np.random.Generator) -> Scene:
    cells = rng.permutation(4)[: len(scene.things)].tolist()
    moved = [
        replace(thing, column=cell % 2, row=cell // 2)
        for thing, cell in zip(scene.things, cells, strict=True)
    ]
    return Scene(scene.background, tuple(sorted(moved, key=lambda thing: (thing.row, thing.column))))


def _changed(scene: Scene, rng: np.random.Generator) -> Scene:
    background, things = scene.background, list(scene.things)
    for _ in range(1 + int(rng.random() < 0.5)):
        kind, place = rng.integers(3), rng.integers(len(things))
        if kind == 0:
            background = tuple(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
        elif kind == 1:
            things[place] = replace(things[place], colour=tuple(COLOURS)[rng.integers(len(COLOURS))])
        else:
            things[place] = replace(things[place], shape=_new_shape(things, rng))
    return Scene(background, tuple(things))


def _new_shape(things: Sequence[Thing], rng: np.random.Generator) -> str:
    free = sorted(set(SHAPES) - {thing.shape for thing in things})
    return free[rng.integers(len(free))]


class _Training:
    """The matching model, its auxiliary heads, the training pictures and their near-duplicates."""

    def __init__(self, work: Path, seed: int) -> None:
        vit = vision.load(work)
        scenes, images = pictures(seed, "train")
        rng = np.random.default_rng([seed, 2000])
        others = [sibling(scene, rng) for scene in scenes[:_SIBLINGS]]
        near = models.pixels([render(scene, [seed, 2000, row]) for row, scene in enumerate(others)])
        self.own = len(scenes)
        self.scenes = scenes + others
        self.features = models.image_features(vit, torch.cat([images, near]))
        self.truth = targets(self.scenes)
        counts = np.array([len(scene.things) for scene in self.scenes])
        self.rows_of_count = (np.nonzero(counts == 1)[0], np.nonzero(counts == 2)[0], np.arange(len(counts)))
        self.model = models.matcher()
        self.model.vision_model.load_state_dict(vit.state_dict())
        self.model.vision_model.requires_grad_(False)
        self.heads, self.words = QueryHeads(models.WIDTH), nn.Linear(models.WIDTH, 1)
        self.module = nn.ModuleList([self.model, self.heads, self.words])
        self.negatives = Negatives()

    def loss(self, _: int, rng: np.random.Generator) -> torch.Tensor:
        pairs = [self._pair(rng) for _ in range(_PAIRS)]
        rows = [row for row, _, _, _ in pairs] + [row for _, _, row, _ in pairs]
        captions = [caption for _, caption, _, _ in pairs] + [caption for _, _, _, caption in pairs]
        ranked = [self._ranked(rng) for _ in range(_RANKED if self.negatives.ranked else 0)]
        rows += [row for row, _, _ in ranked] * 2
        captions += [worse for _, worse, _ in ranked] + [better for _, _, better in ranked]
        scenes = torch.tensor(rows)
        logits, states = models.match(self.model, self.features[scenes], framed(captions))
        matching = torch.tensor([1] * _PAIRS + [0] * _PAIRS)
        loss = functional.cross_entropy(logits[: 2 * _PAIRS], matching)
        if ranked:
            worse, better = logits[2 * _PAIRS :, 1].chunk(2)
            loss = loss + (_MARGIN - (better - worse)).relu().mean()
        words = self._word_loss(states[:, models.QUERIES :], rows, captions)
        return loss + words + 0.3 * self.heads.loss(states, self.truth, scenes)

    def _pair(self, rng: np.random.Generator) -> tuple[int, str, int, str]:
        """Picture and caption that belong together, picture and caption that do not."""
        row = int(rng.integers(self.own))
        near = rng.random() < self.negatives.sibling
        if near:
            row = int(rng.integers(_SIBLINGS)) + (self.own if rng.random() < 0.5 else 0)
        dense = rng.random() < (0.5 if near else 0.3)
        scene = self.scenes[row]
        true = varied(scene, rng, 1.0 if dense else None)
        caption = self._allowed(lambda: noisy(true, rng, self.negatives.word_noise))
        chance = rng.random()
        if chance < self.negatives.one_word:
            return row, caption, row, self._allowed(lambda: corrupt(true, rng, scene))
        if chance < self.negatives.one_word + self.negatives.relation:
            false = false_relation(scene, true, rng)
            if false is not None:
                return row, caption, row, false
        elif chance > 1 - self.negatives.invented:
            place = self._few_things(rng)
            return row, caption, place, self._invented(self.scenes[place], self._detailed(place, rng), rng)
        if near:
            return row, caption, (row + self.own if row < self.own else row - self.own), caption
        return row, caption, self._other(caption, rng), caption

    def _other(self, caption: str, rng: np.random.Generator) -> int:
        """A picture that the caption was not made for."""
        if rng.random() >= self.negatives.similar:
            return int(rng.integers(len(self.scenes)))
        rows = rng.integers(0, len(self.scenes), 12).tolist()
        return max(rows, key=lambda row: check(self.scenes[row], caption).share_true)

    def _ranked(self, rng: np.random.Generator) -> tuple[int, str, str]:
        """A picture and two captions of it, the second better by a fact more or a fault less."""
        kind = rng.random()
        if kind < 0.35:
            row = self._few_things(rng)
            true = self._detailed(row, rng)
            return row, self._invented(self.scenes[row], true, rng), true
        row = int(rng.integers(len(self.scenes)))
        scene = self.scenes[row]
        if kind < 0.65:
            true = self._detailed(row, rng)
            return row, self._allowed(lambda: corrupt(true, rng, scene)), true
        steps = ladder(scene)
        low = int(rng.integers(len(steps) - 1))
        return row, steps[low], steps[low + 1]

    def _detailed(self, row: int, rng: np.random.Generator) -> str:
        """A true caption, most often a full one."""
        return varied(self.scenes[row], rng, 1.0 if rng.random() < 0.7 else None)

    def _invented(self, scene: Scene, caption: str, rng: np.random.Generator) -> str:
        return self._allowed(lambda: invent(scene, caption, rng))

    def _few_things(self, rng: np.random.Generator) -> int:
        """A scene with one thing (45%), two things (30%) or any number."""
        count = int(rng.choice(3, p=(0.45, 0.3, 0.25)))
        rows = self.rows_of_count[count]
        return int(rows[rng.integers(len(rows))])

    def _word_loss(self, states: torch.Tensor, rows: Sequence[int], captions: Sequence[str]) -> torch.Tensor:
        """Every word that states a fact tells whether it is true; states (rows, T, WIDTH), BOS first."""
        places, true = [], []
        for place, (row, caption) in enumerate(zip(rows, captions, strict=True)):
            for fact in check(self.scenes[row], caption).stated:
                places.append((place, 1 + fact.words[0]))
                true.append(float(fact.true))
        first, second = torch.tensor(places).T
        logits = self.words(states[first, second])[:, 0]
        return functional.binary_cross_entropy_with_logits(logits, torch.tensor(true))

    @staticmethod
    def _allowed(draw) -> str:
        """Draw until no pair of colour and shape is named that must stay unseen."""
        while has_held_out_pair(caption := draw()):
            pass
        return caption


def train(work: Path, seed: int, report: Report, *, negatives: str = "mixed") -> None:
    """Train the matching model into work/itm, with the negatives "one_word" into work/itm_one_word."""
    torch.manual_seed(1000 * seed + 4)
    name = "itm" if negatives == "mixed" else f"itm_{negatives}"
    training = _Training(work, seed)
    for number, (schedule, training.negatives) in enumerate(PHASES[negatives]):
        label, finished = f"{name}_{number}", work / f"{name}_{number}.pt"
        if finished.exists():
            training.module.load_state_dict(torch.load(finished, weights_only=True))
            continue
        fit(training.module, training.loss, schedule, name=label, seed=seed, folder=work, report=report)
        torch.save(training.module.state_dict(), finished)
    models.save(training.model, work / name, kind="itm")
