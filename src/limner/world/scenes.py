"""Scenes of the miniature world: what is in a picture, and the picture itself.

A scene has one to three things in a grid of 2 x 2 cells on a plain background. The things stand in
reading order (row by row, left to right) and no two of them share a shape, so that a caption can
name each of them. Everything is a function of (seed, split, index).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

PIXELS = 48
"""Side of a picture in pixels."""
CELL = PIXELS // 2
RADIUS = 9.5
"""Half the extent of a thing in pixels."""

Levels = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 170, 50),
    "blue": (40, 70, 230),
    "yellow": (240, 220, 40),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
BACKGROUNDS = {
    "grey": (128, 128, 128),
    "pink": (250, 180, 200),
    "brown": (120, 80, 50),
    "teal": (60, 150, 150),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
HELD_OUT = frozenset({("red", "star"), ("green", "ring"), ("blue", "cross"), ("yellow", "triangle")})
"""(colour, shape) pairs that only the split "unseen" holds."""

SPLITS = {"train": 16000, "validation": 1000, "test": 1000, "unseen": 1000}
"""Scenes in each split."""
_STRANGE_DISTANCE = 70.0
_SPLIT_NUMBER = {name: number for number, name in enumerate(SPLITS)}
_THINGS_CHANCE = (0.08, 0.32, 0.6)
_UNSEEN_THINGS_CHANCE = (0.0, 0.35, 0.65)
"""Never one thing alone: there are so few held-out pairs that many such scenes would share their caption."""

Pairs = Literal["seen", "any", "unseen"]


@dataclass(frozen=True, slots=True)
class Thing:
    """One coloured shape in one cell."""

    shape: str
    """One of SHAPES."""
    colour: str
    """One of COLOURS."""
    column: int
    """0 left, 1 right."""
    row: int
    """0 top, 1 bottom."""
    dx: int
    """Shift from the middle of the cell to the right, in pixels."""
    dy: int
    """Shift from the middle of the cell downwards, in pixels."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows."""

    background: str
    """One of BACKGROUNDS."""
    things: tuple[Thing, ...]
    """One to three things in reading order."""


def scene(seed: int, index: int, split: str) -> Scene:
    """Scene number `index` of a split.

    Raises:
        ValueError: unknown split, or an index outside of it.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    if not 0 <= index < SPLITS[split]:
        raise ValueError(f"split {split!r} has scenes 0 to {SPLITS[split] - 1}, not {index}")
    rng = np.random.default_rng([seed, _SPLIT_NUMBER[split], index])
    return random_scene(rng, pairs="unseen" if split == "unseen" else "seen")


def picture(seed: int, index: int, split: str) -> Image.Image:
    """The picture of scene number `index` of a split, 48 x 48 RGB."""
    return render(scene(seed, index, split), [seed, _SPLIT_NUMBER[split], index, 1])


def random_scene(rng: np.random.Generator, *, pairs: Pairs = "seen") -> Scene:
    """Draw a scene.

    Args:
        rng: source of chance.
        pairs: "seen" draws no pair of HELD_OUT, "any" draws all pairs alike, "unseen" draws at least
            one pair of HELD_OUT.
    """
    count = int(rng.choice(3, p=_UNSEEN_THINGS_CHANCE if pairs == "unseen" else _THINGS_CHANCE)) + 1
    cells = sorted(rng.permutation(4)[:count].tolist())
    shapes = [SHAPES[number] for number in rng.permutation(len(SHAPES))[:count]]
    colours = [_colour(rng, shape, pairs) for shape in shapes]
    if pairs == "unseen":
        held_out = sorted(HELD_OUT)
        colour, shape = held_out[rng.integers(len(held_out))]
        place = shapes.index(shape) if shape in shapes else int(rng.integers(count))
        shapes[place], colours[place] = shape, colour
    things = [
        Thing(shape, colour, cell % 2, cell // 2, int(rng.integers(-1, 2)), int(rng.integers(-1, 2)))
        for shape, colour, cell in zip(shapes, colours, cells, strict=True)
    ]
    return Scene(tuple(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))], tuple(things))


def strange_palette(rng: np.random.Generator) -> dict[str, Levels]:
    """Six colours that have no name here: each is far from all of COLOURS and BACKGROUNDS."""
    named = np.array([*COLOURS.values(), *BACKGROUNDS.values()])
    palette = {}
    while len(palette) < len(COLOURS):
        levels = rng.integers(0, 256, 3)
        if np.linalg.norm(named - levels, axis=1).min() > _STRANGE_DISTANCE:
            palette[list(COLOURS)[len(palette)]] = tuple(levels.tolist())
    return palette


def _colour(rng: np.random.Generator, shape: str, pairs: Pairs) -> str:
    allowed = [colour for colour in COLOURS if pairs != "seen" or (colour, shape) not in HELD_OUT]
    return allowed[rng.integers(len(allowed))]


def render(
    scene: Scene, noise_seed: int | Sequence[int], *, palette: Mapping[str, Levels] = COLOURS
) -> Image.Image:
    """Draw a scene, 48 x 48 RGB, with noise of at most 8 levels a channel.

    Drawn at twice the size and averaged, so that edges are smooth. `palette` tells how colours look.
    """
    scale = 2
    background = BACKGROUNDS[scene.background]
    image = Image.new("RGB", (PIXELS * scale, PIXELS * scale), background)
    brush = ImageDraw.Draw(image)
    for thing in scene.things:
        x = (CELL // 2 + CELL * thing.column + thing.dx) * scale
        y = (CELL // 2 + CELL * thing.row + thing.dy) * scale
        _draw(brush, thing.shape, (x, y), RADIUS * scale, fill=palette[thing.colour], hole=background)
    rng = np.random.default_rng(noise_seed)
    pixels = np.asarray(image.resize((PIXELS, PIXELS), Image.Resampling.BOX)).astype(np.int16)
    pixels += rng.integers(-8, 9, pixels.shape, dtype=np.int16)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _draw(
    brush: ImageDraw.ImageDraw,
    shape: str,
    middle: tuple[float, float],
    radius: float,
    *,
    fill: Levels,
    hole: Levels,
) -> None:
    """Draw one shape; `hole` is the colour inside a ring."""
    x, y = middle

    def box(width: float, height: float) -> list[float]:
        return [x - width, y - height, x + width, y + height]

    if shape == "circle":
        brush.ellipse(box(radius, radius), fill=fill)
    elif shape == "square":
        brush.rectangle(box(0.9 * radius, 0.9 * radius), fill=fill)
    elif shape == "triangle":
        low = y + 0.85 * radius
        brush.polygon([(x, y - radius), (x + radius, low), (x - radius, low)], fill=fill)
    elif shape == "star":
        reach = [radius * (1.1 if corner % 2 == 0 else 0.42) for corner in range(10)]
        angles = [corner * math.pi / 5 for corner in range(10)]
        corners = zip(reach, angles, strict=True)
        brush.polygon([(x + r * math.sin(a), y - r * math.cos(a)) for r, a in corners], fill=fill)
    elif shape == "cross":
        brush.rectangle(box(radius, 0.32 * radius), fill=fill)
        brush.rectangle(box(0.32 * radius, radius), fill=fill)
    else:
        brush.ellipse(box(radius, radius), fill=fill)
        brush.ellipse(box(0.55 * radius, 0.55 * radius), fill=hole)
