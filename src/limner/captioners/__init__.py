"""Captioner families. `load` picks the family by the checkpoint's config.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limner.captioners.base import Captioner, Policy


def load(
    path: str,
    *,
    train: Sequence[str] = (),
    prompt: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
) -> Policy:
    """Load any supported captioner.

    Args:
        path: hub id, folder, or `world:captioner`.
        train: parts to train; nothing by default.
        prompt: text before every caption; the family's own if None.
        device: "auto", "cpu", "cuda", ...
        dtype: of the frozen parts: "float32", "bfloat16" or "float16".

    Raises:
        UserError: there is no such checkpoint, or no family for it.
    """
    from limner.devices import torch_device, torch_dtype

    asked: dict[str, Any] = {} if prompt is None else {"prompt": prompt}
    settings = family_of(path)(path=path, train=tuple(train), **asked)
    return settings.load(device=torch_device(device), dtype=torch_dtype(dtype))


def family_of(path: str) -> type[Captioner]:
    """The settings of the family that a checkpoint is of.

    Raises:
        UserError: there is no such checkpoint, or no family for it.
    """
    from limner import component
    from limner.captioners import files
    from limner.errors import UserError

    config = files.read_config(path)
    for kind in component.available("captioners"):
        family: type[Captioner] = component.find("captioners", kind)
        if family.matches(config):
            return family
    known = ", ".join(component.available("captioners"))
    raise UserError(
        f"{path}: no captioner family for model_type {config.get('model_type')!r}; there are: {known}"
    )
