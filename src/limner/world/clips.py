"""Clips of the miniature world: one or two coloured shapes that stay, move, come, go, or change colour.

A clip is a function of (seed, split, index), like a scene, and looks like one: the same cells, shapes,
colours and backgrounds. What happens to a thing happens once, in about a fifth of the clip; before and after
it rests in a cell (or outside of the picture), as the frozen ViT has learnt to see things.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from limner.world.scenes import BACKGROUNDS, CELL, COLOURS, HELD_OUT, SHAPES, Scene, Thing, render

SPLITS = {"train": 2000, "validation": 300, "test": 500}
"""Clips in each split."""
MOTIONS = ("stay", "left", "right", "up", "down", "enter", "leave", "change")
"""What can happen to a thing."""
FRAMES = (16, 32)
"""Fewest and most frames of a clip."""
FPS = 8
"""Frames a second, when a clip is written as a video."""
_SPLIT_NUMBER = {name: number for number, name in enumerate(SPLITS)}
_CLIPS = 7
"""Sets the chance of clips apart from that of scenes."""
_MOTION_CHANCE = (0.3, 0.08, 0.08, 0.08, 0.08, 0.09, 0.09, 0.2)
_TWO_ACTORS = 0.65
_DURATION = 0.2
"""Share of a clip that an action takes."""
_FIRST_START, _LAST_START = 0.15, 0.65


@dataclass(frozen=True, slots=True)
class Actor:
    """One thing and what happens to it."""

    shape: str
    """One of SHAPES."""
    colour: str
    """One of COLOURS; the first one where it changes."""
    motion: str
    """One of MOTIONS."""
    column: int
    """Of the cell where it begins, or where it ends when it enters: 0 left, 1 right."""
    row: int
    """Of that cell: 0 top, 1 bottom."""
    start: float
    """When its action begins, as a share of the clip."""
    later_colour: str | None = None
    """What it changes to, where it changes."""
    sideways: bool = False
    """Does it enter or leave at the left or right edge, or else at the top or bottom?"""
    dx: int = 0
    """Shift from the middle of the cell to the right, in pixels."""
    dy: int = 0
    """Shift from the middle of the cell downwards, in pixels."""

    @property
    def cells(self) -> frozenset[tuple[int, int]]:
        """(column, row) of every cell that it is ever in."""
        here = (self.column, self.row)
        if self.motion in ("left", "right"):
            return frozenset({here, (1 - self.column, self.row)})
        if self.motion in ("up", "down"):
            return frozenset({here, (self.column, 1 - self.row)})
        return frozenset({here})


@dataclass(frozen=True, slots=True)
class Clip:
    """What happens in a clip."""

    background: str
    """One of BACKGROUNDS."""
    actors: tuple[Actor, ...]
    """One or two things of different shapes; those that do something first."""
    frames: int
    """Frames of the clip."""


def clip(seed: int, index: int, split: str) -> Clip:
    """Clip number `index` of a split.

    Raises:
        ValueError: unknown split, or an index outside of it.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits of clips are {', '.join(SPLITS)}")
    if not 0 <= index < SPLITS[split]:
        raise ValueError(f"split {split!r} has clips 0 to {SPLITS[split] - 1}, not {index}")
    return random_clip(np.random.default_rng([seed, _SPLIT_NUMBER[split], index, _CLIPS]))


def pictures(seed: int, index: int, split: str, numbers: Sequence[int]) -> tuple[Image.Image, ...]:
    """Frames of clip number `index` of a split, 48 x 48 RGB each.

    Args:
        seed: the world's seed.
        index: number of the clip.
        split: name of a split.
        numbers: which frames, counted from 0.
    """
    told = clip(seed, index, split)
    noise = [seed, _SPLIT_NUMBER[split], index, _CLIPS]
    return tuple(render(scene_at(told, number), [*noise, number]) for number in numbers)


def name(index: int, split: str) -> str:
    """The clip's name: train-clip-000000."""
    return f"{split}-clip-{index:06d}"


def random_clip(rng: np.random.Generator) -> Clip:
    """Draw a clip: no two things of one shape, and none ever in a cell of the other."""
    count = 2 if rng.random() < _TWO_ACTORS else 1
    shapes = [SHAPES[number] for number in rng.permutation(len(SHAPES))[:count]]
    while True:
        actors = [_actor(rng, shape) for shape in shapes]
        if count == 1 or not actors[0].cells & actors[1].cells:
            break
    actors.sort(key=lambda actor: actor.motion == "stay")
    background = tuple(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    return Clip(background, tuple(actors), int(rng.integers(FRAMES[0], FRAMES[1] + 1)))


def _actor(rng: np.random.Generator, shape: str) -> Actor:
    motion = MOTIONS[rng.choice(len(MOTIONS), p=_MOTION_CHANCE)]
    allowed = [colour for colour in COLOURS if (colour, shape) not in HELD_OUT]
    first, second = rng.permutation(len(allowed))[:2].tolist()
    column, row = int(rng.integers(2)), int(rng.integers(2))
    return Actor(
        shape,
        allowed[first],
        motion,
        {"left": 1, "right": 0}.get(motion, column),
        {"up": 1, "down": 0}.get(motion, row),
        start=float(rng.uniform(_FIRST_START, _LAST_START)),
        later_colour=allowed[second] if motion == "change" else None,
        sideways=bool(rng.random() < 0.5),
        dx=int(rng.integers(-1, 2)),
        dy=int(rng.integers(-1, 2)),
    )


def scene_at(clip: Clip, number: int) -> Scene:
    """What frame `number` shows. A thing may be partly or wholly outside of the picture.

    Raises:
        ValueError: the clip has no such frame.
    """
    if not 0 <= number < clip.frames:
        raise ValueError(f"the clip has frames 0 to {clip.frames - 1}, not {number}")
    time = number / (clip.frames - 1)
    return Scene(clip.background, tuple(_at(actor, time) for actor in clip.actors))


def _at(actor: Actor, time: float) -> Thing:
    """An actor at a time from 0 to 1."""
    share = min(1.0, max(0.0, (time - actor.start) / _DURATION))
    done = 0.5 - 0.5 * math.cos(math.pi * share)
    right, down = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(actor.motion, (0, 0))
    if actor.motion in ("enter", "leave"):
        outwards = (2 * actor.column - 1, 0) if actor.sideways else (0, 2 * actor.row - 1)
        right, down = outwards
        done = 1 - done if actor.motion == "enter" else done
    colour = actor.later_colour if actor.later_colour and share >= 0.5 else actor.colour
    dx, dy = round(done * CELL * right), round(done * CELL * down)
    return Thing(actor.shape, colour, actor.column, actor.row, actor.dx + dx, actor.dy + dy)
