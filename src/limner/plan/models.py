"""Models without weights: the real classes of transformers, built from a configuration alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    Blip2ForConditionalGeneration,
    GenerationConfig,
    InstructBlipForConditionalGeneration,
    PretrainedConfig,
)

from limner.captioners import auto, base, blip2, instructblip, lean, prefixed, qformer, qwen_vl
from limner.captioners.chat import Chat
from limner.captioners.files import explained, read_config
from limner.captioners.prefix_inputs import Row
from limner.captioners.steps import CachedSteps, SharedSteps, less_read
from limner.captioners.tree import PrefixedLM
from limner.errors import UserError
from limner.paths import resolve
from limner.plan.shadow import META
from limner.plan.shapes import KNOWN

TOKENS_A_WORD = 1.3
"""Tokens that an English word becomes, where there is no tokenizer to ask."""
CHAT = 21
"""Tokens that Qwen's chat template writes around the question: the system's turn, and where turns begin."""
TOKEN = 3
"""The token that is always chosen; it ends no caption."""


def folder(path: str) -> str | None:
    """Where a checkpoint lies on this machine, in a folder or in Hugging Face's cache; None: nowhere."""
    where = resolve(path)
    if Path(where).is_dir():
        return where
    if where.count("/") != 1:
        return None
    found = try_to_load_from_cache(where, "config.json")
    return str(Path(found).parent) if isinstance(found, str) else None


def configuration(path: str) -> PretrainedConfig:
    """The configuration of a checkpoint: its own, or else the published one of `shapes`.

    Raises:
        UserError: there is none.
    """
    found = folder(path)
    if found is None and path in KNOWN:
        return AutoConfig.for_model(**KNOWN[path])
    given = dict(read_config(found or path))
    kind = given.pop("model_type", None)
    if kind is None:
        raise UserError(f"{path}: its config.json names no model_type")
    with explained(path):
        return AutoConfig.for_model(str(kind), **given)


def empty(kind: Any, config: PretrainedConfig, dtype: torch.dtype) -> Any:
    """A model of a class of transformers with all weights on "meta"."""
    make = getattr(kind, "from_config", None) or kind._from_config
    with torch.device(META):
        model = make(config, dtype=dtype)
    return model.eval()


class Pictures:
    """In place of an image processor: squares of one size, without values."""

    def __init__(self, side: int):
        """With the side in pixels."""
        self.side = side

    def __call__(self, images: Any, return_tensors: str = "pt") -> dict[str, torch.Tensor]:
        """(images, 3, side, side)."""
        return {"pixel_values": torch.empty(len(images), 3, self.side, self.side, device=META)}


class Texts:
    """In place of a tokenizer: a number of tokens by the number of words."""

    chat_template = None
    pad_token_id = 0
    model_max_length = 1 << 30
    all_special_tokens = ()
    eos_token_id = None

    def __init__(self, special: int = 1):
        """With the special tokens that every text gets."""
        self.special = special

    def ids(self, text: str) -> list[int]:
        """Of one text; a word as rolled-out captions have it is one token."""
        words = text.split()
        made_up = bool(words) and all(word == words[0] for word in words)
        count = len(words) if made_up else round(TOKENS_A_WORD * len(words))
        return [TOKEN] * (self.special + count)

    def __call__(self, text: Any, **_: Any) -> dict[str, Any]:
        """Ids of a text or of several."""
        return {"input_ids": self.ids(text) if isinstance(text, str) else [self.ids(each) for each in text]}


class Untried(PrefixedLM):
    """A language model of which is assumed what is otherwise tried out on values."""

    def packs(self) -> bool:
        """Captions share a row wherever masks of ours are taken."""
        return self.packed and self.kinds() is not None

    def leans(self) -> bool:
        """Layers that are computed with fewer calls in single precision are so."""
        text: Any = self.model.base_model.get_decoder()
        whole = all(parameter.dtype.itemsize >= 4 for parameter in self.model.parameters())
        return self.packs() and whole and all(type(layer).__name__ in lean.LAYERS for layer in text.layers)

    def _steps(self, captions: int, length: int, tokens: int) -> type[CachedSteps | SharedSteps]:
        """Generation in the usual way; with fewer calls it holds as much, and is for float32 alone."""
        if captions == 1 or not self.packs():
            return CachedSteps
        shared = less_read(self.text_config, captions, length=length, tokens=tokens)
        return SharedSteps if shared else CachedSteps


