"""Names of devices and number formats, as recipes write them."""

from __future__ import annotations

import os

import torch

from limner.errors import UserError

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


def torch_dtype(name: str) -> torch.dtype:
    """The number format of a name.

    Raises:
        UserError: it is not one of DTYPES.
    """
    if name not in DTYPES:
        raise UserError(f"run.dtype: {name!r} is not one of {', '.join(DTYPES)}")
    return DTYPES[name]
