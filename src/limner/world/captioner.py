"""Stages 2 and 3: the captioner.

First its Q-Former and its language model learn together on captions of every density. (A language model
this small, trained on captions alone and frozen before, cannot be steered by a prefix.) Then, with the
language model frozen, it learns from a mixture as web data is: mostly terse captions, a few fuller ones.
Its beam captions become terse, while sampling still finds detail now and then.

Colours have queries of their own. While it learns, they come from another picture with as many things, and
the caption is told with those colours: else the language model takes a shape as evidence against the one
colour it never came with, and pairs never seen together cannot be said.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import Blip2ForConditionalGeneration

from limner.world import models, vision
from limner.world.captions import terse, varied
from limner.world.scenes import BACKGROUNDS, COLOURS, HELD_OUT, SHAPES, Scene
from limner.world.tokenizer import BOS, EOS, PAD, UNK, VOCABULARY, encode, padded
from limner.world.training import IGNORED, Report, Schedule, Targets, cross_entropy, fit, pictures, targets
from limner.world.truth import RELATIONS

SCHEDULE = Schedule(steps=1200, lr=1.5e-3)
MIXTURE = Schedule(steps=400, lr=5e-4, warmup=20)
FULLER_SHARE = 0.03
"""Share of fuller captions in the mixture."""
_DETAIL = 0.3
"""Weight of what fuller captions say, beside the choice between terse and fuller."""
_BATCH = 64
_UNCONDITIONAL_FROM, _UNCONDITIONAL_EVERY = 300, 6
_WORD_DROPOUT, _DROPOUT_SHARE = 0.2, 0.7
"""Until 70% of the steps a fifth of the words read is hidden, so that a shape is told from the picture and
not from its colour: pairs of colour and shape that were never seen together can then be said."""
_COLOURS_ALONE = 0.2
"""Share of captions in which only the colours count, and neither queries nor words tell the shape."""
_FORMS, _BACKGROUND, _COLOUR_QUERIES = slice(0, 3), 3, slice(4, 7)
"""Which query tells what: j shape and cell of thing j, 3 the background, 4 + j the colour of thing j."""

_COLOUR_WORDS = torch.tensor(encode(" ".join(COLOURS)))
_SHAPE_WORDS = torch.tensor(encode(" ".join(SHAPES)))
_RELATIONS = torch.tensor(encode(" ".join(RELATIONS)))
_NEVER_TERSE = torch.tensor(encode("on image view " + " ".join(RELATIONS)))


def next_token_logits(
    model: Blip2ForConditionalGeneration, queries: torch.Tensor | None, read: torch.Tensor
) -> torch.Tensor:
    """Logits (rows, T, V) behind each of the tokens `read` (rows, T), BOS first.

    Args:
        model: the captioner.
        queries: (rows, QUERIES, WIDTH) Q-Former output; None for the language model by itself.
        read: token ids, PAD after the end.
    """
    language = model.language_model
    embedded, seen = language.get_input_embeddings()(read), (read != PAD).long()
    if queries is None:
        return language(inputs_embeds=embedded, attention_mask=seen).logits
    visual = model.language_projection(queries)
    ones = torch.ones(visual.shape[:2], dtype=torch.long)
    output = language(
        inputs_embeds=torch.cat([visual, embedded], 1), attention_mask=torch.cat([ones, seen], 1)
    )
    return output.logits[:, visual.shape[1] :]


class _Heads(nn.Module):
    """Auxiliary heads that give each query its task while it learns; thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.form = nn.Linear(width, len(SHAPES) + 1 + 4)
        self.colour = nn.Linear(width, len(COLOURS))
        self.background = nn.Linear(width, len(BACKGROUNDS))

    def loss(self, queries: torch.Tensor, truth: Targets, rows: torch.Tensor) -> torch.Tensor:
        """Cross-entropies of the scenes `rows`; queries (rows, QUERIES, width)."""
        shape, cell = self.form(queries[:, _FORMS]).split([len(SHAPES) + 1, 4], -1)
        things = truth.things[rows]
        return (
            cross_entropy(shape, things[..., 0])
            + cross_entropy(cell, things[..., 2])
            + cross_entropy(self.colour(queries[:, _COLOUR_QUERIES]), things[..., 1])
            + cross_entropy(self.background(queries[:, _BACKGROUND]), truth.background[rows])
        )


