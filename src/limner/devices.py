"""Names of devices and number formats, as recipes write them."""

from __future__ import annotations

import ctypes
import os

import torch

from limner.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of settings in glibc's malloc.h; the most that they can be is a C int, and 32 MiB."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def torch_device(name: str) -> torch.device:
    """The device of a name; "auto" is the first GPU (of several processes each its own), else the CPU.

    Raises:
        UserError: there is no such device.
    """
    if name in ("auto", "cuda") and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        place = int(os.environ["LOCAL_RANK"])
        if place >= torch.cuda.device_count():
            raise UserError(
                f"run.device: {place + 1} processes, but {torch.cuda.device_count()} GPUs are visible; "
                "launch one process a GPU, or use run.device=cpu"
            )
        return torch.device("cuda", place)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"run.device: {name!r} is not a device; use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"run.device: {name} asked for, but no GPU is visible to PyTorch; use run.device=cpu")
    return device


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, for the next step of a run on a CPU; returns whether it does.

    It gives large tensors back to the system otherwise, which zeroes their pages anew in every step. Where
    the library is not glibc, or was told by its own variables what to do, nothing is changed.
    """
    if any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 32 << 20) and mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))


def torch_dtype(name: str) -> torch.dtype:
    """The number format of a name.

    Raises:
        UserError: it is not one of DTYPES.
    """
    if name not in DTYPES:
        raise UserError(f"run.dtype: {name!r} is not one of {', '.join(DTYPES)}")
    return DTYPES[name]
