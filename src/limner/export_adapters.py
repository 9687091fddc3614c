"""The policy's LoRA as PEFT keeps it: adapter_model.safetensors and adapter_config.json."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from limner.captioners import adapters, qformer
from limner.captioners.base import POLICY_ADAPTER, Policy, is_adapter, names_part
from limner.errors import UserError

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before the names of the model that it wraps."""


def check(policy: Policy, *, alone: bool) -> list[str]:
    """The modules that are kept whole beside the adapters, because the run trained them too.

    Args:
        policy: as trained.
        alone: whether they are written elsewhere, so that the adapters go alone.

    Raises:
        UserError: the run trained no LoRA, or something that PEFT has no form for.
    """
    if not any(is_adapter(name, POLICY_ADAPTER) for name in policy.trained()):
        raise UserError(
            "--adapters: this run trained no LoRA (captioner.train has no lora(...)); "
            "write everything with -o FOLDER"
        )
    if alone:
        return []
    modules, loose = whole_modules(policy.model, changed(policy))
    if loose:
        partial = "; or give --partial FILE too, which takes all but the LoRA" if policy.partial_parts else ""
        raise UserError(
            f"--adapters: beside its LoRA this run changed {sorted(loose)[0]}, which stands in no module of "
            f"its own, and PEFT keeps whole modules only; write everything with -o FOLDER{partial}"
        )
    return modules


def save(policy: Policy, folder: Path, *, base: str, alone: bool, dtype: torch.dtype | None = None) -> None:
    """Write the adapters, and the image processor as the run had it.

    Args:
        policy: as trained.
        folder: where to.
        base: the base model's name for adapter_config.json.
        alone: whether what else was trained is written elsewhere.
        dtype: of the tensors; float32, as they were trained, if None.

    Raises:
        UserError: see `check`.
    """
    from peft import LoraConfig

    modules = check(policy, alone=alone)
    state = {
        name.replace(f".{POLICY_ADAPTER}.", "."): tensor
        for name, tensor in policy.model.state_dict().items()
        if is_adapter(name, POLICY_ADAPTER) or any(names_part(name, module) for module in modules)
    }
    settings, alpha = policy.settings, policy.settings.lora_alpha
    kind = type(policy.model)
    config = LoraConfig(
        base_model_name_or_path=base,
        auto_mapping={"base_model_class": kind.__name__, "parent_library": kind.__module__},
        inference_mode=True,
        r=settings.lora_rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=settings.lora_dropout,
        target_modules=_targets(policy),
        modules_to_save=modules or None,
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    save_file(
        {PREFIX + name: _as(tensor, dtype).contiguous() for name, tensor in state.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    policy.processor.save_pretrained(folder)


def changed(policy: Policy) -> set[str]:
    """Parameters that may differ from the base checkpoint's, adapters apart."""
    patterns: tuple[str, ...] = ()
    settings = policy.settings
    if isinstance(settings, qformer.Settings):
        patterns = settings.replaced
    return {
        name
        for name, parameter in policy.model.named_parameters()
        if not is_adapter(name) and (parameter.requires_grad or any(names_part(name, p) for p in patterns))
    }


def whole_modules(model: nn.Module, names: Collection[str]) -> tuple[list[str], set[str]]:
    """The largest modules that hold parameters and little else, and the parameters that no module can keep.

    A parameter whose module holds others too takes that module along, unless it is the model itself, or has
    adapters inside or around it.
    """
    modules: list[str] = []
    left = {name for name in names if ".base_layer." not in name}
    under = set(names) - left
    for path, module in model.named_modules():  # a module comes before those inside it
        held = {f"{path}.{name}" for name, _ in module.named_parameters()}
        if path and held and held <= left:
            modules.append(path)
            left -= held
    for name in sorted(left):
        owner = name.rpartition(".")[0]
        if owner and not any(is_adapter(other) for other, _ in model.get_submodule(owner).named_parameters()):
            modules += [] if owner in modules else [owner]
            left.discard(name)
    return modules, left | under


def _targets(policy: Policy) -> str | list[str]:
    """A pattern of the adapted layers that matches no other layer, or their names where there is none."""
    adapted = {name for name, _ in adapters.layers(policy.model)}
    path = next(name for name, module in policy.model.named_modules() if module is policy.language_model)
    ends = "|".join(sorted({re.escape(name.rpartition(".")[2]) for name in adapted}))
    pattern = rf"{re.escape(path)}\..*\.({ends})"
    matched = {name for name, _ in policy.model.named_modules() if re.fullmatch(pattern, name)}
    return pattern if matched == adapted else sorted(adapted)


def _as(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)
