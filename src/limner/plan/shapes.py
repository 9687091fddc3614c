"""Sizes of published models, so that they can be planned for without a download.

The values are those of the config.json that each model is published with, as far as they decide sizes; what
is not said here is the default of transformers' configuration classes. `tests/golden/test_plan_shapes.py`
holds them to the published numbers of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPT_2_7B = {
    "model_type": "opt", "vocab_size": 50304, "hidden_size": 2560, "word_embed_proj_dim": 2560,
    "ffn_dim": 10240, "num_hidden_layers": 32, "num_attention_heads": 32, "eos_token_id": 50118,
    "pad_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
QWEN_3B = {
    "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
    "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True, "eos_token_id": 151645,
}  # fmt: skip
QWEN_7B = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False, "eos_token_id": 151645,
}  # fmt: skip
QWEN_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}


def _qwen_vl(text: Mapping[str, Any]) -> dict[str, Any]:
    """Qwen2.5-VL: one vision tower for all sizes."""
    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
        "out_hidden_size": text["hidden_size"], "fullatt_block_indexes": [7, 15, 23, 31], "window_size": 112,
    }  # fmt: skip
    return {
        "model_type": "qwen2_5_vl", "vision_config": vision,
        "text_config": {**text, "rope_parameters": QWEN_ROPE},
        "tie_word_embeddings": text["tie_word_embeddings"], "image_token_id": 151655,
        "video_token_id": 151656, "vision_start_token_id": 151652, "vision_end_token_id": 151653,
    }  # fmt: skip


def _clip(text: tuple[int, int, int, int], vision: tuple[int, int, int, int], joint: int) -> dict[str, Any]:
    """A CLIP of patches of 14 at 224 pixels; width, inner width, layers and heads of both towers."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return {
        "model_type": "clip", "projection_dim": joint,
        "text_config": {**dict(zip(names, text, strict=True)), "projection_dim": joint},
        "vision_config": {**dict(zip(names, vision, strict=True)), "projection_dim": joint, "patch_size": 14},
    }  # fmt: skip


KNOWN: Mapping[str, Mapping[str, Any]] = {
    "Salesforce/blip2-opt-2.7b": {
        "model_type": "blip-2", "text_config": OPT_2_7B, "num_query_tokens": 32, "image_token_index": 50265,
    },
    "Salesforce/blip2-itm-vit-g": {
        "model_type": "blip-2", "num_query_tokens": 32,
        "qformer_config": {
            "model_type": "blip_2_qformer", "use_qformer_text_input": True, "vocab_size": 30523,
        },
    },
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen_vl(QWEN_3B),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen_vl(QWEN_7B),
    "Qwen/Qwen2.5-3B-Instruct": {"model_type": "qwen2", **QWEN_3B},
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K": _clip((1024, 4096, 24, 16), (1408, 6144, 40, 16), 1024),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": _clip((1280, 5120, 32, 20), (1664, 8192, 48, 16), 1280),
}  # fmt: skip
"""By hub name. transformers' own defaults are BLIP-2's ViT-g and Q-Former."""
