"""The answerer's model and its tokenizer; `limner.world.answerer` trains it.

Two things make answering learnable in minutes; with a plain Llama hardly anything was learned in that time:

1. What is always said in the same words is one token ("What colour is the"), marks are none.
2. At the start attention looks for the word itself, and in two heads of the first layer at what stands just
   before (`_prepare`). Both are what the steps of an answer are made of, and take long to be found by chance.
"""

import math
import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from limner.answering.draw import CANNOT_ANSWER
from limner.answering.prompt import PROMPT
from limner.questions import LETTERS
from limner.world import captions
from limner.world.models import save_half
from limner.world.questions import CORNERS, NUMBERS, TEXTS
from limner.world.scenes import BACKGROUNDS, COLOURS, SHAPES

WIDTH = 128
"""Features."""
_LAYERS, _HEADS = 6, 4
_THETA = 10000.0
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
PAD, BOS, EOS, UNK = range(4)
_RELATED = ("above it", "below it", "left of it", "right of it")
CONTENTS = (*SHAPES, *COLOURS, *BACKGROUNDS, *_RELATED, *CORNERS, *NUMBERS, CANNOT_ANSWER)
"""What an option can say, each one token."""


def _phrases() -> list[str]:
    """What is always said in the same words: parts of questions and prompt, and options of several words."""
    texts = [re.sub(r"\?$", "", text) for text in (*TEXTS, PROMPT)]
    parts = [part.strip() for text in texts for part in re.split(r"\{\w*\}|\n", text)]
    return [part for part in dict.fromkeys((*parts, *CONTENTS)) if re.search(r"\W", part)]


PHRASES = _phrases()
VOCABULARY = {
    word: place
    for place, word in enumerate(dict.fromkeys((*_SPECIAL, *LETTERS, *PHRASES, *captions.WORDS, *CONTENTS)))
}
_PATTERN = "|".join([*map(re.escape, sorted(PHRASES, key=len, reverse=True)), r"\w+"])
PIECES = re.compile(_PATTERN)
"""How the tokenizer cuts a text."""


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of words and PHRASES that leaves marks out and puts BOS in front."""
    model = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    model.pre_tokenizer = Split(Regex(_PATTERN), "removed", invert=True)
    model.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=256,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def encode(text: str) -> list[int]:
    """Token ids as the tokenizer gives them, without BOS."""
    return [VOCABULARY.get(piece, UNK) for piece in PIECES.findall(text)]


def model() -> LlamaForCausalLM:
    """An answerer with random weights, prepared to find words."""
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        intermediate_size=192,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        attention_bias=True,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": _THETA},
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        tie_word_embeddings=True,
        initializer_range=0.06,
    )
    made = LlamaForCausalLM(config)
    made.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    _prepare(made)
    return made


@torch.no_grad()
def _prepare(made: LlamaForCausalLM) -> None:
    """Let attention begin with looking for like words, and two heads with looking just before.

    Queries and keys get the same projection, in the features that rotary positions hardly turn. In two heads
    of the first layer their biases agree best one place apart, in the features that are turned fast.
    """
    half = WIDTH // _HEADS // 2
    speeds = [_THETA ** (-place / half) for place in range(half)]
    slow = [place for place, speed in enumerate(speeds) if speed < 0.02]
    made.model.embed_tokens.weight.normal_(0, WIDTH**-0.5)
    attentions: list[Any] = [layer.self_attn for layer in made.model.layers]
    for attention in attentions:
        query, key = attention.q_proj, attention.k_proj
        for start in range(0, WIDTH, 2 * half):
            rows = [start + place for place in (*slow, *(place + half for place in slow))]
            same = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0][: len(rows)]
            query.weight[rows] += same
            key.weight[rows] += same
    first = attentions[0]
    for start in (0, 2 * half):
        for place, speed in enumerate(speeds):
            if speed >= 0.1:
                first.k_proj.bias[start + place] += 3
                first.q_proj.bias[start + place] += 3 * math.cos(speed)
                first.q_proj.bias[start + place + half] -= 3 * math.sin(speed)


def save(trained: LlamaForCausalLM, folder: Path) -> None:
    """Write a whole Hugging Face directory, as `limner.world.models.save` does."""
    save_half(trained, folder)
    tokenizer().save_pretrained(folder)