class QwenChat:
    """In place of the chat prompt of a Qwen-VL: as many image tokens as its pictures have."""

    def __init__(self, config: Any, settings: qwen_vl.Captioner):
        """For this configuration; the settings bound the size of pictures."""
        self.config, self.settings = config, settings
        self.tokenizer = Texts(special=0)
        self.processor = self
        self.image_processor = None
        vision = config.vision_config
        self.patch, self.merge = vision.patch_size, vision.spatial_merge_size
        self.numbers = 3 * vision.temporal_patch_size * self.patch**2

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Patches down and across of a picture, resized as the processor of transformers does."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        unit = self.patch * self.merge
        least, most = self.settings.min_pixels or 4 * unit**2, self.settings.max_pixels or 16384 * unit**2
        high, wide = smart_resize(height, width, factor=unit, min_pixels=least, max_pixels=most)
        return high // self.patch, wide // self.patch

    def rows(self, samples: Sequence[tuple[Sequence[Any], str]]) -> list[Row]:
        """Prompt and pictures of each sample."""
        return [self.row(*sample) for sample in samples]

    def row(self, images: Sequence[Any], prompt: str) -> Row:
        """Of one sample."""
        grids = [self.grid(*image.size) for image in images]
        config = self.config
        ids: list[int] = []
        for high, wide in grids:
            pads = [config.image_token_id] * (high * wide // self.merge**2)
            ids += [config.vision_start_token_id, *pads, config.vision_end_token_id]
        ids += [TOKEN] * (CHAT + len(self.tokenizer.ids(prompt)))
        tokens = torch.tensor(ids)
        marks = {"mm_token_type_ids": (tokens == config.image_token_id).long()}
        patches = sum(high * wide for high, wide in grids)
        pixels = {
            "pixel_values": torch.empty(patches, self.numbers, device=META),
            "image_grid_thw": torch.tensor([[1, high, wide] for high, wide in grids]),
        }
        return Row(tokens, torch.arange(len(ids))[None], marks, pixels=pixels if grids else {})


def captioner(settings: base.Captioner, dtype: torch.dtype) -> base.Policy[Any]:
    """The captioner of a recipe, its own class, without weights.

    Raises:
        UserError: there is no configuration for it, or its family needs more of its files.
    """
    if isinstance(settings, auto.Captioner) and folder(settings.path) is None:
        raise UserError(
            f"{settings.path}: to count the image tokens of this family its processor is needed: "
            "give the folder of a checkpoint (its weights are not needed)"
        )
    config = configuration(settings.path)
    if isinstance(settings, qformer.Settings):
        return _behind_qformer(settings, config, dtype)
    if not isinstance(settings, prefixed.Settings):
        raise UserError(f"{settings.path}: captioners of {type(settings).__module__} cannot be planned for")
    model = empty(AutoModelForImageTextToText, config, dtype)
    where = folder(settings.path)
    if where is not None and (Path(where) / "tokenizer_config.json").is_file():
        chat: Any = Chat.load(where)
        settings.adjust(chat.processor.image_processor)
    elif isinstance(settings, qwen_vl.Captioner):
        chat = QwenChat(config, settings)
    else:
        raise UserError(f"{settings.path}: there is no tokenizer in {where}")
    text = config.get_text_config()
    ends = text.eos_token_id if text.eos_token_id is not None else chat.tokenizer.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends)
    policy = prefixed.PrefixedPolicy(settings, model, chat)
    policy.lm = Untried(**{each.name: getattr(policy.lm, each.name) for each in fields(policy.lm)})
    return policy


def _behind_qformer(settings: qformer.Settings, config: Any, dtype: torch.dtype) -> base.Policy[Any]:
    side = settings.image_size or config.vision_config.image_size
    text = config.text_config
    special = {"eos_token_id": text.eos_token_id, "pad_token_id": text.pad_token_id}
    if isinstance(settings, instructblip.Captioner):
        model = empty(InstructBlipForConditionalGeneration, config, dtype)
        model.language_model.generation_config = GenerationConfig(**special)
        reader: Any = Texts(special=2)
        policy: Any = instructblip.InstructBlipPolicy(
            settings,
            model,
            Texts(),
            Pictures(side),
            reader=reader,  # type: ignore[arg-type]
        )
    else:
        assert isinstance(settings, blip2.Captioner)
        model = empty(Blip2ForConditionalGeneration, config, dtype)
        model.language_model.generation_config = GenerationConfig(**special)
        policy = blip2.Blip2Policy(settings, model, Texts(), Pictures(side))  # type: ignore[arg-type]
    return policy
