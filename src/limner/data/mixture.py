"""Several sources as one, by ratio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from math import gcd
from typing import Annotated

import numpy as np
from annotated_types import Ge

from limner.config_build import Component
from limner.data import base
from limner.data.order import Draw
from limner.errors import UserError
from limner.types import Sample


@dataclass(frozen=True, kw_only=True)
class Source(base.Source):
    """Several sources as one: of every `sum(ratio)` samples that are drawn, `ratio` come from each part.

    Each part goes through epochs of its own, however often the others begin anew: all of its items are drawn
    before one of them comes again. An epoch of the mixture is as many samples as it takes to draw every item
    of every part at least once.
    """

    parts: Mapping[str, Annotated[base.Source, Component("data")]]
    """Data sources by a name of yours; `kind` is that name unless it is given. Ids are NAME/ID."""
    ratio: Mapping[str, Annotated[int, Ge(1)]]
    """How many samples of each part are drawn in a round, by the same names: {webvid: 7, msrvtt: 1}."""

    def __post_init__(self) -> None:
        """Refuse parts without a ratio, ratios without a part, and mixtures of nothing."""
        if not self.parts:
            raise UserError("parts: empty: name at least one data source")
        if odd := sorted(self.parts.keys() ^ self.ratio.keys()):
            raise UserError(
                f"ratio: must name the parts, {', '.join(self.parts)}; differs in {', '.join(odd)}"
            )

    def __str__(self) -> str:
        """Its parts with their ratios."""
        return " + ".join(f"{self.ratio[name]} x {part}" for name, part in self.parts.items())

    def ids(self) -> Sequence[str]:
        """All ids of the first part, then those of the second, ...; each with its part's name before it."""
        return self._ids

    def read(self, index: int) -> Sample:
        """An item of a part, with the part's name before its id.

        Raises:
            Reject: it cannot be used.
        """
        part, place = self.part_of(index)
        return replace(part.read(place), id=self._ids[index])

    def references(self, index: int) -> tuple[str, ...]:
        """References of an item, its media unopened.

        Raises:
            Reject: it cannot be used.
        """
        part, place = self.part_of(index)
        return part.references(place)

    def part_of(self, index: int) -> tuple[base.Source, int]:
        """The part that holds an item, and the item's number in it."""
        for part, start, size in zip(self.parts.values(), self._starts, self._sizes, strict=True):
            if index < start + size:
                return part, index - start
        raise IndexError(index)

    def draws(self, *, seed: int, position: int = 0, shuffle: bool = True) -> Iterator[Draw]:
        """Draws from the parts in turn, in the same pattern round after round.

        Args:
            seed: of the order in each part.
            position: how many were drawn before.
            shuffle: False takes the items of each part in order.
        """
        rounds, within = divmod(position, len(self._round))
        taken = [rounds * ratio + self._round[:within].count(n) for n, ratio in enumerate(self._ratio)]
        seeds = np.random.SeedSequence(seed).generate_state(len(self.parts)).tolist()
        streams = [
            part.draws(seed=part_seed, position=before, shuffle=shuffle)
            for part, part_seed, before in zip(self.parts.values(), seeds, taken, strict=True)
        ]
        while True:
            for n in self._round[within:]:
                draw = next(streams[n])
                yield Draw(self._starts[n] + draw.item, draw.epoch)
            within = 0

    def epoch_length(self) -> int:
        """How many draws it takes until every item of every part was drawn."""
        parts = zip(self.parts.values(), self._ratio, strict=True)
        return len(self._round) * max(-(-part.epoch_length() // ratio) for part, ratio in parts)

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        return tuple(f"{name}/{id}" for name, part in self.parts.items() for id in part.ids())

    @cached_property
    def _sizes(self) -> list[int]:
        return [len(part) for part in self.parts.values()]

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate(self._sizes, initial=0))[:-1]

    @cached_property
    def _ratio(self) -> list[int]:
        """The ratios of the parts in order, in lowest terms."""
        given = [self.ratio[name] for name in self.parts]
        return [ratio // gcd(*given) for ratio in given]

    @cached_property
    def _round(self) -> list[int]:
        """The numbers of the parts as they are drawn from in a round, each spread evenly."""
        places = [((k + 0.5) / ratio, n) for n, ratio in enumerate(self._ratio) for k in range(ratio)]
        return [n for _, n in sorted(places)]
