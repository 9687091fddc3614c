"""A fresh vision-language model: a trained vision tower, original language weights, and a new merger.

Method: the pretraining comparison of arXiv 2509.22647. Of a Qwen2.5-VL checkpoint the vision tower is kept,
the language model is put back to the text-only Qwen2.5 it came from, and `visual.merger` between them is
drawn anew: what the result learns about images, it learns from the captions it is then trained on.

Tensors are copied as bytes from file to file, a piece at a time: no model is built with weights, and a
checkpoint of any size takes the memory of its merger alone.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLPatchMerger

from limner import __version__
from limner import assemble_config as configs
from limner import assemble_tensors as tensors
from limner.assemble_tensors import Drawn, Piece, Stored
from limner.errors import UserError

MERGER = "visual.merger."
TIED = "lm_head.weight"
ORIGINS = "origins.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_TORCH = {name: dtype for dtype, name in tensors.DTYPES.items()}
_OF_THE_MODEL = re.compile(r"^(config\.json|.*\.safetensors(\.index\.json)?|.*\.(bin|pt|pth|gguf))$")
_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Origin:
    """Where one tensor of the result is from."""

    origin: str
    """vision, language or random."""
    piece: Piece
    """Its bytes."""


@dataclass(frozen=True)
class Plan:
    """What is written: every tensor of the model with its origin, and the config."""

    config: configs.Json
    """config.json of the result."""
    origins: Mapping[str, Origin]
    """By name, as the published checkpoints name tensors."""
    untrained: int
    """Tokens of the tokenizer that the language model's tokenizer does not have."""


