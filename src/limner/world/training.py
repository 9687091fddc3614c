"""What the training stages of the world share: the loop, resumable at any step, and the targets."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from limner.world.models import pixels
from limner.world.scenes import BACKGROUNDS, COLOURS, SHAPES, SPLITS, Scene, picture, scene

Report = Callable[[str, int, int, float], None]
"""Called with the stage, the steps done, all steps, and the loss."""
Loss = Callable[[int, np.random.Generator], torch.Tensor]
"""The loss of one step; everything random in it comes from the generator."""

NOTHING = len(SHAPES)
"""Class of an empty place among the shapes."""
IGNORED = -100
_CHECKPOINT_STEPS = 200


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns."""

    steps: int
    """Optimiser steps."""
    lr: float
    """Highest learning rate of AdamW; it falls along a cosine to 3% of this."""
    warmup: int = 50
    """Steps of linear warm-up."""

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 1."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return self.lr * min(1.0, step / self.warmup) * (0.97 * cosine + 0.03)


def fit(
    module: nn.Module, loss: Loss, schedule: Schedule, *, name: str, seed: int, folder: Path, report: Report
) -> None:
    """Train the parameters of `module` that want gradients.

    Every step draws its chance from (seed, name, step), so that a run that was killed and goes on from
    its last checkpoint in `folder` ends as one that was never killed.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=schedule.lr, weight_decay=0.01)
    checkpoint = folder / f"{name}.checkpoint.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    stage = list(name.encode())
    for step in range(start, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step + 1)
        value = loss(step, np.random.default_rng([seed, *stage, step]))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if (step + 1) % 10 == 0:
            report(name, step + 1, schedule.steps, value.item())
        if (step + 1) % _CHECKPOINT_STEPS == 0:
            state = {"step": step + 1, "module": module.state_dict(), "optimiser": optimiser.state_dict()}
            beside = checkpoint.with_suffix(".new")
            torch.save(state, beside)
            os.replace(beside, checkpoint)


def pictures(seed: int, split: str) -> tuple[list[Scene], torch.Tensor]:
    """All scenes of a split and their pictures, (scenes, 3, 48, 48)."""
    places = range(SPLITS[split])
    scenes = [scene(seed, index, split) for index in places]
    return scenes, pixels([picture(seed, index, split) for index in places])


@dataclass(frozen=True)
class Targets:
    """What is in the scenes, as class numbers; IGNORED where there is nothing to learn."""

    cells: torch.Tensor
    """(scenes, 4, 3): shape (NOTHING when empty), colour, place in reading order (3 when empty) a cell."""
    things: torch.Tensor
    """(scenes, 3, 3): shape (NOTHING when there are fewer things), colour, cell of each thing."""
    background: torch.Tensor
    """(scenes,)"""


def targets(scenes: Sequence[Scene]) -> Targets:
    """The classes that the auxiliary heads learn."""
    cells = np.full((len(scenes), 4, 3), IGNORED)
    cells[:, :, 0], cells[:, :, 2] = NOTHING, 3
    things = np.full((len(scenes), 3, 3), IGNORED)
    things[:, :, 0] = NOTHING
    colours, backgrounds = list(COLOURS), list(BACKGROUNDS)
    for row, scene_ in enumerate(scenes):
        for place, thing in enumerate(scene_.things):
            shape, colour = SHAPES.index(thing.shape), colours.index(thing.colour)
            cell = 2 * thing.row + thing.column
            cells[row, cell] = shape, colour, place
            things[row, place] = shape, colour, cell
    background = torch.tensor([backgrounds.index(scene_.background) for scene_ in scenes])
    return Targets(torch.from_numpy(cells), torch.from_numpy(things), background)


def cross_entropy(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over all leading dimensions, without IGNORED."""
    return functional.cross_entropy(logits.flatten(0, -2), classes.flatten(), ignore_index=IGNORED)


class QueryHeads(nn.Module):
    """Auxiliary heads on query outputs: query j tells thing j, the fourth query tells the background.

    They hold the queries apart while they learn, and are thrown away.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.thing = nn.Linear(width, len(SHAPES) + 1 + len(COLOURS) + 4)
        self.background = nn.Linear(width, len(BACKGROUNDS))

    def loss(self, queries: torch.Tensor, truth: Targets, rows: torch.Tensor) -> torch.Tensor:
        """Cross-entropies of the scenes `rows`; queries (rows, QUERIES, width)."""
        sizes = [len(SHAPES) + 1, len(COLOURS), 4]
        parts = self.thing(queries[:, :3]).split(sizes, -1)
        things = truth.things[rows]
        total = sum(cross_entropy(part, things[..., kind]) for kind, part in enumerate(parts))
        return total + cross_entropy(self.background(queries[:, 3]), truth.background[rows])
