"""Small Qwen2.5-VL and Qwen2.5 checkpoints of the real classes with random weights, in the published form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLImageProcessorPil,
)

import tiny
import toy_tokenizers

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What the published template gives, without its default system message."""
MROPE = [2, 3, 3]
"""Of heads of 16."""


def tokenizer(*words: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen's special tokens, and more of them where words are given."""
    made = toy_tokenizers.byte_level()
    made.add_special_tokens(
        {"additional_special_tokens": [AddedToken(word, special=True) for word in (*SPECIAL, *words)]}
    )
    made.pad_token, made.eos_token, made.bos_token = "<|endoftext|>", "<|im_end|>", None
    made.chat_template = CHAT
    return made


def language(rows: int, hidden: int = 64, tied: bool = True, **more: Any) -> dict[str, Any]:
    """Sizes of a language model of two layers."""
    return {
        "vocab_size": rows,
        "hidden_size": hidden,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": hidden // 16,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
    } | more


def qwen25_vl(folder: Path, seed: int = 0, *, hidden: int = 64, tied: bool = True, **more: Any) -> Path:
    """A Qwen2.5-VL checkpoint: flat config, published names, tokenizer, chat template, image processor."""
    words = tokenizer()
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in SPECIAL_IDS.values()}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": MROPE}
    config = Qwen2_5_VLConfig(
        text_config=language(len(words) + 5, hidden, tied, rope_parameters=rope)
        | {"eos_token_id": words.eos_token_id},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": [1],
        },
        **{key: ids[name] for key, name in SPECIAL_IDS.items()},
        tie_word_embeddings=tied,
    )
    model = Qwen2_5_VLForConditionalGeneration(config).to(more.get("dtype", torch.float32))
    tiny.sharpen(model, seed)
    model.generation_config = GenerationConfig(
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id
    )
    model.save_pretrained(folder, max_shard_size=more.get("max_shard_size", "5GB"))
    words.save_pretrained(folder)
    pixels = {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 16}
    Qwen2VLImageProcessorPil(size=pixels).save_pretrained(folder)
    return folder


SPECIAL_IDS = {
    "image_token_id": "image_pad",
    "video_token_id": "video_pad",
    "vision_start_token_id": "vision_start",
    "vision_end_token_id": "vision_end",
}


def qwen25(folder: Path, seed: int = 1, *, hidden: int = 64, tied: bool = True, **more: Any) -> Path:
    """A text-only Qwen2.5 checkpoint."""
    words = more.get("tokenizer") or tokenizer()
    sizes = language(more.get("rows", len(words) + 5), hidden, tied, **more.get("config", {}))
    config = Qwen2Config(**sizes, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    config.eos_token_id = config.pad_token_id = words.pad_token_id
    model = Qwen2ForCausalLM(config).to(more.get("dtype", torch.float32))
    tiny.sharpen(model, seed)
    model.save_pretrained(folder, max_shard_size=more.get("max_shard_size", "5GB"))
    words.save_pretrained(folder)
    return folder


def flattened(folder: Path) -> Path:
    """Write config.json as the published checkpoints have it: the language model's values at the top."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    config |= {key: value for key, value in text.items() if key not in ("model_type", "layer_types")}
    config |= {"rope_theta": rope["rope_theta"], "torch_dtype": config.pop("dtype")}
    config["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    config["vision_config"] = {k: v for k, v in config["vision_config"].items() if k != "rope_parameters"}
    config["vision_config"]["model_type"] = "qwen2_5_vl"
    file.write_text(json.dumps(config))
    return folder
