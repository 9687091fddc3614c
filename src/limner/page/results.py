"""What a look at one picture gives: captions of one or two captioners, with what was measured of them."""

from __future__ import annotations

from dataclasses import dataclass

from limner.serve.batching import Done


@dataclass(frozen=True)
class Token:
    """One token of a caption."""

    text: str
    """As the tokenizer decodes it alone."""
    logprob: float
    """Its log-probability under the captioner that wrote it, before temperature and top_p; at most 0."""
    earned: float
    """Its return: what it and the tokens after it earn. NaN where nothing was scored."""


@dataclass(frozen=True)
class Earned:
    """What one reward says of a caption."""

    name: str
    """The reward's name in the recipe."""
    value: float
    """Before its weight, a reward of tokens summed; NaN where it could not be scored."""
    note: str = ""
    """Why it could not be scored, or what it found."""


@dataclass(frozen=True)
class Told:
    """One caption."""

    text: str
    """What it says."""
    tokens: tuple[Token, ...]
    """Its tokens, the end of sequence included."""
    ended: bool
    """False where the limit cut it."""
    parts: tuple[Earned, ...]
    """One a reward."""
    total: float
    """The weighted sum of what was scored; NaN where nothing was."""


@dataclass(frozen=True)
class Side:
    """What one captioner says of a picture."""

    name: str
    """The captioner's."""
    captions: tuple[Told, ...]
    """Its captions."""


@dataclass(frozen=True)
class Studied(Done):
    """The answer to a look: what `Done` holds is of the served captioner."""

    sides: tuple[Side, ...]
    """The served captioner, and before it the one it is compared with."""
