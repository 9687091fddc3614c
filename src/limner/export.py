"""From a run to files others load: a Hugging Face folder, and the published VLRM form (trained part only)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from limner import checkpoint
from limner.captioners.base import Policy, is_adapter, names_part
from limner.config import load_resolved
from limner.devices import torch_device, torch_dtype
from limner.errors import UserError


def load_run(run: Path, which: str = "best", *, device: str = "auto", dtype: str | None = None) -> Policy:
    """The captioner of a run as it was at a checkpoint.

    Args:
        run: a run directory.
        which: "best", "last" or a step number.
        device: where to put it.
        dtype: of the frozen parts; the run's where None.

    Raises:
        UserError: it is no run directory, or there is no such checkpoint.
    """
    recipe = load_resolved(run / "resolved.json")
    folder = checkpoint.choose(run, which)
    policy: Policy = recipe.captioner.load(
        device=torch_device(device), dtype=torch_dtype(dtype or recipe.run.dtype)
    )
    state = load_file(folder / "policy.safetensors")
    with torch.no_grad():
        for name, parameter in policy.trained().items():
            parameter.copy_(state[f"parameter/{name}"])
    return policy


def export(run: Path, out: Path | None = None, *, which: str = "best", partial: Path | None = None) -> Policy:
    """Write what was trained.

    Args:
        run: a run directory.
        out: a new folder for a Hugging Face checkpoint that plain transformers loads.
        which: "best", "last" or a step number.
        partial: a .safetensors or .pt file for the trained part only, fp16, meant for `captioner.weights` or
            load_state_dict(strict=False) as published with VLRM.

    Returns:
        The captioner.

    Raises:
        UserError: nothing to write was named, the folder is not empty, the run cannot be read, or what it
            trained does not fit into the published form.
    """
    if out is None and partial is None:
        raise UserError("nothing to write: give -o FOLDER, --partial FILE, or both")
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: is not empty; give a new folder")
    if partial is not None and partial.suffix not in (".safetensors", ".pt"):
        raise UserError(f"{partial}: the name must end in .safetensors or .pt")
    policy = load_run(run, which, device="cpu")
    if partial is not None:
        _can_be_partial(policy)
    if out is not None:
        policy.save(out)
    if partial is not None:
        partial.parent.mkdir(parents=True, exist_ok=True)
        state = {name: p.detach().half().contiguous() for name, p in policy.trained().items()}
        if partial.suffix == ".pt":
            torch.save(state, partial)
        else:
            save_file(state, partial)
    return policy


def _can_be_partial(policy: Policy) -> None:
    """Refuse what `captioner.weights` could not take up: LoRA, and parts that are not published alone."""
    parts = policy.partial_parts
    outside = [
        name
        for name in policy.trained()
        if is_adapter(name) or (parts and not any(names_part(name, part) for part in parts))
    ]
    if outside:
        raise UserError(
            f"--partial: the published form holds {', '.join(parts) or 'no adapters'} only, and this run "
            f"trained {len(outside)} other tensors ({outside[0]}, ...); write everything with -o FOLDER"
        )
