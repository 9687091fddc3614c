"""LoRA adapters inside a language model: the policy's own ("policy") beside the value function's ("value").

Both may sit on one layer. Which of them are on is always said for both at once, so that switching one can
never switch the other. peft is imported where it is used: captioning without adapters does not wait for it.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from limner.errors import UserError

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

POLICY_ADAPTER = "policy"
VALUE_ADAPTER = "value"
OUTSIDE_BRACKETS = re.compile(r",(?![^(]*\))")
LORA = re.compile(r"lora\((.*)\)")


def is_adapter(name: str, adapter: str = "") -> bool:
    """Whether a parameter belongs to a LoRA adapter: to the one of this name, where one is given."""
    return ".lora_" in name and (not adapter or f".{adapter}." in name)


def parts_and_projections(patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split what `captioner.train` lists into parameter patterns and the projections of `lora(q,v)`.

    The comma in `lora(q,v)` ends an item of a YAML list in square brackets; items are joined before they are
    split, so that both spellings mean the same.
    """
    items = [item.strip() for item in OUTSIDE_BRACKETS.split(",".join(patterns)) if item.strip()]
    parts, projections = [], []
    for item in items:
        found = LORA.fullmatch(item)
        if found:
            projections += [name.strip() for name in found[1].split(",") if name.strip()]
        else:
            parts.append(item)
    return parts, projections


def targets(model: nn.Module, projections: Sequence[str]) -> list[str]:
    """The names of a language model's linear layers that projections mean: `q` is `q` or `q_proj`.

    Raises:
        UserError: there is no such layer.
    """
    named = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
    out: list[str] = []
    for projection in projections:
        found = [name for name in (projection, f"{projection}_proj") if name in named]
        if not found:
            raise UserError(
                f"captioner.train: lora({projection}): the language model has no such layer; "
                f"it has: {', '.join(named)}"
            )
        out += found
    return out


def add(
    model: nn.Module, adapter: str, *, layers: Sequence[str], rank: int, alpha: float, dropout: float = 0.0
) -> None:
    """Put a LoRA into the named linear layers, in float32; what else is trained stays as it is.

    B starts at zero, A is drawn from torch's global random numbers. Say with `switch` what is on then.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]: peft only divides it by r
        target_modules=list(layers),
        lora_dropout=dropout,
    )
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    with warnings.catch_warnings():
        # Two adapters in one model are what is meant.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, model, adapter_name=adapter)
    for name, parameter in model.named_parameters():  # peft freezes what it does not know
        if is_adapter(name):
            parameter.data = parameter.data.float()
        else:
            parameter.requires_grad_(id(parameter) in trained)


def switch(model: nn.Module, *, on: Collection[str], trained: str) -> None:
    """Turn on these adapters and no others; only the parameters of `trained` take gradient."""
    for _, layer in layers(model):
        held = [adapter for adapter in on if adapter in layer.lora_A]
        layer.set_adapter(held)
        layer.enable_adapters(bool(held))
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter.requires_grad_(is_adapter(name, trained))


@contextlib.contextmanager
def dropping(model: nn.Module, adapter: str) -> Iterator[None]:
    """Dropout of an adapter is active inside."""
    drops = [layer.lora_dropout[adapter] for _, layer in layers(model) if adapter in layer.lora_A]
    for drop in drops:
        drop.train()
    try:
        yield
    finally:
        for drop in drops:
            drop.eval()


@torch.no_grad()
def merged(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The state under its checkpoint names, the policy's LoRA added to the weights, the value's left out."""
    changes = {
        f"{name}.base_layer.weight": layer for name, layer in layers(model) if POLICY_ADAPTER in layer.lora_A
    }
    for name, tensor in model.state_dict().items():
        if is_adapter(name):
            continue
        if name in changes:
            delta = changes[name].get_delta_weight(POLICY_ADAPTER)  # type: ignore[attr-defined]
            tensor = (tensor.float() + delta.float()).to(tensor.dtype)
        yield name.replace(".base_layer.", "."), tensor


def layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """The layers that hold adapters, by name."""
    if not any(is_adapter(name) for name, _ in model.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module
