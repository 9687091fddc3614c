"""From a run to files others load: a Hugging Face folder, PEFT adapters, the published VLRM form."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.utils.hub import cached_file

from limner import captioners, checkpoint, export_adapters, model_card
from limner.captioners.base import Policy, is_adapter, names_part
from limner.captioners.chat import SETTINGS
from limner.config import load_resolved
from limner.devices import torch_device, torch_dtype
from limner.errors import UserError
from limner.export_place import check_file, check_folder, written
from limner.model_card import Exported
from limner.paths import is_run, resolve

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.\-]*")
_INSIDE_PROCESSORS = ("image_processor", "video_processor", "tokenizer", "qformer_tokenizer")
"""Parts of a processor's file that stand in files of their own too."""


@dataclass(frozen=True)
class Card:
    """What the model card is told."""

    license: str | None = None
    """Hugging Face's short name of the licence; the base model's own card says it if None."""
    samples: int = 4
    """Pictures of the run shown with their captions; they are published with the card."""

    def __post_init__(self) -> None:
        """Refuse what is no licence's short name.

        Raises:
            UserError: it is none.
        """
        if self.license is not None and not _LICENCE.fullmatch(self.license):
            raise UserError(
                f"--license {self.license}: give Hugging Face's short name, as apache-2.0, cc-by-4.0 or other"
            )


def load_captioner(model: str, *, device: str, dtype: str) -> Policy:
    """A captioner by whatever name.

    Args:
        model: hub id, folder, `world:captioner`, a run (its best checkpoint) or one of its checkpoints.
        device: where to put it.
        dtype: of the frozen parts; a run has its own.

    Raises:
        UserError: there is none.
    """
    chosen = checkpoint.named(model)
    if chosen is not None:
        return load_run(chosen.parents[1], str(checkpoint.step_of(chosen)), device=device)
    return captioners.load(model, device=device, dtype=dtype)


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


def export(
    run: Path,
    out: Path | None = None,
    *,
    which: str = "best",
    adapters: Path | None = None,
    partial: Path | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
    card: Card | None = None,
) -> Policy:
    """Write what was trained.

    Args:
        run: a run directory.
        out: a new folder for a Hugging Face checkpoint that plain transformers loads, the LoRA merged.
        which: "best", "last" or a step number.
        adapters: a new folder for the LoRA alone, as PEFT loads it on the base model. Modules that were
            trained beside it are in it too, unless `partial` takes them.
        partial: a .safetensors or .pt file for the trained part without LoRA, fp16, meant for
            `captioner.weights` or load_state_dict(strict=False) as published with VLRM.
        dtype: of the tensors in the folders; if None trained ones are float32 and others the run's.
        overwrite: replace an older export.
        card: what the folders' model cards are told.

    Returns:
        The captioner.

    Raises:
        UserError: nothing to write was named, a place is taken, the run cannot be read, or what it
            trained does not fit into the form that was asked for.
    """
    card, number = card or Card(), None if dtype is None else torch_dtype(dtype)
    _check_places(run, out, adapters, partial, overwrite=overwrite)
    policy = load_run(run, which, device="cpu", dtype=dtype)
    if adapters is not None:
        export_adapters.check(policy, alone=partial is not None)
    if partial is not None:
        _check_partial(policy, alone=adapters is None)
    with ExitStack() as stack:  # every place is filled before the first is shown
        if out is not None:
            beside = stack.enter_context(written(out))
            save_merged(policy, beside, dtype=number)
            held = Exported(out.resolve().name)
            model_card.write(beside, run, which, policy, exported=held, told=card)
        if adapters is not None:
            beside = stack.enter_context(written(adapters))
            base, alone = model_card.public(policy.settings.path), partial is not None
            export_adapters.save(policy, beside, base=base, alone=alone, dtype=number)
            rest = partial.name if partial is not None and export_adapters.changed(policy) else ""
            held = Exported(adapters.resolve().name, adapters=True, rest=rest)
            model_card.write(beside, run, which, policy, exported=held, told=card)
        if partial is not None:
            _save_partial(policy, stack.enter_context(written(partial)), partial.suffix)
    return policy


