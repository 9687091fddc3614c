"""What captions read behind a prefix: of the prefix in one product, and of themselves in another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values."""


@dataclass(frozen=True)
class Grid:
    """M tokens of captions among B prefixes, W captions a prefix, T tokens a caption."""

    shape: tuple[int, int, int]
    """B, W, T."""
    place: torch.Tensor | None
    """(M,) int64 place of each token in the flattened grid; None: all are there, in order."""

    def spread(self, states: torch.Tensor, heads: int) -> torch.Tensor:
        """(M, heads * R, D) -> (B * heads, W * R * T, D); 0 where there is no token."""
        if self.place is not None:
            rows, width, length = self.shape
            empty = states.new_zeros(rows * width * length, *states.shape[1:])
            states = empty.index_copy(0, self.place, states)
        states = states.view(*self.shape, heads, -1, states.shape[-1])
        return states.permute(0, 3, 1, 4, 2, 5).flatten(2, 4).flatten(0, 1).contiguous()

    def gathered(self, states: torch.Tensor) -> torch.Tensor:
        """(B * heads, W * R * T, D) -> (M, heads * R, D)."""
        rows, width, length = self.shape
        states = states.view(rows, -1, width, states.shape[1] // (width * length), length, states.shape[-1])
        states = states.permute(0, 2, 4, 1, 3, 5).flatten(3, 4).flatten(0, 2)
        return states if self.place is None else states[self.place]


class Attended(torch.autograd.Function):
    """(M, heads, D) what tokens of captions read of their prefix and of their caption up to themselves.

    Its gradient is written out here: kept are the shares (B * K, W * R * T, L + T) and nothing else of their
    size, and no part of them is copied for being a part.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, keys: torch.Tensor,
        values: torch.Tensor, grid: Grid, before: torch.Tensor | None, scaling: float,
    ) -> torch.Tensor:  # fmt: skip
        """Attend.

        Args:
            ctx: for the way back.
            query: (M, K * R, D).
            key: (M, K, D).
            value: (M, K, D).
            keys: of the prefix, (B, K, L, D).
            values: of the prefix, (B, K, L, D).
            grid: where the tokens stand.
            before: (B, L) added to the scores of the prefix.
            scaling: of the scores.
        """
        heads, (_, width, length) = keys.shape[1], grid.shape
        keys, values = keys.flatten(0, 1), values.flatten(0, 1)
        query = grid.spread(query, heads) * scaling
        key, value = (_alone(grid.spread(states, heads), width) for states in (key, value))
        own = _alone(query, width)
        later = torch.full((length, length), -torch.inf, dtype=own.dtype, device=own.device).triu_(1)
        near = torch.baddbmm(later.repeat(own.shape[1] // length, 1), own, key.mT)
        if before is None:
            far = torch.bmm(query, keys.mT)
        else:
            far = torch.baddbmm(before.repeat_interleave(heads, 0)[:, None], query, keys.mT)
        shares = torch.cat([far, near.view(*query.shape[:2], length)], -1).softmax(-1)
        far, near = _sides(shares, width, length)
        read = torch.baddbmm(_alone(torch.bmm(far, values), width), near, value).view(query.shape)
        ctx.save_for_backward(query, key, value, keys, values, shares, read)
        ctx.grid, ctx.scaling, ctx.heads = grid, scaling, heads
        return grid.gathered(read)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        """Gradients of the first five arguments."""
        query, key, value, keys, values, shares, read = ctx.saved_tensors
        grid, heads, (_, width, length) = ctx.grid, ctx.heads, ctx.grid.shape
        out = grid.spread(out, heads)
        own, made = _alone(query, width), _alone(out, width)
        far, near = _sides(shares, width, length)
        to_values, to_value = torch.bmm(far.mT, out), torch.bmm(near.mT, made)
        mean = -(out * read).sum(-1, keepdim=True)  # of the shares' gradients, by the shares
        far = torch.baddbmm(mean, out, values.mT)
        near = torch.baddbmm(_alone(mean, width), made, value.mT)
        scores = torch.cat([far, near.view(*query.shape[:2], length)], -1).mul_(shares)
        far, near = _sides(scores, width, length)
        to_query = torch.baddbmm(_alone(torch.bmm(far, keys), width), near, key).view(query.shape)
        to_keys, to_key = torch.bmm(far.mT, query), torch.bmm(near.mT, own)
        whole = (len(query) // heads, heads, *keys.shape[1:])
        to_key, to_value = (x.view(len(query), -1, x.shape[-1]) for x in (to_key, to_value))
        return (
            *(grid.gathered(x) for x in (to_query * ctx.scaling, to_key, to_value)),
            *(x.view(whole) for x in (to_keys, to_values)),
            *(None, None, None),
        )


def _alone(states: torch.Tensor, width: int) -> torch.Tensor:
    """(B * K, W * X, D) -> (B * K * W, X, D): each caption for itself."""
    return states.view(-1, states.shape[1] // width, states.shape[2])


def _sides(shares: torch.Tensor, width: int, length: int) -> Pair:
    """(B * K, W * R * T, L) shares of the prefix, and (B * K * W, R * T, T) of the captions themselves."""
    return shares[..., :-length], _alone(shares, width)[..., -length:]
