"""GPUs, and how long work takes on them: the larger of computing and moving, operation by operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from limner.component import did_you_mean
from limner.errors import UserError
from limner.plan.shadow import Work

COMPUTING = 0.5
"""Share of the peak rate that matrix products reach."""
MOVING = 0.7
"""Share of the peak bandwidth that everything else reaches."""
CALL = 8e-6
"""Seconds between two operations that Python starts one after another; small ones take no less."""
OVERHEAD = int(1.5 * 2**30)
"""Bytes that the CUDA context and the libraries' workspaces take."""
USABLE = 0.95
"""Share of a GPU's memory that can be filled; the rest is lost between blocks of the allocator."""
NETWORK = 50e9
"""Bytes a second from node to node, a GPU: one 400 Gbit/s link each."""
LINK_SHARE = 0.7
"""Share of a link's rate that collective operations reach."""


@dataclass(frozen=True)
class Gpu:
    """What a data sheet says: operations and bytes a second."""

    memory: int
    """Bytes."""
    half: float
    """Operations a second in bfloat16, dense."""
    single: float
    """The same in float32; limner does not use TF32."""
    bandwidth: float
    """Of its memory."""
    link: float
    """To its neighbours in a node, one way."""
    source: str
    """Where the numbers are from."""

    def seconds(self, work: Mapping[Work, float]) -> float:
        """How long work takes, so many times each."""
        return sum(times * self._one(each) for each, times in work.items())

    def _one(self, work: Work) -> float:
        rate = self.half if work.half else self.single
        return max(work.flops / (COMPUTING * rate), work.bytes / (MOVING * self.bandwidth), CALL)


GPUS: Mapping[str, Gpu] = {
    "h100": Gpu(80 * 10**9, 989e12, 67e12, 3.35e12, 450e9, "NVIDIA H100 data sheet, SXM"),
    "h200": Gpu(141 * 10**9, 989e12, 67e12, 4.8e12, 450e9, "NVIDIA H200 data sheet, SXM"),
    "a100": Gpu(80 * 10**9, 312e12, 19.5e12, 2.039e12, 300e9, "NVIDIA A100 data sheet, SXM 80 GB"),
    "a100-40gb": Gpu(40 * 10**9, 312e12, 19.5e12, 1.555e12, 300e9, "NVIDIA A100 data sheet, SXM 40 GB"),
    "l40s": Gpu(48 * 10**9, 362e12, 91.6e12, 0.864e12, 32e9, "NVIDIA L40S data sheet"),
    "a10": Gpu(24 * 10**9, 125e12, 31.2e12, 0.6e12, 32e9, "NVIDIA A10 data sheet"),
}
"""By name."""


def gpu(name: str) -> Gpu:
    """A GPU of the table.

    Raises:
        UserError: there is none of this name.
    """
    if name.lower() not in GPUS:
        raise UserError(f"--gpu {name}: {did_you_mean(name.lower(), GPUS)}; known: {', '.join(GPUS)}")
    return GPUS[name.lower()]


def size(text: str) -> int:
    """Bytes of `80GB`, `40 GiB`, `512MB`; GB are 10^9 bytes, GiB 2^30, as data sheets and torch have them.

    Raises:
        UserError: it is no such size.
    """
    units = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    number, unit = text.strip().lower(), ""
    for name in sorted(units, key=len, reverse=True):
        if number.endswith(name):
            number, unit = number.removesuffix(name).strip(), name
            break
    try:
        found = float(number) * units[unit]
    except (KeyError, ValueError):
        raise UserError(f"--memory {text}: not a size; write 80GB, 40GiB or 24000MB") from None
    if not 0 < found < float("inf"):
        raise UserError(f"--memory {text}: must be more than nothing")
    return int(found)
