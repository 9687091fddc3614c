"""Runs of real code in which numbers have shapes but no values: what a step would hold, compute and move.

Floating-point tensors are torch's "meta" tensors, which take no memory. Integers and booleans (masks, token
ids, lengths) are real as long as they are small, so that shapes that depend on them come out right. Every
storage is counted while it lives; every operation is counted with the bytes it reads and writes.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
REAL = 1 << 20
"""Integers and booleans up to this many stay real; of larger ones only the shape is known."""
META = torch.device("meta")
CHOICES = {aten.argmax.default, aten.multinomial.default}
"""Operations that choose tokens."""
NEVER = {aten.isnan.default, aten.isinf.default, aten.isin.Tensor_Tensor, aten.isin.Tensor_Scalar}
"""Tests that nothing passes here; all others are passed by everything."""
READS = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default}
"""Operations that give a Python number."""


@dataclass(frozen=True)
class Work:
    """One operation, or many alike."""

    flops: float
    """Floating-point operations; 0 for what only moves numbers."""
    bytes: float
    """Read and written."""
    half: bool
    """Whether it is done in 16 bits."""


@dataclass(eq=False)
class Phase:
    """A part of a step."""

    before: int = 0
    """Bytes that were held when it began."""
    peak: int = 0
    """The most that was held inside it, `before` included."""
    work: dict[Work, float] = field(default_factory=dict[Work, float])
    """What it does, and how often."""

    @property
    def over(self) -> int:
        """The most bytes that were held beyond what was when it began."""
        return self.peak - self.before


class Ledger:
    """Bytes that are held now, and the most in each phase."""

    def __init__(self):
        """Hold nothing."""
        self.now = 0
        self.phases: dict[str, Phase] = {}
        self.open: list[Phase] = []
        self.times = 1.0
        self._held: dict[int, int] = {}

    def hold(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage from now until nothing refers to it; once, however many views it has."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._held:
            return
        self._held[key] = storage.nbytes()
        self.now += storage.nbytes()
        for phase in self.open:
            phase.peak = max(phase.peak, self.now)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self._held.pop(key, 0)

    def count(self, work: Work) -> None:
        """Count an operation."""
        for phase in self.open:
            phase.work[work] = phase.work.get(work, 0.0) + self.times

    @contextlib.contextmanager
    def counting(self, times: float) -> Iterator[None]:
        """Operations inside stand for so many of their kind."""
        before, self.times = self.times, self.times * times
        try:
            yield
        finally:
            self.times = before

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """What is held and done inside; a name that comes again goes on with its phase."""
        phase = self.phases.setdefault(name, Phase(before=self.now))
        phase.peak = max(phase.peak, self.now)
        self.open.append(phase)
        try:
            yield phase
        finally:
            self.open.remove(phase)


class Shadow(TorchDispatchMode):
    """The mode in which operations on values that nobody knows give values that nobody knows."""

    def __init__(self, ledger: Ledger, *, token: int = 0):
        """Count in the ledger; `token` is what every choice of a token gives."""
        super().__init__()
        self.ledger, self.token = ledger, token
        self.done: dict[Any, tuple[Any, Work | None]] = {}
        """Operations that were done on shapes before: most of a model's layers are alike."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation: really where all is known, on shapes alone otherwise."""
        args, kwargs = _placed(func, args, dict(kwargs or {}))
        flat = _leaves((args, kwargs))
        tensors = [each for each in flat if isinstance(each, torch.Tensor)]
        if not any(each.is_meta for each in tensors):
            out = func(*args, **kwargs)
            self._hold(out)
            return out
        if func in READS:
            return _number(args[0])
        changed = _changed(func, args)
        key = None if changed is not None or func.is_view or _indexes(func) else _key(func, flat)
        known = None if key is None else self.done.get(key)
        if known is not None:
            made, work = known
            out = made.again() if isinstance(made, Made) else tree_map_only(Made, Made.again, made)
        else:
            out = changed if changed is not None else self._run(func, args, kwargs)
            work = None if func.is_view else _work(func, args, kwargs, out)
            if key is not None:
                self._remember(key, out, tensors, work)
        if changed is None:
            if isinstance(out, torch.Tensor):
                out = out if func.is_view else self._guess(func, out)
            elif not func.is_view:
                out = tree_map_only(torch.Tensor, lambda each: self._guess(func, each), out)
            self._hold(out)
        if work is not None:
            self.ledger.count(work)
        return out

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The operation on shapes alone."""
        flat, spec = tree_flatten((args, kwargs))
        shapes = [_shape_of(each, func) if isinstance(each, torch.Tensor) else each for each in flat]
        args, kwargs = tree_unflatten(shapes, spec)
        return _masked(func, args) if _indexes(func) else func(*args, **kwargs)

    def _remember(self, key: Any, out: Any, given: Sequence[torch.Tensor], work: Work | None) -> None:
        """Keep what an operation gives, unless it is a part of what it was given."""
        storages = {each.untyped_storage()._cdata for each in given}
        outs = [each for each in _leaves(out) if isinstance(each, torch.Tensor)]
        if all(each.is_meta and each.untyped_storage()._cdata not in storages for each in outs):
            self.done[key] = tree_map_only(torch.Tensor, Made.of, out), work

    def _hold(self, out: Any) -> None:
        for each in _leaves(out):
            if isinstance(each, torch.Tensor):
                self.ledger.hold(each)

    def _guess(self, func: Any, out: torch.Tensor) -> torch.Tensor:
        """A real tensor for small integers and booleans whose values are unknown."""
        if out.is_floating_point() or out.is_complex() or out.numel() > REAL:
            return out
        if out.dtype == torch.bool:
            return torch.full(out.shape, func not in NEVER, dtype=torch.bool)
        return torch.full(out.shape, self.token if func in CHOICES else 0, dtype=out.dtype)


@dataclass(frozen=True)
class Made:
    """What is known of a tensor that an operation gave."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Made:
        """Of a tensor."""
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def again(self) -> torch.Tensor:
        """Another tensor of that kind."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=META)


def _leaves(value: Any) -> list[Any]:
    """What stands in tuples, lists and mappings, in order; torch's own way through them takes far longer."""
    if isinstance(value, tuple | list):
        return [leaf for each in value for leaf in _leaves(each)]
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in _leaves(each)]
    return [value]


