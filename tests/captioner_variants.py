"""The captioner families that the contract is tested on, each with a small language model of its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import tiny
import tiny_vl
from limner import component
from limner.captioners.base import Policy
from limner.types import Sample

Q_FORMER = ("query_tokens", "qformer", "language_projection")
PROJECTOR = ("model.multi_modal_projector",)
MERGER = ("model.visual.merger", "model.visual.deepstack_merger_list.*")


@dataclass(frozen=True)
class Variant:
    """A family with a language model, how many frames it sees, and whether adapters are trained in it."""

    kind: str
    build: Callable[[Path], Path]
    parts: tuple[str, ...]
    """Attention may take another path with gradient: what is compared bit for bit trains the same parts."""
    frames: int = 1
    lora: bool = False

    def __str__(self) -> str:
        return f"{self.build.__name__}-{self.frames}{'-lora' if self.lora else ''}"

    @property
    def prompt(self) -> str:
        return "red" if self.chats else ""

    @property
    def chats(self) -> bool:
        return self.parts != Q_FORMER

    def samples(self, count: int) -> list[Sample]:
        return tiny.samples(count) if self.frames == 1 else tiny.clips(count, self.frames)

    def load(self, path: str, *, train: tuple[str, ...] | None = None) -> Policy:
        family = component.find("captioners", self.kind)
        settings = family(path=path, train=self.parts if train is None else train, prompt=self.prompt)
        return settings.load(device=torch.device("cpu"), dtype=torch.float32)


BUILDS = {
    tiny.blip2: ("blip2", Q_FORMER),
    tiny.blip2_t5: ("blip2", Q_FORMER),
    tiny.instructblip: ("instructblip", Q_FORMER),
    tiny_vl.qwen2_5_vl: ("qwen_vl", MERGER[:1]),
    tiny_vl.qwen3_vl: ("qwen_vl", MERGER),
    tiny_vl.qwen3_vl_moe: ("qwen_vl", MERGER),
    tiny_vl.llava: ("auto", PROJECTOR),
    tiny_vl.gemma3: ("auto", PROJECTOR),
    tiny_vl.smolvlm: ("auto", ("model.connector",)),
    tiny_vl.internvl: ("auto", PROJECTOR),
}
LORA = {tiny_vl.qwen2_5_vl, tiny_vl.gemma3, tiny_vl.smolvlm}
"""Those of the decoder-only families that are tested with adapters and several pictures."""
VARIANTS = [
    Variant(kind, build, parts, frames, lora)
    for build, (kind, parts) in BUILDS.items()
    for frames, lora in ((1, False), (3, True))
    if kind not in ("qwen_vl", "auto") or lora == (build in LORA)
]
