"""Any other decoder-only vision-language model that transformers loads as an image-text-to-text model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from limner import component
from limner.captioners import prefixed


@dataclass(frozen=True)
class Captioner(prefixed.Settings):
    """LLaVA, SmolVLM, Idefics3, Gemma 3, InternVL and other image-text-to-text models of transformers."""

    family = "auto"

    @classmethod
    def matches(cls, config: Mapping[str, object]) -> bool:
        """Whether transformers has an image-text-to-text model for it, and no other family takes it."""
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

        others = (
            component.find("captioners", kind) for kind in component.available("captioners") if kind != "auto"
        )
        return config.get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and not any(
            other.matches(config) for other in others
        )