def _key(func: Any, flat: Sequence[Any]) -> Any:
    """What decides what an operation gives; None where that cannot be said."""
    signs = [
        (each.shape, each.stride(), each.dtype, each.is_meta) if isinstance(each, torch.Tensor)
        else (type(each), each)
        for each in flat
    ]  # fmt: skip
    key = func, tuple(signs)
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _work(func: Any, args: Any, kwargs: Any, out: Any) -> Work | None:
    """What an operation costs; None where nothing is computed or moved."""
    kind = func._overloadpacket
    if "empty" in kind.__name__:
        return None
    every = [each for each in _leaves((args, kwargs, out)) if isinstance(each, torch.Tensor)]
    flops = flop_registry[kind](*args, **kwargs, out_val=out) if kind in flop_registry else 0
    floats = [each.dtype.itemsize for each in every if each.is_floating_point()]
    return Work(float(flops), float(sum(map(_bytes, every))), bool(floats) and min(floats) < 4)


def _bytes(tensor: torch.Tensor) -> int:
    return min(tensor.numel() * tensor.dtype.itemsize, tensor.untyped_storage().nbytes())


def _changed(func: Any, args: Any) -> torch.Tensor | None:
    """The tensor that an operation writes into; None where it makes a new one."""
    if not func._schema.is_mutable or not args:
        return None
    return args[0] if isinstance(args[0], torch.Tensor) else None


def _placed(func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Where a new tensor stands: floats that are asked for on "meta" there, small integers on the CPU."""
    device = kwargs.get("device")
    if device is None:
        return args, kwargs
    source = args[0] if args and isinstance(args[0], torch.Tensor) else None
    dtype = kwargs.get("dtype") or (torch.get_default_dtype() if source is None else source.dtype)
    if func is aten.arange.default or func is aten.arange.start or func is aten.arange.start_step:
        whole = all(isinstance(each, int) for each in args)
        dtype = kwargs.get("dtype") or (torch.int64 if whole else torch.get_default_dtype())
    elif func is aten.full.default and kwargs.get("dtype") is None:
        dtype = torch.tensor(args[1]).dtype
    if source is not None and source.is_meta:
        return args, {**kwargs, "device": META}
    known = not (dtype.is_floating_point or dtype.is_complex)
    shape: Any = source.shape if source is not None else args[0] if args else ()
    large = isinstance(shape, list | tuple | torch.Size) and torch.Size(shape).numel() > REAL
    if torch.device(device).type == "meta" and known and not large:
        return args, {**kwargs, "device": torch.device("cpu")}
    if torch.device(device).type == "cpu" and large and source is None:
        return args, {**kwargs, "device": META}
    return args, kwargs


def _shape_of(tensor: torch.Tensor, func: Any) -> torch.Tensor:
    """A "meta" tensor like a real one; masks that choose stay real."""
    if tensor.is_meta or (_indexes(func) and tensor.dtype == torch.bool):
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)


def _indexes(func: Any) -> bool:
    return func in (
        aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
        aten._unsafe_index.Tensor, aten.nonzero.default, aten.masked_select.default,
        aten._index_put_impl_.default, aten._unsafe_index_put.default,
    )  # fmt: skip


def _masked(func: Any, args: Any) -> Any:
    """Indexing, with every mask replaced by as many numbers as it chooses; an unknown one chooses all."""
    if func is aten.nonzero.default:
        mask = args[0]
        return torch.empty(mask.numel(), mask.dim(), dtype=torch.int64, device=META)
    if func is aten.masked_select.default:
        return args[0].new_empty(_chosen(args[1]))
    places: list[torch.Tensor | None] = []
    for place in args[1]:
        if place is not None and place.dtype == torch.bool:
            count = _chosen(place)
            places += [torch.empty(count, dtype=torch.int64, device=META) for _ in range(place.dim())]
        else:
            places.append(place)
    source = args[0] if args[0].is_meta else args[0].to(META)
    return func(source, places, *args[2:])


def _chosen(mask: torch.Tensor) -> int:
    return mask.numel() if mask.is_meta else int(mask.sum())


def _number(tensor: torch.Tensor) -> bool | int | float:
    if tensor.dtype == torch.bool:
        return True
    return 1.0 if tensor.is_floating_point() else 0
