"""Inputs of decoder-only vision-language models: rows of any number of images, patches and prompt tokens.

Nothing is padded until rows go through the model together, so rows of different images join, part and repeat
freely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch

Tensors = Mapping[str, tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Row:
    """One sample: the prompt with its image placeholders, and what the image encoder made of the images."""

    ids: torch.Tensor
    """(L,) int64 ids of the whole prompt, one placeholder for every image token."""
    positions: torch.Tensor
    """(1, L) int64 positions; (3, L) where time, height and width have their own."""
    marks: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    """Further tensors (L,) that the model takes beside the ids: which tokens are image tokens."""
    features: Tensors = field(default_factory=dict[str, tuple[torch.Tensor, ...]])
    """What the language model reads of the images, by the name it has in the encoder's output."""
    pixels: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    """What the image processor made; empty where the features never change."""
    kept: Tensors = field(default_factory=dict[str, tuple[torch.Tensor, ...]])
    """What frozen layers of the encoder gave, where layers behind them are trained."""

    def to(self, device: torch.device) -> Row:
        """The same on another device."""

        def moved(tensors: Tensors) -> Tensors:
            return {name: tuple(tensor.to(device) for tensor in held) for name, held in tensors.items()}

        return replace(
            self,
            ids=self.ids.to(device),
            positions=self.positions.to(device),
            marks={name: tensor.to(device) for name, tensor in self.marks.items()},
            features=moved(self.features),
            pixels={name: tensor.to(device) for name, tensor in self.pixels.items()},
            kept=moved(self.kept),
        )


@dataclass(frozen=True)
class PrefixInputs:
    """Model inputs of B samples, each a row of its own shape."""

    rows: tuple[Row, ...]
    """The samples."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def select(self, rows: torch.Tensor) -> Self:
        """The given rows (int64 indices), in the given order."""
        return type(self)(tuple(self.rows[index] for index in rows.tolist()))

    def repeat(self, captions: int) -> Self:
        """Every row `captions` times in a row; tensors are shared, not copied."""
        return type(self)(tuple(row for row in self.rows for _ in range(captions)))

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)(tuple(row.to(device) for row in self.rows))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of the parts, in order."""
        return cls(tuple(row for part in parts for row in part.rows))


@dataclass(frozen=True)
class Prefix:
    """B rows side by side, padded on the left to one length L."""

    ids: torch.Tensor
    """(B, L) int64."""
    there: torch.Tensor | None
    """(B, L) bool, True on prompt tokens; None where no row is padded."""
    positions: torch.Tensor
    """(1 or 3, B, L) int64; 0 on padding."""
    marks: Mapping[str, torch.Tensor]
    """(B, L) each; 0 on padding."""
    features: Mapping[str, tuple[tuple[torch.Tensor, ...], ...]]
    """What the language model reads of the images: for every level, a tensor a row."""

    @property
    def after(self) -> torch.Tensor:
        """(B,) the position of the first caption token."""
        return self.positions.amax((0, 2)) + 1

    @classmethod
    def of(cls, rows: Sequence[Row], features: Sequence[Tensors], pad_id: int) -> Prefix:
        """Put rows side by side.

        Args:
            rows: B rows.
            features: of each row: those it holds, or new ones.
            pad_id: stands before short rows.
        """
        longest = max(len(row.ids) for row in rows)
        padded = any(len(row.ids) != longest for row in rows)
        return cls(
            ids=_left([row.ids for row in rows], longest, pad_id),
            there=_left([torch.ones_like(row.ids, dtype=torch.bool) for row in rows], longest, 0)
            if padded
            else None,
            positions=_left([row.positions for row in rows], longest, 0).transpose(0, 1),
            marks={name: _left([row.marks[name] for row in rows], longest, 0) for name in rows[0].marks},
            features={
                name: tuple(zip(*(each[name] for each in features), strict=True)) for name in features[0]
            },
        )

    def repeat(self, captions: int) -> Prefix:
        """Every row `captions` times in a row; features are shared, not copied."""
        return replace(
            self,
            ids=self.ids.repeat_interleave(captions, 0),
            there=None if self.there is None else self.there.repeat_interleave(captions, 0),
            positions=self.positions.repeat_interleave(captions, 1),
            marks={name: tensor.repeat_interleave(captions, 0) for name, tensor in self.marks.items()},
            features={
                name: tuple(tuple(row for row in level for _ in range(captions)) for level in levels)
                for name, levels in self.features.items()
            },
        )


def _left(tensors: Sequence[torch.Tensor], length: int, value: int) -> torch.Tensor:
    """(B, ..., length) with `value` before short rows."""
    if all(tensor.shape[-1] == length for tensor in tensors):
        return torch.stack(list(tensors))
    rows = [torch.nn.functional.pad(t, (length - t.shape[-1], 0), value=value) for t in tensors]
    return torch.stack(rows)