def save_merged(policy: Policy, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a checkpoint for plain transformers, with all that its base has beside the weights.

    Args:
        policy: as trained.
        folder: a new folder.
        dtype: of all its weights; as they are in the policy if None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    policy.save(folder)
    _copy_settings(resolve(policy.settings.path), folder)
    if dtype is not None:
        _cast(folder, dtype)


def _check_places(
    run: Path, out: Path | None, adapters: Path | None, partial: Path | None, *, overwrite: bool
) -> None:
    places = [place for place in (out, adapters, partial) if place is not None]
    if not places:
        raise UserError("nothing to write: give -o FOLDER, --adapters FOLDER, --partial FILE, or several")
    if len({place.resolve() for place in places}) < len(places):
        raise UserError(f"{places[0]}: is named for two exports; give each a place of its own")
    keep = [run]
    if is_run(run):
        keep.append(Path(load_resolved(run / "resolved.json").captioner.path))
    for folder in (out, adapters):
        if folder is not None:
            check_folder(folder, overwrite=overwrite, keep=keep)
    if partial is not None:
        if partial.suffix not in (".safetensors", ".pt"):
            raise UserError(f"{partial}: the name must end in .safetensors or .pt")
        check_file(partial, overwrite=overwrite)


def _check_partial(policy: Policy, *, alone: bool) -> None:
    """Refuse what `captioner.weights` could not take up: parts that are not published alone, and LoRA."""
    parts = policy.partial_parts
    outside = [
        name
        for name in policy.trained()
        if (alone and is_adapter(name))
        or (parts and not is_adapter(name) and not any(names_part(name, part) for part in parts))
    ]
    if outside:
        lora = any(map(is_adapter, outside))
        raise UserError(
            f"--partial: the published form holds {', '.join(parts) or 'no adapters'} only, and this run "
            f"trained {len(outside)} other tensors ({outside[0]}, ...); write everything with -o FOLDER"
            f"{', or the LoRA with --adapters FOLDER beside it' if lora else ''}"
        )


def _save_partial(policy: Policy, file: Path, suffix: str) -> None:
    """Write the parts that are published, all of them where the family has such, without LoRA."""
    parts = policy.partial_parts
    state = {
        name: parameter.detach().half().contiguous()
        for name, parameter in policy.model.named_parameters()
        if not is_adapter(name)
        and (any(names_part(name, part) for part in parts) if parts else parameter.requires_grad)
    }
    if suffix == ".pt":
        torch.save(state, file)
    else:
        save_file(state, file)


def _copy_settings(source: str, folder: Path) -> None:
    """Settings files of the base that were not written: how its processor puts pictures into a text."""
    for name in SETTINGS:
        found = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        if found is not None and not (folder / name).exists():
            settings = json.loads(Path(found).read_text(encoding="utf8"))
            kept = {key: value for key, value in settings.items() if key not in _INSIDE_PROCESSORS}
            (folder / name).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf8")


def _cast(folder: Path, dtype: torch.dtype) -> None:
    """Give all weights of a checkpoint one number format, shard by shard, and say so in its config."""
    size = 0
    for file in sorted(folder.glob("*.safetensors")):
        state = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in load_file(file).items()
        }
        size += sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        save_file(state, file, metadata={"format": "pt"})
    for file in folder.glob("*.safetensors.index.json"):
        index = json.loads(file.read_text(encoding="utf8"))
        index["metadata"]["total_size"] = size
        file.write_text(json.dumps(index, indent=2) + "\n", encoding="utf8")
    config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    for section in _sections(config):
        section["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf8")


def _sections(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A config with the configs inside it that name a number format."""
    yield config
    for value in config.values():
        if isinstance(value, dict) and "dtype" in value:
            yield from _sections(value)
