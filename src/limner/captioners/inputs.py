"""Model inputs that are tensors with one row a sample: enough for most families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch


@dataclass(frozen=True)
class TensorInputs:
    """Model inputs that are tensors with one row a sample: enough for most families."""

    tensors: dict[str, torch.Tensor]
    """Named tensors, all with the same first dimension; a family may keep more of them here later on."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.tensors.values())))

    def select(self, rows: torch.Tensor) -> Self:
        """The given rows (int64 indices), in the given order."""
        return type(self)({name: tensor[rows] for name, tensor in self.tensors.items()})

    def repeat(self, captions: int) -> Self:
        """Every row `captions` times in a row."""
        return type(self)({name: t.repeat_interleave(captions, 0) for name, t in self.tensors.items()})

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)({name: tensor.to(device) for name, tensor in self.tensors.items()})

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of the parts, in order; fewer frames in one part are filled up with zeros.

        Frames are the second of three dimensions or more.
        """
        return cls({name: _stacked([part.tensors[name] for part in parts]) for name in parts[0].tensors})


def _stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """All rows; a tensor with a smaller second dimension gets zeros behind."""
    if tensors[0].dim() < 3 or all(tensor.shape[1:] == tensors[0].shape[1:] for tensor in tensors):
        return torch.cat(list(tensors))
    width = max(tensor.shape[1] for tensor in tensors)
    rows = [tensor.new_zeros(len(tensor), width, *tensor.shape[2:]) for tensor in tensors]
    for row, tensor in zip(rows, tensors, strict=True):
        row[:, : tensor.shape[1]] = tensor
    return torch.cat(rows)
