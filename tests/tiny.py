"""Small models of the real classes with random weights, made in a moment, for tests without trained ones."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipImageProcessorPil,
    GenerationConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
)

import toy_tokenizers
from limner.types import Sample
from limner.world import models, scenes

HEAD_SCALE = 0.5
"""Input and output embeddings are one matrix: a larger one would repeat its input for ever."""


def sharpen(model: nn.Module, seed: int) -> None:
    """Give every matrix a spread at which the network does something visible."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)


def blip2(folder: Path, seed: int = 0) -> Path:
    """A BLIP-2 captioner checkpoint of the miniature world's shapes, as a Hugging Face folder."""
    model = models.captioner()
    sharpen(model, seed)
    with torch.no_grad():
        model.language_model.get_output_embeddings().weight.mul_(HEAD_SCALE)
    models.save(model, folder, kind="captioner")
    return folder


def blip2_t5(folder: Path, seed: int = 0) -> Path:
    """A BLIP-2 captioner of FLAN-T5's shape: gated layers, and an output layer apart from the embeddings."""
    tokenizer = framed(unigrams(), "$A </s>")
    language = T5Config(
        vocab_size=len(tokenizer) + 5,  # FLAN-T5's embeddings too have more rows than there are tokens
        d_model=64,
        d_kv=16,
        d_ff=96,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=2,
    )
    return _saved(_blip2(language), tokenizer, folder, seed)


def blip2_bytes(folder: Path, seed: int = 0) -> Path:
    """A BLIP-2 captioner with an OPT whose tokenizer is byte-level, as the published ones have it."""
    tokenizer = framed(toy_tokenizers.byte_level(), "<s> $A")
    language = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        word_embed_proj_dim=64,
        ffn_dim=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return _saved(_blip2(language), tokenizer, folder, seed)


def _blip2(language: PreTrainedConfig) -> Blip2ForConditionalGeneration:
    config = models.blip2_config(text=False).to_dict()
    config["text_config"] = language.to_dict()
    return Blip2ForConditionalGeneration(Blip2Config(**config))


def instructblip(folder: Path, seed: int = 0) -> Path:
    """An InstructBLIP of Vicuna's shape: a Llama, and a Q-Former that reads the prompt with WordPiece."""
    tokenizer = framed(toy_tokenizers.llama(), "<s> $A")
    reader = framed(word_pieces(), "<s> $A </s>")
    blip2 = models.blip2_config(text=False)
    qformer = {k: v for k, v in blip2.qformer_config.to_dict().items() if k != "model_type"}
    vision = {k: v for k, v in blip2.vision_config.to_dict().items() if k != "model_type"}
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(**vision).to_dict(),
        qformer_config=InstructBlipQFormerConfig(**qformer | {"vocab_size": len(reader)}).to_dict(),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ).to_dict(),
        num_query_tokens=models.QUERIES,
        image_token_index=3,
    )
    reader.save_pretrained(folder / "qformer_tokenizer")
    return _saved(InstructBlipForConditionalGeneration(config), tokenizer, folder, seed)


WORDS = sorted(set(" ".join(toy_tokenizers.LINES).split()))
LETTERS = sorted(set("".join(WORDS)))


def unigrams() -> PreTrainedTokenizerFast:
    """SentencePiece unigrams as T5 has them, of words and letters; a trained one differs from run to run."""
    scored = [(piece, 0.0) for piece in toy_tokenizers.SPECIAL]
    scored += [("▁" + word, -1.0 - 0.01 * rank) for rank, word in enumerate(WORDS)]
    scored += [(piece, -10.0 - 0.01 * rank) for rank, piece in enumerate(["▁", *LETTERS])]
    tokenizer = Tokenizer(tokenizer_models.Unigram(scored, unk_id=toy_tokenizers.SPECIAL.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _with_specials(tokenizer)


def word_pieces() -> PreTrainedTokenizerFast:
    """WordPiece as BERT has it, of words and letters."""
    pieces = [*toy_tokenizers.SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(tokenizer_models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _with_specials(tokenizer)


def _with_specials(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def framed(tokenizer: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    """The tokenizer with special tokens put around a text."""
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=special)
    return tokenizer


def _saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, seed: int) -> Path:
    sharpen(model, seed)
    special = {"eos_token_id": 2, "pad_token_id": 0}
    model.generation_config = GenerationConfig(**special)
    with torch.no_grad():  # captions of many lengths
        model.language_model.get_output_embeddings().weight[special["eos_token_id"]].mul_(3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    square = {"height": scenes.PIXELS, "width": scenes.PIXELS}
    BlipImageProcessorPil(size=square, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)
    return folder


def clips(count: int, frames: int | tuple[int, ...], split: str = "validation") -> list[Sample]:
    """Samples of several pictures each: `frames` of every sample, or by turns as many as listed."""
    lengths = (frames,) if isinstance(frames, int) else frames
    return [
        Sample(
            f"clip-{i}",
            tuple(scenes.picture(0, 10 * i + frame, split) for frame in range(lengths[i % len(lengths)])),
        )
        for i in range(count)
    ]


def samples(count: int, split: str = "validation") -> list[Sample]:
    """Pictures of the miniature world."""
    return [
        Sample(f"{split}-{i}", (scenes.picture(0, i, split),), extra={"scene": scenes.scene(0, i, split)})
        for i in range(count)
    ]
