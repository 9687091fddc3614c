"""Clips of the miniature world as frames, drawn as they are asked for. Needs no files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

from limner.data import base
from limner.data.video import Video, choose
from limner.errors import UserError
from limner.types import Sample


@dataclass(frozen=True, kw_only=True)
class Source(base.Source):
    """Clips of the miniature world, each with five references and its facts in `extra["clip"]`."""

    seed: Annotated[int, Ge(0)] = 0
    """Of the world: other seeds are other clips. Draws of headtail depend on it as well."""
    split: str = "train"
    """train, validation or test."""
    count: int | None = None
    """Only the first so many clips; all of the split if None."""
    frames: Annotated[int, Ge(1)] = 8
    """Frames a clip; a shorter clip repeats its last frame."""
    sampling: Literal["uniform", "headtail"] = "uniform"
    """uniform: spread evenly; headtail: half drawn from the first half of the clip, half from the second,
    the same in every epoch."""

    def __str__(self) -> str:
        """As it is named on the command line."""
        return f"world:videos-{self.split}"

    def ids(self) -> Sequence[str]:
        """train-clip-000000, train-clip-000001, ...

        Raises:
            UserError: no such split, or it has fewer clips than `count`.
        """
        return self._ids

    def read(self, index: int) -> Sample:
        """One clip with its frames and its five references; it is drawn once."""
        if index not in self._drawn:
            self._drawn[index] = self._draw(index)
        return self._drawn[index]

    def references(self, index: int) -> tuple[str, ...]:
        """Its five references, without drawing the clip."""
        from limner.world.clip_captions import references_of

        return references_of(self.seed, index, self.split)

    def _draw(self, index: int) -> Sample:
        from limner.world import clips

        told = clips.clip(self.seed, index, self.split)
        wanted = Video(Path(), frames=self.frames, sampling=self.sampling, seed=self.seed)
        times = [number / clips.FPS for number in range(told.frames)]
        numbers = choose(wanted, times, id=self._ids[index])
        pictures = clips.pictures(self.seed, index, self.split, numbers)
        return Sample(self._ids[index], pictures, self.references(index), {"clip": told})

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        from limner.world.clips import SPLITS, name

        if self.split not in SPLITS:
            raise UserError(f"data.split: no split {self.split!r} of clips; there are {', '.join(SPLITS)}")
        size = SPLITS[self.split]
        if self.count is not None and not 1 <= self.count <= size:
            raise UserError(
                f"data.count: {self.count} is outside of 1 to {size}, the clips of {self.split!r}"
            )
        return tuple(name(index, self.split) for index in range(self.count or size))

    @cached_property
    def _drawn(self) -> dict[int, Sample]:
        return {}
