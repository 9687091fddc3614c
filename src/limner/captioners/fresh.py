"""Parts of a checkpoint that start from random weights: what a captioner is worth without its pretraining."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from limner.captioners.base import names_part
from limner.errors import UserError


@torch.no_grad()
def renew(model: PreTrainedModel, patterns: Sequence[str], *, std: float) -> None:
    """Draw the named parameters anew, the same in every run, as transformers does for a new model.

    Parameters of the whole model itself are drawn from a normal distribution instead: transformers starts
    query tokens at zero, where all of them stay alike for ever.

    Args:
        model: loaded from a checkpoint.
        patterns: names as in `captioner.train`.
        std: standard deviation of parameters that stand in no module.

    Raises:
        UserError: a pattern names nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(names_part(name, pattern) for name in names):
            raise UserError(f"captioner.fresh: {pattern!r} names no parameter of this checkpoint")
    owners = {path: module for path, module in model.named_modules() if isinstance(module, PreTrainedModel)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for path, module in model.named_modules():
            drawn = False
            for name, parameter in module.named_parameters(path, recurse=False):
                chosen = any(names_part(name, pattern) for pattern in patterns)
                drawn |= chosen
                # transformers leaves alone what bears this mark
                parameter._is_hf_initialized = not chosen  # type: ignore[attr-defined]
                if chosen and not path:
                    parameter.normal_(0.0, std)
            if drawn and path:
                nearest = max((p for p in owners if not p or names_part(path, p)), key=len)
                owners[nearest]._init_weights(module)
