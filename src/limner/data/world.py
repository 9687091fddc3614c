"""Scenes of the miniature world, drawn as they are asked for. Needs no files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from annotated_types import Ge

from limner.data import base
from limner.errors import UserError
from limner.questions import KEY
from limner.types import Sample


@dataclass(frozen=True)
class Source(base.Source):
    """Scenes of the miniature world, each with its facts in `extra["scene"]` and its `extra["questions"]`."""

    seed: Annotated[int, Ge(0)] = 0
    """Of the world: other seeds are other scenes."""
    split: str = "train"
    """train, validation, test, or unseen (compositions that no other split holds)."""
    count: int | None = None
    """Only the first so many scenes; all of the split if None."""

    def __str__(self) -> str:
        """As it is named on the command line."""
        return f"world:{self.split}"

    def ids(self) -> Sequence[str]:
        """train-000000, train-000001, ...

        Raises:
            UserError: no such split, or it has fewer scenes than `count`.
        """
        return self._ids

    def read(self, index: int) -> Sample:
        """One scene with its picture and its full caption as the reference."""
        if index not in self._drawn:
            self._drawn[index] = self._draw(index)
        return self._drawn[index]

    def _draw(self, index: int) -> Sample:
        from limner.world import captions, questions, scenes

        scene = scenes.scene(self.seed, index, self.split)
        picture = scenes.picture(self.seed, index, self.split)
        extra = {"scene": scene, KEY: questions.questions_of(self.seed, index, self.split)}
        return Sample(self._ids[index], (picture,), (captions.full(scene),), extra)

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        from limner.world.scenes import SPLITS

        if self.split not in SPLITS:
            raise UserError(f"data.split: no split {self.split!r}; there are {', '.join(SPLITS)}")
        size = SPLITS[self.split]
        if self.count is not None and not 1 <= self.count <= size:
            raise UserError(
                f"data.count: {self.count} is outside of 1 to {size}, the scenes of {self.split!r}"
            )
        return tuple(f"{self.split}-{index:06d}" for index in range(self.count or size))

    @cached_property
    def _drawn(self) -> dict[int, Sample]:
        return {}
