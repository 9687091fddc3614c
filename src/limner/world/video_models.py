"""The video captioner with random weights, its tokenizer, and its passes over features of frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    BlipImageProcessorPil,
    GenerationConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from limner.world import models
from limner.world.clip_captions import PROMPT, WORDS
from limner.world.scenes import PIXELS

PAD, EOS, UNK, IMAGE = range(4)
"""Token ids, those of T5 where it has them: decoding starts with PAD."""
VOCABULARY = {word: number for number, word in enumerate(("<pad>", "</s>", "<unk>", "<image>", *WORDS))}
LONGEST_CAPTION = 32
"""Tokens that generation may add: the longest reference has 23 words and EOS."""
_WIDTH = models.WIDTH
_FLAN: dict[str, Any] = {"tie_word_embeddings": False, "decoder_start_token_id": PAD}
"""Taken by transformers, though not in its signature. FLAN-T5 does not scale what its head reads."""


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer that puts EOS behind a text, as T5's does."""
    model = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    model.pre_tokenizer = WhitespaceSplit()
    model.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=["<image>"],
        model_max_length=64,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def config() -> Blip2Config:
    """BLIP-2 with the world's ViT, a Q-Former of 3 layers and an encoder-decoder in the shape of FLAN-T5."""
    qformer = Blip2QFormerConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=_WIDTH,
        intermediate_size=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=40,
        pad_token_id=PAD,
        cross_attention_frequency=1,
        encoder_hidden_size=_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
    )
    language = T5Config(
        vocab_size=len(VOCABULARY),
        d_model=_WIDTH,
        d_kv=24,
        d_ff=256,
        num_layers=2,
        num_decoder_layers=2,  # as many, or transformers makes its cache too short
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=PAD,
        eos_token_id=EOS,
        **_FLAN,
    )
    return Blip2Config(
        vision_config=models.vision_config(),
        qformer_config=qformer,
        text_config=language,
        num_query_tokens=models.QUERIES,
        image_text_hidden_size=64,
        image_token_index=IMAGE,
    )


def captioner() -> Blip2ForConditionalGeneration:
    """A video captioner with random weights."""
    model = Blip2ForConditionalGeneration(config())
    torch.nn.init.normal_(model.query_tokens, std=0.5)  # transformers starts them at zero, all alike
    # Input and output embeddings are one matrix in transformers; T5's own start makes the head far too sure.
    torch.nn.init.normal_(model.language_model.lm_head.weight, std=0.05)
    settings = {"pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": PAD}
    model.generation_config = GenerationConfig(max_new_tokens=LONGEST_CAPTION, **settings)
    model.language_model.generation_config = GenerationConfig(**settings)
    return model


def save(model: Blip2ForConditionalGeneration, folder: Path) -> None:
    """Write a whole Hugging Face directory, as `limner.world.models.save` does."""
    models.save_half(model, folder)
    tokenizer().save_pretrained(folder)
    square, middle = {"height": PIXELS, "width": PIXELS}, [0.5] * 3
    BlipImageProcessorPil(size=square, image_mean=middle, image_std=middle).save_pretrained(folder)


def encode(captions: Sequence[str]) -> torch.Tensor:
    """Words and EOS of every caption, (captions, longest) int64, PAD behind."""
    rows = [[*(VOCABULARY.get(word, UNK) for word in caption.split()), EOS] for caption in captions]
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])


def read(model: Blip2ForConditionalGeneration, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the language model's encoder reads: the projected queries, the prompt and EOS.

    Args:
        model: the captioner.
        queries: (rows, QUERIES, WIDTH) Q-Former output.

    Returns:
        Embeddings (rows, L, WIDTH) and their mask of ones (rows, L).
    """
    prompt = model.get_input_embeddings()(encode([PROMPT])).expand(len(queries), -1, -1)
    embedded = torch.cat([model.language_projection(queries), prompt], 1)
    return embedded, torch.ones(embedded.shape[:2], dtype=torch.long)


def loss(
    model: Blip2ForConditionalGeneration, queries: torch.Tensor, captions: Sequence[str]
) -> torch.Tensor:
    """Mean cross-entropy of the captions' tokens; `queries` as in `read`."""
    embedded, mask = read(model, queries)
    tokens = encode(captions)
    labels = tokens.masked_fill(tokens == PAD, -100)
    return model.language_model(inputs_embeds=embedded, attention_mask=mask, labels=labels).loss


@torch.no_grad()
def generate(model: Blip2ForConditionalGeneration, features: torch.Tensor, **settings: object) -> list[str]:
    """Captions of features of frames (clips, frames * 37, WIDTH); greedy without settings."""
    decode = tokenizer().batch_decode
    captions = []
    for part in features.split(250):
        embedded, mask = read(model, models.prefix(model, part))
        limits = {"max_new_tokens": LONGEST_CAPTION, "do_sample": False, **settings}
        made = model.language_model.generate(inputs_embeds=embedded, attention_mask=mask, **limits)
        captions += decode(made, skip_special_tokens=True)
    return captions
