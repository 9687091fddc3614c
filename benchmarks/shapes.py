"""Checkpoints with random weights at the sizes that are benchmarked: speed and memory depend on shapes alone.

`python benchmarks/shapes.py SIZE FOLDER` writes FOLDER/captioner and FOLDER/itm, whose vision towers are
equal, and prints what the size is as JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import string
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessorPil,
    OPTConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from limner.paths import resolve
from limner.world import models as world
from limner.world import tokenizer as world_words

SPECIAL = ("<pad>", "<s>", "<unk>", "<image>", "</s>")
PAD, BOS, UNK, IMAGE, EOS = range(5)


@dataclass(frozen=True)
class Size:
    """What is trained at one size."""

    recipe: str
    """The recipe whose settings hold."""
    batch: int
    """Images, and captions, of a step."""
    micro_batch: int
    """Captions that limner sends through the model with gradient at a time."""
    tokens: int | None
    """T, tokens of every caption: both sides write the same number. None: captions end where they end."""


SIZES = {
    "world": Size("tiny/vlrm", batch=192, micro_batch=48, tokens=None),
    "tiny": Size("tiny/vlrm", batch=192, micro_batch=48, tokens=16),
    "mid": Size("vlrm", batch=32, micro_batch=4, tokens=24),
    "full": Size("vlrm", batch=16, micro_batch=8, tokens=24),
}
"""The miniature world; its shapes with captions of one length; about 50M parameters; BLIP-2 OPT-2.7B."""


def blip2_config(size: str, *, text: bool) -> Blip2Config:
    """The shapes of a size; `text`: does the Q-Former read text (image-text matching)?"""
    if size == "full":  # ViT-g and the Q-Former are the defaults of transformers
        vision, qformer = Blip2VisionConfig(), Blip2QFormerConfig(use_qformer_text_input=text)
        language = OPTConfig(
            vocab_size=50304, hidden_size=2560, word_embed_proj_dim=2560, ffn_dim=10240,
            num_hidden_layers=32, num_attention_heads=32,
            pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        )  # fmt: skip
    else:
        vision = Blip2VisionConfig(
            hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=6
        )
        qformer = Blip2QFormerConfig(
            vocab_size=16384, hidden_size=384, intermediate_size=1536, num_hidden_layers=4,
            num_attention_heads=6, encoder_hidden_size=384, use_qformer_text_input=text,
        )  # fmt: skip
        language = OPTConfig(
            vocab_size=16384, hidden_size=512, word_embed_proj_dim=512, ffn_dim=2048, num_hidden_layers=6,
            num_attention_heads=8, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        )  # fmt: skip
    return Blip2Config(
        vision_config=vision, qformer_config=qformer, text_config=language, num_query_tokens=32,
        image_token_index=IMAGE,
    )  # fmt: skip


def made_up_words(vocabulary: int, *, framed: bool) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of made-up words; `framed` adds an end of sequence, as ITM models have it."""
    letters = itertools.product(string.ascii_lowercase, repeat=4)
    words = ("".join(four) for four in itertools.islice(letters, vocabulary - len(SPECIAL)))
    model = Tokenizer(WordLevel({word: i for i, word in enumerate((*SPECIAL, *words))}, unk_token="<unk>"))
    model.pre_tokenizer = WhitespaceSplit()
    model.post_processor = TemplateProcessing(
        single="<s> $A </s>" if framed else "<s> $A", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        extra_special_tokens=["<image>"], model_max_length=512, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def build(size: str, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> int:
    """Write the captioner and the image-text matching model of a size; returns the captioner's parameters.

    The miniature world's own models are in the package: nothing is written for them.
    """
    if size == "world":
        return count(Blip2ForConditionalGeneration.from_pretrained(resolve("world:captioner")))
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            captioner = (
                world.captioner()
                if size == "tiny"
                else Blip2ForConditionalGeneration(blip2_config(size, text=False))
            )
            itm = (
                world.matcher()
                if size == "tiny"
                else Blip2ForImageTextRetrieval(blip2_config(size, text=True))
            )
    finally:
        torch.set_default_dtype(before)
    for model in (captioner, itm):
        _randomise(model)
    itm.vision_model.load_state_dict(captioner.vision_model.state_dict())
    _never_write_special_tokens(captioner)
    for model, name in ((captioner, "captioner"), (itm, "itm")):
        _save(model, folder / name, size=size, framed=name == "itm")
    return count(captioner)


def count(model: nn.Module) -> int:
    """Parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def _randomise(model: nn.Module) -> None:
    """Weights at whose spread captions differ from image to image."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5)


def _never_write_special_tokens(captioner: Blip2ForConditionalGeneration) -> None:
    """Give them low logits: transformers would put an image at every image token.

    What the last layer norm makes sums to its bias, so that a constant row of the output layer has a
    constant logit.
    """
    with torch.no_grad():
        captioner.language_model.get_decoder().final_layer_norm.bias.fill_(0.5)
        captioner.language_model.get_output_embeddings().weight[[PAD, BOS, UNK, IMAGE]] = -0.5


def _save(model: PreTrainedModel, folder: Path, *, size: str, framed: bool) -> None:
    model.save_pretrained(folder)
    if size == "tiny":
        tokenizer, side = world_words.tokenizer("itm" if framed else "captioner"), world.PIXELS
    else:
        config = model.config.qformer_config if framed else model.config.text_config
        tokenizer = made_up_words(config.vocab_size, framed=framed)
        side = model.config.vision_config.image_size
    tokenizer.save_pretrained(folder)
    BlipImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    parameters = build(given.size, given.folder, device=given.device, dtype=getattr(torch, given.dtype))
    print(json.dumps({"parameters": parameters, **dataclasses.asdict(SIZES[given.size])}))
