"""Several captions in one row behind one prefix: where their tokens stand, and what each of them sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch

ROW = 256
"""Caption tokens that may share a row whatever the length of the prefix; longer prefixes take more."""


@dataclass(frozen=True)
class Slots:
    """Where caption tokens stand when several captions share a row. W slots a row."""

    caption: torch.Tensor
    """(rows, W) int64 number of the caption, 0..N-1."""
    time: torch.Tensor
    """(rows, W) int64 place in the caption, 0..T-2."""
    used: torch.Tensor
    """(rows, W) bool, True where there is a token."""

    @classmethod
    def of(cls, fed: torch.Tensor, together: int) -> Slots:
        """Close up the tokens of `together` captions a row; fed (N, T-1) bool says which are there."""
        count, width = fed.shape
        flat = fed.reshape(count // together, together * width)
        widest = int(flat.sum(1).max())
        order = (~flat).long().argsort(dim=1, stable=True)[:, :widest]
        first = torch.arange(0, count, together, device=fed.device)[:, None]
        return cls(first + order // width, order % width, flat.gather(1, order))

    def sees(self, there: torch.Tensor, window: int | None) -> torch.Tensor:
        """(rows, W, L + W) bool, what each slot sees: the prefix, and its own caption up to itself.

        Args:
            there: (rows, L) bool, True on tokens of the prefix.
            window: how many positions back a layer sees, itself among them; None: all.
        """
        length, width = there.shape[1], self.time.shape[1]
        own = self.caption[:, :, None] == self.caption[:, None]
        earlier = self.time[:, None] <= self.time[:, :, None]
        before = there[:, None].expand(-1, width, -1)
        seen = torch.cat([before, own & earlier & self.used[:, None]], -1)
        if window is None:
            return seen
        # As if each caption stood alone behind the prefix.
        prompt = torch.arange(length, device=there.device).expand(len(there), -1)
        place = torch.cat([prompt, length + self.time], 1)
        return seen & (place[:, length:, None] - place[:, None] < window)


def added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask of what is seen as numbers to be added to attention scores."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def sharing(captions: int, *, tokens: int, prefix: int) -> int:
    """How many of G captions share a row: as many as divide them and have room.

    Each slot is compared with its whole row, so that rows much longer than the prefix would cost more than
    another copy of the prefix's keys and values.
    """
    room = max(ROW, prefix)
    fits = [g for g in range(1, captions + 1) if captions % g == 0 and g * tokens <= room]
    return max(fits, default=1)
