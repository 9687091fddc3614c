"""Qwen-VL captioners: Qwen2-VL, Qwen2.5-VL and Qwen3-VL, dense and mixture of experts.

Images keep their shape and are cut into patches; their positions are of time, height and width, computed by
the model's own code. The prompt is CapRL's (arXiv 2509.22647, section 3.2). Frames of a video are read as
several pictures: the video processor of transformers needs torchvision, and is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge

from limner.captioners import prefixed
from limner.errors import UserError

TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")


@dataclass(frozen=True)
class Captioner(prefixed.Settings):
    """Qwen2-VL, Qwen2.5-VL or Qwen3-VL: pictures of any size, chat prompt."""

    min_pixels: Annotated[int, Ge(1)] | None = None
    """Smaller pictures are enlarged to this many pixels; the checkpoint's where null."""
    max_pixels: Annotated[int, Ge(1)] | None = None
    """Larger pictures are reduced to this many pixels; the checkpoint's where null. 28 x 28 of them (32 x 32
    for Qwen3-VL) become one image token."""

    family = "qwen_vl"

    @classmethod
    def matches(cls, config: Mapping[str, object]) -> bool:
        """Whether config.json is a Qwen-VL's."""
        return config.get("model_type") in TYPES

    def adjust(self, processor: Any) -> None:
        """Set the smallest and the largest picture."""
        least = self.min_pixels or processor.size["shortest_edge"]
        most = self.max_pixels or processor.size["longest_edge"]
        if least > most:
            raise UserError(f"captioner.min_pixels is {least}, more than captioner.max_pixels, {most}")
        processor.size = {"shortest_edge": least, "longest_edge": most}  # areas, whatever they are called
