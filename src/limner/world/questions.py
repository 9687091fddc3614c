"""Multiple-choice questions about a scene, and what a caption says to them.

Each question can be answered from the full caption of its scene, `limner.world.captions.full(scene)`. Its
wrong options are drawn from the scene where the scene has any: colours of the other things, cells of the
grid, relations that do not hold. There is none about size: all things of this world are alike in it.

A caption is read as `limner.world.truth` reads it: colours before a shape are its own, a relation joins the
things named before and after it. It lists what there is, in reading order; so it says how many things there
are, and where they stand if only one arrangement in the grid fits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from limner.questions import Question
from limner.world.captions import full
from limner.world.scenes import BACKGROUNDS, COLOURS, SHAPES, SPLITS, Scene, Thing, scene
from limner.world.truth import RELATIONS, holds

KINDS = ("existence", "colour", "count", "position", "relation", "background")
EXISTENCE = "Which of these shapes is in the picture?"
COLOUR = "What colour is the {}?"
COLOURED = "Which shape is {}?"
COUNT = "How many shapes are in the picture?"
POSITION = "In which corner is the {}?"
RELATION = "Where is the {}, seen from the {}?"
BACKGROUND = "What colour is the background?"
TEXTS = (EXISTENCE, COLOUR, COLOURED, COUNT, POSITION, RELATION, BACKGROUND)
"""The questions, with blanks for shapes and colours."""
NUMBERS = ("one", "two", "three", "four")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
"""The cells of the grid in reading order."""
_OPTIONS = 4
_MOST_THINGS = 3


@dataclass(frozen=True, slots=True)
class Told:
    """What a caption says, true or not."""

    shapes: tuple[str, ...]
    """Shapes in the order in which they are named."""
    colours: tuple[frozenset[str], ...]
    """The colours said of each of them."""
    relations: tuple[tuple[int, str], ...]
    """(place of the second thing, relation of the thing before it to that one)."""
    backgrounds: frozenset[str]
    """Backgrounds named."""

    def colours_of(self, shape: str) -> frozenset[str]:
        """All colours said of a shape."""
        pairs = zip(self.shapes, self.colours, strict=True)
        return frozenset(colour for name, colours in pairs if name == shape for colour in colours)

    def layouts(self) -> list[tuple[Thing, ...]]:
        """Every arrangement of the named things in the grid that the caption allows, in reading order.

        None where a shape is named twice, more things are named than a scene has, or relations contradict
        each other.
        """
        if len(set(self.shapes)) < len(self.shapes) or len(self.shapes) > _MOST_THINGS:
            return []
        found = []
        for cells in combinations(range(4), len(self.shapes)):
            named = zip(self.shapes, cells, strict=True)
            things = tuple(Thing(shape, "", cell % 2, cell // 2, 0, 0) for shape, cell in named)
            if all(holds(relation, things[place - 1], things[place]) for place, relation in self.relations):
                found.append(things)
        return found


def read(caption: str) -> Told:
    """What a caption says. Any string is accepted; words that say nothing are passed over."""
    words = caption.split()
    shapes: list[str] = []
    said: list[frozenset[str]] = []
    relations: list[tuple[int, str]] = []
    backgrounds: set[str] = set()
    colours: set[str] = set()
    between: list[str] = []
    for word, following in pairwise([*words, ""]):
        if word in COLOURS or (word in BACKGROUNDS and following in SHAPES):
            colours.add(word)
        elif word in SHAPES:
            relations += [(len(shapes), relation) for relation in between if shapes]
            shapes.append(word)
            said.append(frozenset(colours))
            colours, between = set(), []
        elif word in RELATIONS:
            between.append(word)
        elif word == "and":
            between = []
        elif word in BACKGROUNDS:
            backgrounds.add(word)
    return Told(tuple(shapes), tuple(said), tuple(relations), frozenset(backgrounds))


def answer(caption: str | Told, question: Question) -> int | None:
    """Place of the option that a caption states or implies; None where it says none of them, or several.

    The scene has no part in this: of a false caption the answer is false.

    Args:
        caption: any string, or what was read of it.
        question: one of `questions`, with its options in any order.
    """
    told = caption if isinstance(caption, Told) else read(caption)
    fits = _ANSWERS[question.kind](told, question)
    return fits[0] if len(fits) == 1 else None


def questions(told: Scene, rng: np.random.Generator) -> tuple[Question, ...]:
    """5 questions or more (one thing), up to 15 (three things), in the order of KINDS.

    Args:
        told: what they ask about.
        rng: draws wrong options, the order of options, and in which direction relations are asked for.
    """
    return tuple(_shuffled(made, rng) for made in _questions(told, rng))


def questions_of(seed: int, index: int, split: str) -> tuple[Question, ...]:
    """The questions that belong to scene number `index` of a split, always the same.

    Raises:
        ValueError: as `limner.world.scenes.scene`.
    """
    told = scene(seed, index, split)
    return questions(told, np.random.default_rng([seed, list(SPLITS).index(split), index, 2]))


def _questions(told: Scene, rng: np.random.Generator) -> Iterator[Question]:
    """With the right option first."""
    things = told.things
    shapes, colours = [thing.shape for thing in things], [thing.colour for thing in things]
    absent = [shape for shape in SHAPES if shape not in shapes]
    for thing in things:
        yield _question("existence", EXISTENCE, thing.shape, [], absent, rng)
    for thing in things:
        text = COLOUR.format(thing.shape)
        yield _question("colour", text, thing.colour, colours, list(COLOURS), rng)
    for thing in things:
        if colours.count(thing.colour) == 1:
            text = COLOURED.format(thing.colour)
            yield _question("colour", text, thing.shape, shapes, absent, rng)
    yield Question(COUNT, _first(NUMBERS, NUMBERS[len(things) - 1]), 0, "count")
    everything = read(full(told))
    for thing in things:
        made = Question(POSITION.format(thing.shape), _first(CORNERS, _corner(thing)), 0, "position")
        if answer(everything, made) is not None:
            yield made
    for first, second in pairwise(things):
        if rng.random() < 0.5:
            first, second = second, first
        true = [relation for relation in RELATIONS if holds(relation, first, second)]
        options = [true[0], *(relation for relation in RELATIONS if relation not in true)]
        text = RELATION.format(first.shape, second.shape)
        yield Question(text, tuple(map(_spoken, options)), 0, "relation")
    yield Question(BACKGROUND, _first(tuple(BACKGROUNDS), told.background), 0, "background")


def _question(
    kind: str, text: str, right: str, near: Sequence[str], far: Sequence[str], rng: np.random.Generator
) -> Question:
    """Wrong options are those `near`, which the scene has, then some of those `far`."""
    wrong = [option for option in dict.fromkeys(near) if option != right]
    others = [option for option in far if option != right and option not in wrong]
    wrong += [others[place] for place in rng.permutation(len(others))]
    return Question(text, (right, *wrong[: _OPTIONS - 1]), 0, kind)


def _first(options: Sequence[str], right: str) -> tuple[str, ...]:
    return (right, *(option for option in options if option != right))


def _shuffled(question: Question, rng: np.random.Generator) -> Question:
    order = rng.permutation(len(question.options)).tolist()
    options = tuple(question.options[place] for place in order)
    return Question(question.text, options, order.index(question.answer), question.kind)


def _corner(thing: Thing) -> str:
    return CORNERS[2 * thing.row + thing.column]


def _spoken(relation: str) -> str:
    return f"{relation} of it" if relation in ("left", "right") else f"{relation} it"


def _named(question: Question, words: Sequence[str]) -> list[str]:
    """The words of a kind that a question's text holds, in order."""
    return [word for word in question.text.replace("?", " ").replace(",", " ").split() if word in words]


