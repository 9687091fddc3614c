"""The miniature world's models: the real transformers classes, a few hundred thousand parameters each.

All of them are built with random weights here; the stages (vision, captioner, itm, clip) train them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    Blip2VisionModel,
    BlipImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    GenerationConfig,
    OPTConfig,
    PreTrainedModel,
)

from limner.world.scenes import PIXELS
from limner.world.tokenizer import BOS, EOS, IMAGE, PAD, VOCABULARY, Kind, tokenizer

PATCH = 8
PATCHES = (PIXELS // PATCH) ** 2
WIDTH = 96
"""Features of the ViT, the Q-Former and both towers of CLIP."""
QUERIES = 8
LONGEST_CAPTION = 24
"""Tokens that generation may add: the longest caption has 20 words and EOS."""
_LAYERS = 3
_HEADS = 4


def vision_config() -> Blip2VisionConfig:
    """The ViT: 36 patches of 8 x 8 pixels and the class token."""
    return Blip2VisionConfig(
        hidden_size=WIDTH,
        intermediate_size=256,
        image_size=PIXELS,
        patch_size=PATCH,
        initializer_range=0.02,  # the default of 1e-10 cannot be trained from scratch
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
    )


def blip2_config(*, text: bool) -> Blip2Config:
    """BLIP-2 with a Q-Former that attends to the image in every layer and an OPT of width 128.

    Args:
        text: does the Q-Former read text (image-text matching)?
    """
    qformer = Blip2QFormerConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        intermediate_size=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=40,
        pad_token_id=PAD,
        cross_attention_frequency=1,
        encoder_hidden_size=WIDTH,
        use_qformer_text_input=text,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
    )
    language = OPTConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        word_embed_proj_dim=128,  # must equal hidden_size, or OPT adds projections
        ffn_dim=384,
        max_position_embeddings=64,
        dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
    )
    return Blip2Config(
        vision_config=vision_config(),
        qformer_config=qformer,
        text_config=language,
        num_query_tokens=QUERIES,
        image_text_hidden_size=64,
        image_token_index=IMAGE,
    )


def captioner() -> Blip2ForConditionalGeneration:
    """A captioner with random weights."""
    model = Blip2ForConditionalGeneration(blip2_config(text=False))
    _separate_queries(model)
    model.generation_config = GenerationConfig(
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, max_new_tokens=LONGEST_CAPTION
    )
    return model


def matcher() -> Blip2ForImageTextRetrieval:
    """An image-text matching model with random weights."""
    model = Blip2ForImageTextRetrieval(blip2_config(text=True))
    _separate_queries(model)
    return model


def _separate_queries(model: Blip2ForConditionalGeneration | Blip2ForImageTextRetrieval) -> None:
    """Transformers starts query tokens at zero, where all of them would stay the same for ever."""
    torch.nn.init.normal_(model.query_tokens, std=0.5)


def clip() -> CLIPModel:
    """A CLIP with random weights."""
    text = CLIPTextConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        intermediate_size=256,
        projection_dim=WIDTH,
        max_position_embeddings=32,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
    )
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=256,
        projection_dim=WIDTH,
        image_size=PIXELS,
        patch_size=PATCH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def save_half(model: PreTrainedModel, folder: Path) -> None:
    """Write weights in fp16, to which the model is rounded, and a config that loads them in float32."""
    model.half().save_pretrained(folder)
    model.float()
    model.config.dtype = torch.float32
    model.config.save_pretrained(folder)


def save(model: PreTrainedModel, folder: Path, *, kind: Kind) -> None:
    """Write a whole Hugging Face directory: weights in fp16, configuration, tokenizer, image processor.

    The configuration says float32, so that plain `from_pretrained` gives a model that is fast on a CPU.
    """
    save_half(model, folder)
    tokenizer(kind).save_pretrained(folder)
    square = {"height": PIXELS, "width": PIXELS}
    middle = [0.5] * 3
    if kind == "clip":
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": PIXELS}, crop_size=square, image_mean=middle, image_std=middle
        )
    else:
        processor = BlipImageProcessorPil(size=square, image_mean=middle, image_std=middle)
    processor.save_pretrained(folder)


def pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    """Pictures of the world as the models see them, (images, 3, 48, 48) float32 in [-1, 1]."""
    stack = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def image_features(vit: Blip2VisionModel, images: torch.Tensor) -> torch.Tensor:
    """Features of every image, (images, 37, WIDTH): the class token, then the patches row by row."""
    return torch.cat([vit(pixel_values=part).last_hidden_state for part in images.split(250)])


def prefix(model: Blip2ForConditionalGeneration, features: torch.Tensor) -> torch.Tensor:
    """Q-Former output of image features, (rows, QUERIES, WIDTH), before the projection to the LM."""
    queries = model.query_tokens.expand(len(features), -1, -1)
    return model.qformer(query_embeds=queries, encoder_hidden_states=features).last_hidden_state


def match(
    model: Blip2ForImageTextRetrieval, features: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image-text matching on features that are already there.

    Args:
        model: the matching model.
        features: (rows, 37, WIDTH) image features.
        tokens: (rows, T) framed captions.

    Returns:
        Logits (rows, 2), no match and match, and the Q-Former's states (rows, QUERIES + T, WIDTH).
    """
    queries = model.query_tokens.expand(len(features), -1, -1)
    seen = torch.cat([torch.ones(len(tokens), QUERIES, dtype=torch.long), (tokens != PAD).long()], 1)
    states = model.qformer(
        query_embeds=model.embeddings(input_ids=tokens, query_embeds=queries),
        query_length=QUERIES,
        attention_mask=seen,
        encoder_hidden_states=features,
    ).last_hidden_state
    return model.itm_head(states[:, :QUERIES]).mean(1), states
