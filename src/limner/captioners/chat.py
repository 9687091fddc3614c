"""The chat prompt of a vision-language model, with as many image tokens as its images have.

transformers' own processors write it. Those that also read videos need torchvision to be made, although
pictures do not: such a processor is made here without its video part.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES  # pyright: ignore
from transformers.utils.hub import cached_file

from limner.captioners.prefix_inputs import Row
from limner.errors import UserError

ALIKE = {"SmolVLMProcessor": "Idefics3Processor"}
"""Processors that write the same text for pictures and need less installed than the key."""
SETTINGS = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""Files that plain transformers reads beside the tokenizer's."""


class Chat:
    """Images and a prompt -> ids and pixels."""

    def __init__(self, processor: ProcessorMixin):
        """With a processor of transformers."""
        self.processor: Any = processor
        self.tokenizer: Any = processor.tokenizer
        template = self.processor.chat_template or self.tokenizer.chat_template
        self.template = template.get("default") if isinstance(template, Mapping) else template

    @classmethod
    def load(cls, path: str) -> Chat:
        """Load the processor of a checkpoint.

        Raises:
            UserError: the checkpoint has none that reads pictures.
        """
        name = PROCESSOR_MAPPING_NAMES.get(
            AutoConfig.from_pretrained(path, trust_remote_code=False).model_type
        )
        kind = getattr(transformers, ALIKE.get(name or "", name or ""), None)
        if kind is None:
            processor: Any = AutoProcessor.from_pretrained(path, backend="pil", trust_remote_code=False)
        else:
            processor = pictures_only(kind).from_pretrained(path, backend="pil", trust_remote_code=False)
        if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
            raise UserError(f"{path}: {type(processor).__name__} does not read pictures and text")
        return cls(processor)

    def text(self, images: int, prompt: str) -> str:
        """The prompt as a chat in which a user shows pictures and asks, up to where the answer begins."""
        if self.template is None:
            return " ".join([self.processor.image_token] * images + [prompt] * bool(prompt))
        content = [{"type": "image"} for _ in range(images)]
        content += [{"type": "text", "text": prompt}] * bool(prompt)
        return self._applied([{"role": "user", "content": content}], add_generation_prompt=True)

    def row(self, images: Sequence[Image.Image], prompt: str) -> Row:
        """One sample, all tensors on the CPU; positions are those of text alone."""
        return self.rows([(images, prompt)])[0]

    def rows(self, samples: Sequence[tuple[Sequence[Image.Image], str]]) -> list[Row]:
        """A row for the pictures and the prompt of each sample.

        Samples with the same prompt and pictures of the same sizes are read in one call: a processor has
        more to do for a call than for a small picture.
        """
        alike: dict[object, list[int]] = {}
        for number, (images, prompt) in enumerate(samples):
            alike.setdefault((prompt, *(image.size for image in images)), []).append(number)
        found: dict[int, Row] = {}
        for numbers in alike.values():
            rows = self._read([samples[number][0] for number in numbers], samples[numbers[0]][1])
            found |= dict(zip(numbers, rows, strict=True))
        return [found[number] for number in range(len(samples))]

    def _read(self, images: Sequence[Sequence[Image.Image]], prompt: str) -> list[Row]:
        """Rows of equal shapes."""
        text = self.text(len(images[0]), prompt)
        begin = self.tokenizer.bos_token
        special = not (self.template is not None and begin and text.startswith(begin))
        if images[0]:
            given = self.processor(
                text=[text] * len(images), images=[list(each) for each in images], return_tensors="pt",
                add_special_tokens=special, return_mm_token_type_ids=True,
            )  # fmt: skip
        else:
            given = self.tokenizer([text] * len(images), return_tensors="pt", add_special_tokens=special)
        tensors = {name: torch.as_tensor(given[name]) for name in given if name != "attention_mask"}
        ids = tensors.pop("input_ids")
        marks = {n: t for n, t in tensors.items() if t.shape == ids.shape and n.endswith("type_ids")}
        pixels = {name: t for name, t in tensors.items() if name not in marks} if images[0] else {}
        # Pictures, tiles or patches stand one behind the other, as many of each sample.
        parts = {name: tensor.split(len(tensor) // len(images)) for name, tensor in pixels.items()}
        return [
            Row(
                ids[place], torch.arange(ids.shape[1])[None],
                {name: mark[place] for name, mark in marks.items()},
                pixels={name: part[place] for name, part in parts.items()},
            )
            for place in range(len(images))
        ]  # fmt: skip

    def ends_turn(self, eos_ids: Sequence[int]) -> int:
        """The end of sequence that this chat writes behind an answer; the first one where it writes none."""
        if self.template is None:
            return eos_ids[0]
        asked = {"role": "user", "content": [{"type": "text", "text": "a"}]}
        answered = {"role": "assistant", "content": [{"type": "text", "text": "a"}]}
        before = self._applied([asked], add_generation_prompt=True)
        whole = self._applied([asked, answered], add_generation_prompt=False)
        tail = self.tokenizer(whole[len(before) :], add_special_tokens=False)["input_ids"]
        return next((token for token in tail if token in eos_ids), eos_ids[0])

    def save(self, folder: Path, source: str) -> None:
        """Write processor and tokenizer; settings of the source that were not read here are copied."""
        self.processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.processor.image_processor.save_pretrained(folder)
        for name in SETTINGS:
            found = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
            if found is not None and not (folder / name).exists():
                shutil.copy(found, folder / name)

    def _applied(self, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        return self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, tokenize=False, add_generation_prompt=add_generation_prompt
        )


def pictures_only(kind: type) -> type:
    """A processor class without its video part, under the same name."""
    names = [name for name in kind.get_attributes() if name != "video_processor"]  # type: ignore[attr-defined]
    if names == kind.get_attributes():  # type: ignore[attr-defined]
        return kind
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda cls: names)})
