"""Small decoder-only vision-language models of real classes with random weights, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3TextConfig,
    GenerationConfig,
    GotOcr2ImageProcessorPil,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

import tiny
import toy_tokenizers
from limner.world.scenes import PIXELS

HIDDEN = 32
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {% for c in m.content %}{% if c.type == 'image' %}IMAGE"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}{% if m.role == 'assistant' %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
"""A chat; IMAGE is what a family writes for a picture."""


def text_settings(tokenizer: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    """The shape of all language models here."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 112,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    } | more


def chatting(image: str, **special: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the special tokens of a family and a chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=toy_tokenizers.byte_level().backend_tokenizer,
        pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens=special,
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE.replace("IMAGE", image)
    return tokenizer


def saved(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, images: Any, folder: Path, **processor: object
) -> Path:
    """Write a checkpoint; `processor` are further settings of the processor."""
    tiny.sharpen(model, 0)
    model.generation_config = GenerationConfig(eos_token_id=[2], pad_token_id=0, bos_token_id=1)
    with torch.no_grad():
        model.get_output_embeddings().weight[2].mul_(3)  # captions of many lengths
        for name, parameter in model.named_parameters():
            if name.endswith("class_embedding"):  # a vector, which classes draw at random
                parameter.copy_(torch.linspace(-1, 1, len(parameter)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    images.save_pretrained(folder)
    if processor:
        import json

        (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf8")
    return folder


def _square() -> dict[str, int]:
    return {"height": PIXELS, "width": PIXELS}


def _siglip() -> dict[str, Any]:
    return {
        "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": PIXELS, "patch_size": 12,
    }  # fmt: skip


def llava(folder: Path) -> Path:
    """A LLaVA: CLIP's tower, whose last layer but one is read, a projector, a Llama. 16 tokens an image."""
    tokenizer = chatting("<image>", image_token="<image>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_siglip(), projection_dim=16),
        text_config=LlamaConfig(**text_settings(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        image_seq_length=16,
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": PIXELS}, crop_size=_square())
    return saved(
        LlavaForConditionalGeneration(config), tokenizer, images, folder, processor_class="LlavaProcessor",
        patch_size=12, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        image_token="<image>",
    )  # fmt: skip


def gemma3(folder: Path, window: int = 12) -> Path:
    """A Gemma 3: layers with a sliding window shorter than the prompt, image tokens that see each other."""
    tokenizer = chatting("<boi>", image_token="<image>", boi_token="<boi>", eoi_token="<eoi>")
    text = text_settings(tokenizer, num_hidden_layers=3, head_dim=8, tie_word_embeddings=True)
    layers = ["sliding_attention", "full_attention", "sliding_attention"]
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**_siglip(), vision_use_head=False),
        text_config=Gemma3TextConfig(**text, sliding_window=window, layer_types=layers),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        boi_token_index=tokenizer.convert_tokens_to_ids("<boi>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<eoi>"),
        mm_tokens_per_image=4,
        tie_word_embeddings=True,
    )
    return saved(
        Gemma3ForConditionalGeneration(config), tokenizer, Gemma3ImageProcessorPil(size=_square()), folder,
        processor_class="Gemma3Processor", image_seq_length=4,
    )  # fmt: skip


IDEFICS = {
    "image_token": "<image>", "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>", "end_of_utterance_token": "<end_of_utterance>",
}  # fmt: skip


def _idefics(model: Any, config: Any, images: Any, folder: Path, name: str) -> Path:
    tokenizer = chatting("<image>", **IDEFICS)
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)]}
    )
    made = config(
        vision_config=_siglip(),
        text_config=LlamaConfig(**text_settings(tokenizer, max_position_embeddings=150)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    # Pictures of more than one tile: a picture is cut where it is longer than the encoder's side.
    processor = images(size={"longest_edge": 2 * PIXELS}, max_image_size={"longest_edge": PIXELS})
    return saved(model(made), tokenizer, processor, folder, processor_class=name, image_seq_len=4)


def idefics3(folder: Path) -> Path:
    """An Idefics3 (which the first SmolVLM is): pictures in tiles, tokens shuffled together."""
    return _idefics(
        Idefics3ForConditionalGeneration,
        Idefics3Config,
        Idefics3ImageProcessorPil,
        folder,
        "Idefics3Processor",
    )


def smolvlm(folder: Path) -> Path:
    """A SmolVLM2."""
    return _idefics(
        SmolVLMForConditionalGeneration, SmolVLMConfig, SmolVLMImageProcessorPil, folder, "SmolVLMProcessor"
    )


def internvl(folder: Path) -> Path:
    """An InternVL of transformers' own format: 4 tokens a tile, a Qwen2."""
    tokenizer = chatting(
        "<IMG_CONTEXT>", context_image_token="<IMG_CONTEXT>", start_image_token="<img>",
        end_image_token="</img>", video_token="<video>",
    )  # fmt: skip
    vision = _siglip() | {"image_size": [PIXELS, PIXELS], "patch_size": [12, 12]}
    config = InternVLConfig(
        vision_config=vision,
        text_config=Qwen2Config(**text_settings(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    return saved(
        InternVLForConditionalGeneration(config), tokenizer,
        GotOcr2ImageProcessorPil(size=_square(), crop_to_patches=False), folder,
        processor_class="InternVLProcessor", image_seq_length=4,
    )  # fmt: skip


QWEN = {
    "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>",
}  # fmt: skip


def _qwen(
    model: Any, config: Any, vision: dict[str, Any], text: dict[str, Any], folder: Path, name: str
) -> Path:
    tokenizer = chatting("<|vision_start|><|image_pad|><|vision_end|>", **QWEN)
    made = config(
        vision_config={"in_channels": 3, "patch_size": 6, "spatial_merge_size": 2} | vision,
        text_config=text_settings(tokenizer) | text,
        **{name + "_id": tokenizer.convert_tokens_to_ids(token) for name, token in QWEN.items()},
    )
    images = Qwen2VLImageProcessorPil(patch_size=6, size={"shortest_edge": 144, "longest_edge": PIXELS**2})
    return saved(model(made), tokenizer, images, folder, processor_class=name)


ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}


def qwen2_vl(folder: Path) -> Path:
    """A Qwen2-VL."""
    vision = {"depth": 2, "embed_dim": 24, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 2}
    text = {"rope_parameters": ROPE}
    return _qwen(Qwen2VLForConditionalGeneration, Qwen2VLConfig, vision, text, folder, "Qwen2VLProcessor")


def qwen2_5_vl(folder: Path) -> Path:
    """A Qwen2.5-VL: a vision tower with windows of 2 x 2 image tokens."""
    vision = {
        "depth": 2, "hidden_size": 24, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": HIDDEN,
        "window_size": 24, "fullatt_block_indexes": [1],
    }  # fmt: skip
    return _qwen(
        Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig, vision, {"rope_parameters": ROPE}, folder,
        "Qwen2_5_VLProcessor",
    )  # fmt: skip


QWEN3_VISION = {
    "depth": 3, "hidden_size": 24, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": HIDDEN,
    "deepstack_visual_indexes": [0], "num_position_embeddings": 64,
}  # fmt: skip


def qwen3_vl(folder: Path) -> Path:
    """A Qwen3-VL: image features enter the first layer of the language model too."""
    text = {"rope_parameters": ROPE, "head_dim": 8}
    return _qwen(
        Qwen3VLForConditionalGeneration, Qwen3VLConfig, QWEN3_VISION, text, folder, "Qwen3VLProcessor"
    )


def qwen3_vl_moe(folder: Path) -> Path:
    """A Qwen3-VL whose feed-forward layers are mixtures of experts."""
    text = {
        "rope_parameters": ROPE, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 16, "decoder_sparse_step": 1, "mlp_only_layers": [],
    }  # fmt: skip
    return _qwen(
        Qwen3VLMoeForConditionalGeneration, Qwen3VLMoeConfig, QWEN3_VISION, text, folder, "Qwen3VLProcessor"
    )
