"""What stands between a model and its operations: attention in one kernel, and automatic half precision.

On "meta" tensors torch would write attention out, scores and all. Here it keeps queries, keys, values, the
output and a number a row for the way back, as its fused kernels do on CPUs and GPUs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from limner.plan.shadow import Ledger, Work

F = nn.functional
PRODUCTS = {
    F.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm,
    torch.mm, torch.addmm, torch.baddbmm, F.conv1d, F.conv2d, F.conv3d, torch.conv2d, torch.conv3d,
    F.scaled_dot_product_attention,
}  # fmt: skip
"""What is computed in half precision under autocast."""
BACKWARD = 2.5
"""Operations of attention's way back over those of its way there: two products become five."""


class Fused(torch.autograd.Function):
    """Attention that never writes its scores."""

    @staticmethod
    def forward(ctx: Any, ledger: Ledger, flops: float, mask: Any, *qkv: torch.Tensor) -> torch.Tensor:
        """(B, heads, Q, D), laid out as (B, Q, heads, D)."""
        q, k, v = qkv
        batch, heads, rows = q.shape[:3]
        out = q.new_empty(batch, rows, heads, v.shape[-1]).transpose(1, 2)
        sums = q.new_empty(batch, heads, rows, dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, sums, mask)
        ctx.ledger, ctx.flops = ledger, flops
        ledger.count(work(flops, q, k, v, out))
        return out

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        """Gradients of queries, keys and values."""
        q, k, v, out, _, _ = ctx.saved_tensors
        ctx.ledger.count(work(BACKWARD * ctx.flops, q, k, v, out, q, k, v))
        return None, None, None, torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def work(flops: float, *tensors: torch.Tensor) -> Work:
    """The work of a kernel that reads or writes the tensors once."""
    moved = sum(each.numel() * each.dtype.itemsize for each in tensors)
    return Work(flops, float(moved), tensors[0].dtype.itemsize < 4)


class Kernels(TorchFunctionMode):
    """Fused attention, and half precision inside `half`."""

    def __init__(self, ledger: Ledger):
        """Count in the ledger."""
        super().__init__()
        self.ledger = ledger
        self.dtype: torch.dtype | None = None
        self._cast: dict[int, torch.Tensor] = {}

    @contextlib.contextmanager
    def half(self, dtype: torch.dtype) -> Iterator[None]:
        """Products are computed in this format; the copies of weights live until the end, as autocast's."""
        before, self.dtype = self.dtype, dtype
        try:
            yield
        finally:
            self.dtype = before
            self._cast.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call."""
        kwargs = kwargs or {}
        if self.dtype is not None and func in PRODUCTS:
            args = tuple(self._lowered(each) for each in args)
            kwargs = {name: self._lowered(each) for name, each in kwargs.items()}
        if func is F.scaled_dot_product_attention and args[0].is_meta:
            return self._attend(*args, **kwargs)
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == "meta":
            known = func(*args, **{**kwargs, "device": "cpu"})  # what is written down is known
            return known.to("meta") if known.is_floating_point() else known
        if func is torch.take_along_dim and args[0].is_meta:  # it refuses real places
            return _taken(*args, **kwargs)
        return func(*args, **kwargs)

    def _attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: Any = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: Any = None, enable_gqa: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        pairs = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
        flops = 2.0 * pairs * (q.shape[3] + v.shape[3]) / (2 if is_causal else 1)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = q.new_empty(attn_mask.shape)  # what is added to the scores
        return Fused.apply(self.ledger, flops, attn_mask, q, k, v)  # type: ignore[no-any-return]

    def _lowered(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            return value
        if not (value.is_leaf and value.requires_grad):
            return value.to(self.dtype)
        if id(value) not in self._cast:
            self._cast[id(value)] = value.to(self.dtype)
        return self._cast[id(value)]


def _taken(source: torch.Tensor, indices: torch.Tensor, dim: int) -> torch.Tensor:
    shape = list(source.shape)
    shape[dim] = indices.shape[dim]
    return source.gather(dim, indices.expand(shape))
