"""Captions of scenes, from "a triangle" to a full description, and captions with something wrong.

A caption is a string of lower-case words. The things are named in reading order: "a red triangle above
a blue star left of a red square on a pink background".
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from limner.world.scenes import BACKGROUNDS, COLOURS, HELD_OUT, SHAPES, Scene, Thing
from limner.world.truth import check, holds

BAD_PREFIXES = ("an image of", "a view of")
"""Beginnings that say nothing about the picture, as web captions have them."""
WORDS = (
    *SHAPES,
    *COLOURS,
    *BACKGROUNDS,
    *("a", "an", "and", "above", "below", "left", "right", "of", "on", "background", "image", "view"),
)
"""Every word of the world."""
_GROUPS: tuple[Sequence[str], ...] = (
    SHAPES,
    tuple(COLOURS),
    tuple(BACKGROUNDS),
    ("above", "below"),
    ("left", "right"),
)
_ALTERNATIVES = {word: [other for other in group if other != word] for group in _GROUPS for word in group}
_SPOKEN = ("above", "left", "right")
"""Relations of reading order: a later thing is never above an earlier one, so "below" is never said."""


def varied(
    scene: Scene, rng: np.random.Generator, density: float | None = None, bad_rate: float = 0.06
) -> str:
    """A true caption with more or less detail.

    Args:
        scene: what to describe.
        rng: source of chance.
        density: chance of each further thing, relation, and of the background; 1 names everything. By
            default it is drawn for each caption, so that all densities occur.
        bad_rate: chance of a prefix of BAD_PREFIXES.
    """
    if density is None:
        density = min(1.0, 0.1 + 1.2 * rng.random())
    count = 1
    while count < len(scene.things) and rng.random() < density:
        count += 1
    words = []
    if rng.random() < bad_rate:
        words.append(BAD_PREFIXES[rng.integers(len(BAD_PREFIXES))])
    for place, thing in enumerate(scene.things[:count]):
        if place:
            related = rng.random() < density
            words.append(_relation(scene.things[place - 1], thing, rng) if related else "and")
        words.append(_phrase(thing, with_colour=rng.random() < 0.2 + density))
    if rng.random() < density:
        words.append(_background(scene))
    return " ".join(words)


def terse(scene: Scene, rng: np.random.Generator) -> str:
    """The caption of somebody who does not care: the first thing, seldom its colour or the second thing."""
    words = _phrase(scene.things[0], with_colour=rng.random() < 0.3)
    if len(scene.things) > 1 and rng.random() < 0.12:
        words += " and " + _phrase(scene.things[1], with_colour=rng.random() < 0.3)
    return words


def full(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """Every fact of the scene; without `rng` the first relation that holds is taken."""
    return partial(scene, len(scene.things), background=True, rng=rng)


def partial(scene: Scene, count: int, *, background: bool, rng: np.random.Generator | None = None) -> str:
    """The first `count` things with colours and relations, with or without the background."""
    words = [_phrase(scene.things[0], with_colour=True)]
    for first, second in zip(scene.things[: count - 1], scene.things[1:count], strict=True):
        words += [_relation(first, second, rng), _phrase(second, with_colour=True)]
    if background:
        words.append(_background(scene))
    return " ".join(words)


def _phrase(thing: Thing, *, with_colour: bool) -> str:
    return f"a {thing.colour} {thing.shape}" if with_colour else f"a {thing.shape}"


def _background(scene: Scene) -> str:
    return f"on a {scene.background} background"


def _spoken(relation: str) -> str:
    return f"{relation} of" if relation in ("left", "right") else relation


def _relation(first: Thing, second: Thing, rng: np.random.Generator | None) -> str:
    true = [relation for relation in _SPOKEN if holds(relation, first, second)]
    return _spoken(true[rng.integers(len(true))] if rng is not None and len(true) > 1 else true[0])


def corrupt(caption: str, rng: np.random.Generator, scene: Scene | None = None) -> str:
    """Exchange one word for another of its kind.

    Without `scene` the new word can happen to be true (another thing of the scene); with it the
    caption that comes back states something false. A caption without a fitting word comes back as it is.
    """
    words = caption.split()
    places = [place for place, word in enumerate(words) if word in _ALTERNATIVES]
    if not places:
        return caption
    while True:
        place = places[rng.integers(len(places))]
        others = _ALTERNATIVES[words[place]]
        wrong = " ".join([*words[:place], others[rng.integers(len(others))], *words[place + 1 :]])
        if scene is None or not all(fact.true for fact in check(scene, wrong).stated):
            return wrong


def noisy(caption: str, rng: np.random.Generator, rate: float) -> str:
    """Exchange each word of a kind with chance `rate`, as in text from the web."""
    words = caption.split()
    for place, chance in enumerate(rng.random(len(words))):
        if chance < rate and words[place] in _ALTERNATIVES:
            others = _ALTERNATIVES[words[place]]
            words[place] = others[rng.integers(len(others))]
    return " ".join(words)


def false_relation(scene: Scene, caption: str, rng: np.random.Generator) -> str | None:
    """Exchange one true relation of a caption for a false one; None when it states no true relation.

    The false relation is one that captions of this world use (never "below"), so that the word alone
    does not give it away.
    """
    relations = [fact for fact in check(scene, caption).stated if fact.kind == "relation" and fact.true]
    if not relations:
        return None
    fact = relations[rng.integers(len(relations))]
    names = fact.text.split()
    things = {thing.shape: thing for thing in scene.things}
    first, second = things[names[0]], things[names[-1]]
    false = [relation for relation in _SPOKEN if not holds(relation, first, second)]
    words = caption.split()
    start, stop = fact.words
    return " ".join([*words[:start], _spoken(false[rng.integers(len(false))]), *words[stop:]])


def invent(scene: Scene, caption: str, rng: np.random.Generator) -> str:
    """Add a thing to a caption, before its background: one that is not there, or one named before.

    Raises:
        ValueError: the caption names nothing.
    """
    words = caption.split()
    named = [place for place, word in enumerate(words) if word in SHAPES]
    if not named:
        raise ValueError(f"the caption {caption!r} names nothing that could be named again")
    if rng.random() < 0.5:
        place = named[rng.integers(len(named))]
        thing = words[place - 1 : place + 1] if words[place - 1] in COLOURS else words[place : place + 1]
    else:
        absent = sorted(set(SHAPES) - {thing.shape for thing in scene.things})
        thing = [tuple(COLOURS)[rng.integers(len(COLOURS))], absent[rng.integers(len(absent))]]
    joint = ("and", *map(_spoken, _SPOKEN))[rng.integers(len(_SPOKEN) + 1)]
    end = named[-1] + 1
    return " ".join([*words[:end], joint, "a", *thing, *words[end:]])


def has_held_out_pair(caption: str) -> bool:
    """Does a caption name a (colour, shape) pair of HELD_OUT?"""
    words = caption.split()
    return any(pair in HELD_OUT for pair in pairwise(words))
