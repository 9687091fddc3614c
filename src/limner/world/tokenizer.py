"""The word-level tokenizers of the miniature world's models, and the same ids without a tokenizer."""

from collections.abc import Sequence
from typing import Literal

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from limner.world.captions import WORDS

SPECIAL = ("<pad>", "<s>", "<unk>", "<image>", "</s>")
PAD, BOS, UNK, IMAGE, EOS = range(5)
"""Token ids. EOS must not be 2: transformers' CLIP then pools at the largest id instead of at EOS."""
VOCABULARY = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}

Kind = Literal["captioner", "itm", "clip"]


def tokenizer(kind: Kind) -> PreTrainedTokenizerFast:
    """A tokenizer that puts BOS in front (captioner, as OPT's does) or BOS and EOS around (itm, clip)."""
    model = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    model.pre_tokenizer = WhitespaceSplit()
    single = "<s> $A" if kind == "captioner" else "<s> $A </s>"
    model.post_processor = TemplateProcessing(single=single, special_tokens=[("<s>", BOS), ("</s>", EOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=["<image>"],
        model_max_length=32 if kind == "clip" else 40,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def encode(caption: str) -> list[int]:
    """Token ids of a caption's words, without BOS and EOS."""
    return [VOCABULARY.get(word, UNK) for word in caption.split()]


def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Token ids (rows, longest row) int64, padded on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])


def framed(captions: Sequence[str]) -> torch.Tensor:
    """BOS + words + EOS of every caption, (captions, longest) int64."""
    return padded([[BOS, *encode(caption), EOS] for caption in captions])
