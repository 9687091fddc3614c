"""Which facts of a scene a caption states, which of them are true, and what is missing.

The reader of captions here is deliberately simple and accepts any string. A thing is named by its
shape. Colours before a shape belong to it; a relation joins the things named before and after it;
"and" ends a relation. Whatever is said of a thing that is not there, or that was named before, is
false. Words that state nothing (a colour or a relation that is left hanging) are no facts.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from limner.world.scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing

RELATIONS = ("above", "below", "left", "right")
"""First words of the relations; "left" and "right" are followed by "of"."""

Kind = Literal["shape", "colour", "background", "relation"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One claim of a caption."""

    kind: Kind
    words: tuple[int, int]
    """First word and one past the last word, counted in the caption's words."""
    text: str
    """The claim in words: "star", "red star", "pink background", "star above ring"."""
    true: bool
    """Does it hold in the scene?"""


@dataclass(frozen=True, slots=True)
class Truth:
    """A caption held against its scene."""

    stated: tuple[Fact, ...]
    """Claims of the caption in the order of their words."""
    missing: tuple[str, ...]
    """Facts of the scene that the caption does not state."""
    total: int
    """Facts of the scene: shapes, colours, background and relations of consecutive things."""

    @property
    def share_true(self) -> float:
        """Share of the stated facts that are true; NaN when nothing is stated."""
        return sum(fact.true for fact in self.stated) / len(self.stated) if self.stated else float("nan")

    @property
    def coverage(self) -> float:
        """Share of the scene's facts that are stated."""
        return 1 - len(self.missing) / self.total

    @property
    def relations_stated(self) -> int:
        """Relations that the caption states."""
        return sum(fact.kind == "relation" for fact in self.stated)

    @property
    def relations_true(self) -> int:
        """Relations that the caption states and that are true."""
        return sum(fact.kind == "relation" and fact.true for fact in self.stated)


@dataclass(frozen=True, slots=True)
class _Named:
    """A thing as a caption names it."""

    shape: str
    thing: Thing | None
    """The scene's thing; None when it is not there or was named before."""


def holds(relation: str, first: Thing, second: Thing) -> bool:
    """Does `first` stand above / below / left / right of `second`?"""
    if relation == "above":
        return first.row < second.row
    if relation == "below":
        return first.row > second.row
    if relation == "left":
        return first.column < second.column
    return first.column > second.column


def check(scene: Scene, caption: str) -> Truth:
    """Hold a caption against its scene. Any string is accepted."""
    reader = _Reader(scene)
    words = caption.split()
    for place, word in enumerate(words):
        reader.read(place, word, words[place + 1] if place + 1 < len(words) else "")
    stated = tuple(sorted(reader.stated, key=lambda fact: fact.words))
    missing = _missing(scene, stated, len(reader.related))
    return Truth(stated, missing, 3 * len(scene.things))


class _Reader:
    """Reads a caption word by word and notes the facts."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.things = {thing.shape: thing for thing in scene.things}
        self.stated: list[Fact] = []
        self.related: set[frozenset[str]] = set()
        self.last: _Named | None = None
        self.colours: list[tuple[int, str]] = []
        self.relations: list[tuple[int, int, str]] = []
        self.background_named = False

    def read(self, place: int, word: str, following: str) -> None:
        if word in COLOURS or (word in BACKGROUNDS and following in SHAPES):
            self.colours.append((place, word))
        elif word in SHAPES:
            self._name(place, word)
        elif word in RELATIONS:
            length = 2 if word in ("left", "right") and following == "of" else 1
            self.relations.append((place, place + length, word))
        elif word == "and":
            self.relations = []
        elif word in BACKGROUNDS:
            true = word == self.scene.background and not self.background_named
            self.background_named |= word == self.scene.background
            self.stated.append(Fact("background", (place, place + 1), f"{word} background", true))

    def _name(self, place: int, shape: str) -> None:
        """Note a shape with the colours and relations before it."""
        named = _Named(shape, self.things.pop(shape, None))
        self.stated.append(Fact("shape", (place, place + 1), shape, named.thing is not None))
        for start, colour in self.colours:
            true = named.thing is not None and named.thing.colour == colour
            self.stated.append(Fact("colour", (start, start + 1), f"{colour} {shape}", true))
        if self.last is not None:
            for start, stop, relation in self.relations:
                self._relate(start, stop, relation, self.last, named)
        self.last, self.colours, self.relations = named, [], []

    def _relate(self, start: int, stop: int, relation: str, first: _Named, second: _Named) -> None:
        one, other = first.thing, second.thing
        true = one is not None and other is not None and holds(relation, one, other)
        if true:
            self.related.add(frozenset((first.shape, second.shape)))
        words = f"{relation} of" if relation in ("left", "right") else relation
        text = f"{first.shape} {words} {second.shape}"
        self.stated.append(Fact("relation", (start, stop), text, true))


def _missing(scene: Scene, stated: tuple[Fact, ...], related: int) -> tuple[str, ...]:
    """Facts not stated; `related` pairs of things stand in a true relation, whichever pairs they are."""
    true = Counter(fact.text for fact in stated if fact.true)
    facts = [thing.shape for thing in scene.things]
    facts += [f"{thing.colour} {thing.shape}" for thing in scene.things]
    facts.append(f"{scene.background} background")
    missing = [fact for fact in facts if fact not in true]
    pairs = list(zip(scene.things, scene.things[1:], strict=False))
    unstated = [
        f"{first.shape} and {second.shape} related"
        for first, second in pairs
        if not any(f"{first.shape} {way} {second.shape}" in true for way in _WAYS)
        and not any(f"{second.shape} {way} {first.shape}" in true for way in _WAYS)
    ]
    return (*missing, *unstated[: max(0, len(pairs) - related)])


_WAYS = ("above", "below", "left of", "right of")
