"""Captions of clips: five references by five people, and the alt text of the web.

People differ in detail (colours, the second thing, the background), in words, in sentence and in order.
All of them say only what the SET of a clip's frames shows. BLIP-2's Q-Former reads the tokens of all frames
at once and has no position for a frame, so frames in another order give the same caption: which way a thing
moves, whether it enters or leaves, and which of its two colours comes first cannot be told.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from limner.world.clips import SPLITS, Actor, Clip, clip
from limner.world.scenes import BACKGROUNDS, COLOURS, SHAPES

SEEN = {
    "stay": "still",
    "left": "sideways",
    "right": "sideways",
    "up": "upright",
    "down": "upright",
    "enter": "border",
    "leave": "border",
    "change": "change",
}
"""What the set of frames shows of a motion."""
VERBS = {
    "still": ("stays still", "does not move", "stands there", "rests"),
    "sideways": ("moves sideways", "slides across", "goes from side to side", "drifts along"),
    "upright": ("moves vertically", "goes up or down", "travels between top and bottom", "climbs or falls"),
    "border": ("comes or goes", "crosses the edge", "is only there for some time", "visits"),
    "change": ("changes colour", "changes between {} and {}", "is both {} and {}", "is once {} and once {}"),
}
"""What people say, the commonest first; the blanks are for the two colours in any order."""
ALT = {
    "still": "unmoved",
    "sideways": "sliding",
    "upright": "lifting",
    "border": "passing",
    "change": "changing",
}
"""The words of alt text."""
REFERENCES = 5
"""References a clip."""
PROMPT = "a video of"
_TOLD = 8
"""Sets the chance of references apart from that of clips."""
_VERB_CHANCE = (0.4, 0.3, 0.2, 0.1)
_JOINTS, _JOINT_CHANCE = ("and", "while", "as"), (0.5, 0.35, 0.15)
_BESIDE = ("near", "next to", "with")
_COLOUR, _SECOND, _BACKGROUND, _ARTICLE = 0.7, 0.7, 0.3, 0.75
"""Chance that somebody says a colour, the second thing, the background, and "a" rather than "the"."""
_IN_ORDER = 0.65
"""Chance that the thing that does something is told first."""


def _words() -> tuple[str, ...]:
    spoken = [phrase for phrases in VERBS.values() for phrase in phrases]
    said = " ".join([*spoken, *_JOINTS, *_BESIDE, *ALT.values(), PROMPT, "a the on in background there is"])
    kept = [word for word in said.split() if word != "{}"]
    return tuple(dict.fromkeys([*SHAPES, *COLOURS, *BACKGROUNDS, *kept]))


WORDS = _words()
"""Every word that is said of clips."""


def references_of(seed: int, index: int, split: str) -> tuple[str, ...]:
    """The five references of clip number `index` of a split.

    Raises:
        ValueError: unknown split, or an index outside of it.
    """
    told = clip(seed, index, split)
    return references(told, np.random.default_rng([seed, list(SPLITS).index(split), index, _TOLD]))


def references(told: Clip, rng: np.random.Generator) -> tuple[str, ...]:
    """What five people say of a clip. All of it is true; two may say the same."""
    return tuple(_reference(told, rng) for _ in range(REFERENCES))


def alt_text(told: Clip) -> str:
    """All there is to see in the one style of alt text, the things in the order of SHAPES.

    "sliding red circle and unmoved blue star in pink"; a thing that changes has no colour.
    """
    actors = sorted(told.actors, key=lambda actor: SHAPES.index(actor.shape))
    return f"{' and '.join(map(_alt, actors))} in {told.background}"


def still_text(background: str, things: Sequence[tuple[str, str]]) -> str:
    """The alt text of one picture, where nothing can be seen to happen.

    Args:
        background: of the picture.
        things: (colour, shape) of the things to be seen; none are told as the background alone.
    """
    ordered = sorted(things, key=lambda thing: SHAPES.index(thing[1]))
    told = " and ".join(f"{colour} {shape}" for colour, shape in ordered)
    return f"{told} in {background}".strip()


def _alt(actor: Actor) -> str:
    seen = SEEN[actor.motion]
    return f"{ALT[seen]} {actor.shape}" if seen == "change" else f"{ALT[seen]} {actor.colour} {actor.shape}"


def _reference(told: Clip, rng: np.random.Generator) -> str:
    """One sentence of one person."""
    actors = list(told.actors)
    if rng.random() > _IN_ORDER:
        actors.reverse()
    article = "a" if rng.random() < _ARTICLE else "the"
    colours = rng.random() < _COLOUR
    words = [_subject(actors[0], article, colours=colours), _verb(actors[0], rng)]
    if len(actors) == 2 and rng.random() < _SECOND:
        second = _subject(actors[1], article, colours=colours)
        if actors[1].motion == "stay" and rng.random() < 0.4:
            words += [_BESIDE[rng.integers(len(_BESIDE))], second]
        else:
            words += [_JOINTS[rng.choice(len(_JOINTS), p=_JOINT_CHANCE)], second, _verb(actors[1], rng)]
    if rng.random() < _BACKGROUND:
        words.append(f"on {told.background}" if rng.random() < 0.4 else f"on a {told.background} background")
    return " ".join(words)


def _subject(actor: Actor, article: str, *, colours: bool) -> str:
    """The thing, without the colour where that changes."""
    if not colours or actor.motion == "change":
        return f"{article} {actor.shape}"
    return f"{article} {actor.colour} {actor.shape}"


def _verb(actor: Actor, rng: np.random.Generator) -> str:
    phrases = VERBS[SEEN[actor.motion]]
    phrase = phrases[rng.choice(len(phrases), p=_VERB_CHANCE)]
    pair = [actor.colour, actor.later_colour or actor.colour]
    if rng.random() < 0.5:
        pair.reverse()
    return phrase.format(*pair)


def motions_right(told: Clip, caption: str) -> tuple[int, int]:
    """How many of a clip's things are told with what happens to them, and how many are told with a verb.

    A verb belongs to the last shape before it. Works on references and on alt text.

    Returns:
        Right ones, and told ones: things whose shape and some verb the caption says.
    """
    truth = {actor.shape: SEEN[actor.motion] for actor in told.actors}
    right = count = 0
    for shape, verb in _told(caption):
        count += 1
        right += truth.get(shape) == verb
    return right, count


def _told(caption: str) -> list[tuple[str, str]]:
    """(shape, what is seen of it) of every thing that a caption tells with a verb."""
    words = caption.split()
    places = [place for place, word in enumerate(words) if word in SHAPES]
    pairs = []
    for place, stop in pairwise([*places, len(words)]):
        before = words[place - 2 : place] if place > 1 else words[:place]
        behind = " ".join(words[place + 1 : stop]) + " "
        found = [seen for seen, word in ALT.items() if word in before]
        found += [
            seen for seen, phrases in VERBS.items() for phrase in phrases if behind.startswith(_start(phrase))
        ]
        pairs += [(words[place], seen) for seen in found[:1]]
    return pairs


def _start(phrase: str) -> str:
    return phrase.partition("{")[0].rstrip() + " "