def assemble(vision: Path, language: Path, out: Path, *, seed: int = 0) -> str:
    """Write the model into a new folder.

    Args:
        vision: a Qwen2.5-VL checkpoint: vision tower, tokenizer, chat template and image processor.
        language: the text-only Qwen2.5 checkpoint: every language weight.
        out: a new folder, in the layout of the published checkpoints, with origins.json beside the weights.
        seed: of the merger.

    Returns:
        A table of every tensor's origin.

    Raises:
        UserError: the folder is not empty, a checkpoint is of another kind, incomplete or damaged, the sizes
            or the tokenizers do not fit, or the disk has no room.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there and not empty; give a new folder")
    made = plan(vision, language, seed=seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from error
    needed = sum(each.piece.size for each in made.origins.values())
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise UserError(f"{out}: {needed / 1e9:.1f} GB are to be written, and {free / 1e9:.1f} GB are free")
    beside = (
        out.parent / f".{out.name}.writing"
    )  # a kill at any moment leaves no half of a checkpoint at `out`
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    for file in sorted(vision.iterdir()):
        if file.is_file() and not file.name.startswith(".") and not _OF_THE_MODEL.match(file.name):
            shutil.copyfile(file, beside / file.name)
    (beside / "config.json").write_text(json.dumps(made.config, indent=2) + "\n", encoding="utf8")
    digests = tensors.write(beside, {name: each.piece for name, each in made.origins.items()})
    rows = {name: _row(each, digests[name]) for name, each in made.origins.items()}
    about = {"limner": __version__, "vision": str(vision), "language": str(language), "seed": seed}
    text = json.dumps(about | {"tensors": rows}, indent=1)
    (beside / ORIGINS).write_text(text + "\n", encoding="utf8")
    if out.is_dir():
        out.rmdir()
    beside.rename(out)
    return table(made)


def check(vision: Path, language: Path, out: Path, *, seed: int = 0) -> str:
    """Compare an assembled folder with its sources, byte by byte.

    Returns:
        The table of `assemble`.

    Raises:
        UserError: what `assemble` raises, or the folder differs; the message names tensors.
    """
    made = plan(vision, language, seed=seed)
    if not out.is_dir():
        raise UserError(f"{out}: no such folder; without --check it is written")
    if configs.read(out, "qwen2_5_vl", "-o") != made.config:
        raise UserError(f"{out / 'config.json'}: is not the config of these sources")
    found = tensors.stored(out)
    odd = sorted(set(found) ^ set(made.origins))
    if odd:
        raise UserError(f"{out}: {len(odd)} tensors are missing or too many: {', '.join(odd[:3])}")
    differing = [
        f"{name} ({each.origin})"
        for name, each in made.origins.items()
        if (found[name].dtype, found[name].shape) != (each.piece.dtype, each.piece.shape)
        or tensors.checksum(found[name]) != tensors.checksum(each.piece)
    ]
    if differing:
        drawn = all(name.endswith("(random)") for name in differing)
        raise UserError(
            f"{out}: {len(differing)} of {len(found)} tensors are not those of their source: "
            f"{', '.join(differing[:3])}{', ...' if len(differing) > 3 else ''}"
            f"{f'; is the merger of another --seed than {seed}?' if drawn else ''}"
        )
    return table(made)


def plan(vision: Path, language: Path, *, seed: int = 0) -> Plan:
    """What would be written: the files' headers are read, and every size is checked, before a byte is copied.

    Raises:
        UserError: a checkpoint is of another kind, incomplete or damaged, or the two do not fit together.
    """
    raw = configs.read(vision, "qwen2_5_vl", "--vision")
    spoken = configs.read(language, "qwen2", "--language")
    if not any((vision / name).is_file() for name in PROCESSORS):
        raise UserError(f"--vision {vision}: there is no preprocessor_config.json in this folder")
    seen, said = _published(vision), _published(language)
    embedding = said.get("model.embed_tokens.weight")
    if embedding is None or embedding.dtype not in _TORCH:
        held = "no model.embed_tokens.weight" if embedding is None else f"weights of type {embedding.dtype}"
        raise UserError(f"--language {language}: has {held}; give the checkpoint in bfloat16 or float32")
    dtype = _TORCH[embedding.dtype]
    config = configs.combine(raw, spoken, str(dtype).removeprefix("torch."))
    untrained = configs.check_words(vision, language, config)
    expected = _expected(config)
    merger = _merger(config, dtype, seed)
    seen = {name: each for name, each in seen.items() if name.startswith("visual.")}
    origins: dict[str, Origin] = {}
    for name, shape in expected.items():
        if name.startswith(MERGER):
            origins[name] = Origin("random", Drawn(merger[name.removeprefix(MERGER)]))
            continue
        visual = name.startswith("visual.")
        source, what = (seen, f"--vision {vision}") if visual else (said, f"--language {language}")
        origins[name] = Origin("vision" if visual else "language", _fitting(source, name, shape, what=what))
    for source, what in ((seen, f"--vision {vision}"), (said, f"--language {language}")):
        extra = [name for name in source if name not in expected and not _dropped(name)]
        if extra:
            raise UserError(f"{what}: {len(extra)} tensors have no place in the model: {extra[0]}, ...")
    return Plan(config, origins, untrained)


def _fitting(source: Mapping[str, Stored], name: str, shape: tuple[int, ...], *, what: str) -> Stored:
    if name not in source:
        raise UserError(f"{what}: the tensor {name} is missing; copy the whole checkpoint")
    if source[name].shape != shape:
        raise UserError(
            f"{what}: {source[name].name} is of size {list(source[name].shape)}, and its config.json says "
            f"{list(shape)}"
        )
    return source[name]


def _dropped(name: str) -> bool:
    """Whether a tensor of a source is left out: the old merger, the tied output layer, old rotary buffers."""
    return name.startswith(MERGER) or name == TIED or name.endswith("rotary_emb.inv_freq")


def _published(folder: Path) -> dict[str, Stored]:
    """The tensors of a checkpoint by their published names.

    Raises:
        UserError: no weights, damaged ones, or two tensors of one name.
    """
    found: dict[str, Stored] = {}
    for name, each in tensors.stored(folder).items():
        plain = published_name(name)
        if plain in found:
            raise UserError(f"{folder}: holds both {found[plain].name} and {name}, which are one tensor")
        found[plain] = each
    return found


def published_name(name: str) -> str:
    """A tensor's name as in the published checkpoints: `visual.`, `model.layers.`, `lm_head.`.

    Newer transformers say `model.visual.` and `model.language_model.` in memory, and some versions saved so;
    a language model saved without its head has no `model.` in front.
    """
    if name.startswith("model.visual."):
        return name.removeprefix("model.")
    if name.startswith("model.language_model."):
        return "model." + name.removeprefix("model.language_model.")
    if name.startswith(("layers.", "embed_tokens.", "norm.")):
        return f"model.{name}"
    return name


def _expected(config: configs.Json) -> dict[str, tuple[int, ...]]:
    """Names and sizes of all tensors of the model that transformers makes of a config; it takes no memory."""
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(configs.parsed(config))
    shapes = {published_name(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        del shapes[TIED]
    return shapes


def _merger(config: configs.Json, dtype: torch.dtype, seed: int) -> dict[str, torch.Tensor]:
    """The merger between tower and language model as its class draws it; the weights of its norm are ones."""
    vision = cast(Qwen2_5_VLVisionConfig, configs.parsed(config).vision_config)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        merger = Qwen2_5_VLPatchMerger(
            vision.out_hidden_size, vision.hidden_size, spatial_merge_size=vision.spatial_merge_size
        )
    return {name: tensor.to(dtype) for name, tensor in merger.state_dict().items()}


def _row(each: Origin, digest: str) -> dict[str, object]:
    piece = each.piece
    of = {"file": piece.file.name, "name": piece.name} if isinstance(piece, Stored) else {}
    return {"origin": each.origin, **of, "dtype": piece.dtype, "shape": list(piece.shape), "sha256": digest}


def table(made: Plan) -> str:
    """Every tensor's origin, a line for those that differ in the layer's number only, and a line of sums."""
    lines: dict[tuple[str, ...], list[int]] = {}
    for name, each in made.origins.items():
        size = f"{each.piece.dtype} {' x '.join(map(str, each.piece.shape))}"
        layer = _LAYER.search(name)
        numbered = layer is not None and not name.startswith(MERGER)
        key = (_LAYER.sub(".*.", name, count=1) if numbered else name, each.origin, size)
        lines.setdefault(key, []).append(int(layer[1]) if layer and numbered else 0)
    rows = [("tensor", "origin", "size")]
    for (name, origin, size), layers in lines.items():
        span = f"{min(layers)}-{max(layers)}" if len(layers) > 1 else str(layers[0])
        rows.append((name.replace("*", f"{{{span}}}"), origin, size))
    wide = max(len(row[0]) for row in rows)
    text = [f"{name:<{wide}}  {origin:<8}  {size}" for name, origin, size in rows]
    for origin in ("vision", "language", "random"):
        held = [each.piece for each in made.origins.values() if each.origin == origin]
        text.append(f"{origin}: {len(held)} tensors, {sum(piece.size for piece in held):,} bytes")
    if made.untrained:
        text.append(f"{made.untrained} tokens of the tokenizer are new to the language model")
    return "\n".join(text)