def _existing(told: Told, question: Question) -> list[int]:
    return [place for place, option in enumerate(question.options) if option in told.shapes]


def _coloured(told: Told, question: Question) -> list[int]:
    shape = _named(question, SHAPES)
    if shape:
        said = told.colours_of(shape[0])
        return [place for place, option in enumerate(question.options) if said == {option}]
    (colour,) = _named(question, tuple(COLOURS))
    said = [told.colours_of(option) for option in question.options]
    return [place for place, colours in enumerate(said) if colours == {colour}]


def _counted(told: Told, question: Question) -> list[int]:
    number = len(told.shapes)
    if not 1 <= number <= len(NUMBERS) or len(set(told.shapes)) < number:
        return []
    return [question.options.index(NUMBERS[number - 1])]


def _positioned(told: Told, question: Question) -> list[int]:
    (shape,) = _named(question, SHAPES)
    cells = {_corner(thing) for things in told.layouts() for thing in things if thing.shape == shape}
    return [place for place, option in enumerate(question.options) if cells == {option}]


def _related(told: Told, question: Question) -> list[int]:
    shapes = _named(question, SHAPES)
    layouts = [{thing.shape: thing for thing in things} for things in told.layouts()]
    if not layouts or not set(shapes) <= set(told.shapes):
        return []
    relations = [option.split()[0] for option in question.options]
    return [
        place
        for place, relation in enumerate(relations)
        if all(holds(relation, *(things[shape] for shape in shapes)) for things in layouts)
    ]


def _backed(told: Told, question: Question) -> list[int]:
    return [place for place, option in enumerate(question.options) if told.backgrounds == {option}]


_ANSWERS: dict[str, Callable[[Told, Question], list[int]]] = {
    "existence": _existing,
    "colour": _coloured,
    "count": _counted,
    "position": _positioned,
    "relation": _related,
    "background": _backed,
}
