"""Checkpoint files: reading configs, and the published weights that hold the trained part only."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PretrainedConfig

from limner.captioners.base import is_adapter, names_part
from limner.errors import UserError
from limner.paths import resolve


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what goes wrong while a checkpoint loads into a message about that checkpoint.

    Raises:
        UserError: the checkpoint is missing or unreadable.
    """
    try:
        yield
    except (OSError, HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "/" in path and Path(path).parent.is_dir() and not Path(path).exists():
            reason = f"there is no such folder, and on the hub: {reason}"
        raise UserError(f"{path}: cannot load this checkpoint: {reason}") from error
    except SafetensorError as error:
        raise UserError(f"{path}: a weights file is damaged: {error}") from error
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise UserError(
            f"{path}: loading it would run code that comes with it, which is never done"
        ) from None


def loaded(kind: Any, path: str, *, absent: Sequence[str] = (), **how: Any) -> Any:
    """A model with every weight of its checkpoint; transformers draws missing ones at random, and logs it.

    Args:
        kind: a class of transformers, or of its Auto classes.
        path: a folder or hub id.
        absent: parameters that may be missing, others being put in their place; as in `captioner.train`.
        how: further arguments of `from_pretrained`.

    Raises:
        UserError: a parameter is missing, or of another size than config.json says.
    """
    model, found = kind.from_pretrained(path, output_loading_info=True, ignore_mismatched_sizes=True, **how)
    names = {name for name, _ in model.named_parameters()}
    missing = sorted(
        name for name in names & set(found["missing_keys"]) if not any(names_part(name, p) for p in absent)
    )
    odd = missing or sorted(str(key[0]) for key in found["mismatched_keys"])
    if odd:
        what = "not in this checkpoint" if missing else "of another size there than config.json says"
        says = ", ".join(model.config.architectures or ()) or "nothing of its class"
        raise UserError(
            f"{path}: {len(odd)} of {len(names)} weights of a {type(model).__name__} are {what} ({odd[0]}, "
            f"...), whose config.json says {says}; give a whole checkpoint of a captioner"
        )
    return model


def read_config(path: str) -> Mapping[str, object]:
    """The config.json of a checkpoint.

    Raises:
        UserError: there is none.
    """
    where = resolve(path)
    if not Path(where).exists() and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise UserError(f"{path}: no such folder; give a Hugging Face checkpoint folder or a hub name")
    if Path(where).is_dir() and not (Path(where) / "config.json").is_file():
        raise UserError(
            f"{path}: there is no config.json in this folder; give a Hugging Face checkpoint folder"
        )
    with explained(path):
        return PretrainedConfig.get_config_dict(where)[0]


def load_partial(model: nn.Module, file: Path, *, parts: Sequence[str]) -> int:
    """Load weights of the trained parts over a model, counting matched keys; a partial match is refused.

    Newer transformers move BLIP-2's modules, so load_state_dict(strict=False) could silently load nothing.

    Args:
        model: the whole captioner.
        file: safetensors, or a torch file read with weights_only=True.
        parts: names of the parts the file must hold, all of them.

    Returns:
        The number of tensors loaded.

    Raises:
        UserError: the file is missing or unreadable, keys are unknown, missing, or of another shape.
    """
    if not file.is_file():
        raise UserError(f"captioner.weights: {file}: there is no such file")
    try:
        state = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, weights_only=True, map_location="cpu")
        )
    except pickle.UnpicklingError as error:  # code in the file: weights_only=True refuses to run it
        raise UserError(f"captioner.weights: {file}: refused, it holds more than tensors") from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"captioner.weights: {file}: cannot be read as weights: {reason}") from error
    if not isinstance(state, Mapping):
        raise UserError(f"captioner.weights: {file}: holds a {type(state).__name__}, not a state dict")
    state = {_plain_name(key): tensor for key, tensor in state.items()}
    own = {
        n: p
        for n, p in model.named_parameters()
        if not is_adapter(n) and any(names_part(n, part) for part in parts)
    }
    unknown = sorted(set(state) - set(own) - {name for name, _ in model.named_buffers()})
    missing = sorted(set(own) - set(state))
    shapes = [n for n in own if n in state and state[n].shape != own[n].shape]
    if unknown or missing or shapes:
        matched = len(set(own) & set(state)) - len(shapes)
        lines = [f"captioner.weights: {file}: {matched} of {len(own)} keys match; a partial match is refused"]
        for title, names in (("missing", missing), ("unknown", unknown), ("of another shape", shapes)):
            if names:
                lines.append(
                    f"  {len(names)} {title}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
                )
        raise UserError("\n".join(lines))
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])
    return len(own)


def _plain_name(key: str) -> str:
    """A key without the wrappers that trainers put in front."""
    for wrapper in ("module.", "model."):
        key = key.removeprefix(wrapper)
    return key