class _Training:
    """The captioner, its auxiliary heads and the features of the training pictures."""

    def __init__(self, work: Path, seed: int) -> None:
        vit = vision.load(work)
        self.scenes, images = pictures(seed, "train")
        self.features = models.image_features(vit, images)
        self.truth = targets(self.scenes)
        self.model = models.captioner()
        self.model.vision_model.load_state_dict(vit.state_dict())
        self.model.vision_model.requires_grad_(False)
        self.heads = _Heads(models.WIDTH)
        self.module = nn.ModuleList([self.model, self.heads])
        counts = np.array([len(scene.things) for scene in self.scenes])
        self.with_count = {count: np.nonzero(counts == count)[0] for count in (1, 2, 3)}

    def varied(self, step: int, rng: np.random.Generator) -> torch.Tensor:
        """Captions of every density; now and then the language model reads them without the picture."""
        rows, others, scenes = self._recoloured(rng)
        read, wanted = _shifted([varied(scene, rng) for scene in scenes])
        if step < _DROPOUT_SHARE * SCHEDULE.steps:
            hidden = torch.from_numpy(rng.random(tuple(read.shape)) < _WORD_DROPOUT) & (read > EOS)
            read = read.masked_fill(hidden, UNK)
        if step > _UNCONDITIONAL_FROM and step % _UNCONDITIONAL_EVERY == 0:
            return cross_entropy(next_token_logits(self.model, None, read), wanted)
        queries, heads = self._queries(rows, others)
        formless = torch.from_numpy(rng.random(_BATCH) < _COLOURS_ALONE)[:, None]
        shown = torch.ones_like(queries)
        shown[formless[:, 0], _FORMS] = 0
        wanted = wanted.masked_fill(formless & ~torch.isin(wanted, _COLOUR_WORDS), IGNORED)
        read = read.masked_fill(formless & torch.isin(read, _SHAPE_WORDS), UNK)
        return cross_entropy(next_token_logits(self.model, queries * shown, read), wanted) + 0.5 * heads

    def mixture(self, _: int, rng: np.random.Generator) -> torch.Tensor:
        """Half of the batch is terse, half fuller; weights make the share FULLER_SHARE.

        Only the choice between the two kinds is weighted. Which relation stands where one stands, and all
        behind the first word that no terse caption has, counts in full: the likelihood has its optimum at
        the same place, and the few fuller captions stay true.
        """
        rows, others, scenes = self._recoloured(rng)
        half = _BATCH // 2
        captions = [terse(scene, rng) for scene in scenes[:half]]
        captions += [varied(scene, rng, bad_rate=0.12) for scene in scenes[half:]]
        read, wanted = _shifted(captions)
        behind = _left_terse(read) & (wanted != IGNORED)
        weight = torch.full(wanted.shape, 1 - FULLER_SHARE)
        weight[half:] = FULLER_SHARE
        weight = weight * (wanted != IGNORED) * ~behind
        queries, heads = self._queries(rows, others)
        logits = next_token_logits(self.model, queries, read)
        each = functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        related = torch.isin(wanted, _RELATIONS)
        which = (wanted[related][:, None] == _RELATIONS).int().argmax(1)
        relation = functional.cross_entropy(logits[related][:, _RELATIONS], which)
        loss = (each * weight).sum() / weight.sum() + _DETAIL * (each[behind].mean() + relation)
        return loss + 0.5 * heads

    def _recoloured(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, list[Scene]]:
        """Pictures, for each another one with as many things, and the scenes of the first in its colours.

        Where that would make a held-out pair, the other picture is the first one again.
        """
        rows = rng.integers(0, len(self.scenes), _BATCH)
        others, scenes = rows.copy(), []
        for place, row in enumerate(rows):
            scene = self.scenes[row]
            alike = self.with_count[len(scene.things)]
            other = alike[rng.integers(len(alike))]
            pairs = zip(scene.things, self.scenes[other].things, strict=True)
            things = tuple(replace(thing, colour=lender.colour) for thing, lender in pairs)
            if any((thing.colour, thing.shape) in HELD_OUT for thing in things):
                scenes.append(scene)
            else:
                others[place] = other
                scenes.append(Scene(scene.background, things))
        return torch.from_numpy(rows), torch.from_numpy(others), scenes

    def _queries(self, rows: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries (rows, QUERIES, WIDTH) of pictures, colour queries of the others; the loss of the heads."""
        both = torch.cat([rows, others])
        queries = models.prefix(self.model, self.features[both])
        own, lent = queries.chunk(2)
        last = _COLOUR_QUERIES.stop
        mixed = torch.cat([own[:, : _COLOUR_QUERIES.start], lent[:, _COLOUR_QUERIES], own[:, last:]], 1)
        return mixed, self.heads.loss(queries, self.truth, both)


def _shifted(captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens that are read and the next ones that are wanted, both (captions, T); IGNORED behind EOS."""
    written = padded([[*encode(caption), EOS] for caption in captions])
    read = torch.cat([torch.full((len(written), 1), BOS), written[:, :-1]], 1)
    return read, written.masked_fill(written == PAD, IGNORED)


def _left_terse(read: torch.Tensor) -> torch.Tensor:
    """True where the tokens read so far, (rows, T), cannot begin a terse caption."""
    foreign = torch.isin(read, _NEVER_TERSE).cumsum(1) > 0
    return foreign | ((read == VOCABULARY["and"]).cumsum(1) > 1)


def train(work: Path, seed: int, report: Report) -> None:
    """Train on captions of every density into work/captioner_varied; the heads go to captioner_heads.pt."""
    torch.manual_seed(1000 * seed + 2)
    training = _Training(work, seed)
    fit(training.module, training.varied, SCHEDULE, name="captioner", seed=seed, folder=work, report=report)
    torch.save(training.heads.state_dict(), work / "captioner_heads.pt")
    models.save(training.model, work / "captioner_varied", kind="captioner")


def train_mixture(work: Path, seed: int, report: Report) -> None:
    """Make the captioner of work/captioner_varied terse, into work/captioner.

    The auxiliary heads go on, so that the queries keep telling what is there.
    """
    torch.manual_seed(1000 * seed + 3)
    training = _Training(work, seed)
    before = Blip2ForConditionalGeneration.from_pretrained(work / "captioner_varied", dtype=torch.float32)
    training.model.load_state_dict(before.state_dict())
    training.heads.load_state_dict(torch.load(work / "captioner_heads.pt", weights_only=True))
    training.model.language_model.requires_grad_(False)
    fit(training.module, training.mixture, MIXTURE, name="mixture", seed=seed, folder=work, report=report)
    models.save(training.model, work / "captioner", kind="captioner")
