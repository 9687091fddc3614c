"""Small causal language models of the real classes with random weights, to answer questions in tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import tiny
import toy_tokenizers
from limner.answering.draw import CANNOT_ANSWER
from limner.questions import LETTERS

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4} | SPECIAL
_LLAMA = _SIZE | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 512}
WINDOW = 24
"""Reach of the attention of models with a window."""
CLASSES: dict[str, Callable[[int], PreTrainedModel]] = {
    "llama": lambda v: LlamaForCausalLM(LlamaConfig(vocab_size=v, **_LLAMA)),
    "qwen2": lambda v: Qwen2ForCausalLM(Qwen2Config(vocab_size=v, **_LLAMA)),
    "qwen3": lambda v: Qwen3ForCausalLM(Qwen3Config(vocab_size=v, head_dim=8, **_LLAMA)),
    "mistral": lambda v: MistralForCausalLM(MistralConfig(vocab_size=v, sliding_window=WINDOW, **_LLAMA)),
    "gemma3": lambda v: Gemma3ForCausalLM(
        Gemma3TextConfig(vocab_size=v, head_dim=8, sliding_window=WINDOW, **_LLAMA)
    ),
    "opt": lambda v: OPTForCausalLM(
        OPTConfig(vocab_size=v, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=512, **_SIZE)
    ),
    "gpt2": lambda v: GPT2LMHeadModel(
        GPT2Config(vocab_size=v, n_embd=32, n_layer=2, n_head=4, n_positions=512, **SPECIAL)
    ),
    "bloom": lambda v: BloomForCausalLM(
        BloomConfig(vocab_size=v, hidden_size=32, n_layer=2, n_head=4, **SPECIAL)
    ),
    "mamba": lambda v: MambaForCausalLM(
        MambaConfig(vocab_size=v, hidden_size=32, num_hidden_layers=2, state_size=4, **SPECIAL)
    ),
}
"""A model of each class for a vocabulary of so many tokens."""
ALONE = {"bloom", "mamba"}
"""Classes that can't share what they have read: no positions to give, or a state instead of keys."""
CHAT = (
    "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def model(name: str, vocabulary: int, seed: int = 0) -> PreTrainedModel:
    """A model whose outputs depend visibly on its inputs."""
    made = CLASSES[name](vocabulary).eval()
    tiny.sharpen(made, seed)
    return made


def words(extra: str = "") -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, as small models of a small world have it."""
    known = (
        f"{' '.join(tiny.WORDS)} {' '.join(LETTERS)} {CANNOT_ANSWER} answer : ; ? ) yes no {extra}".split()
    )
    vocabulary = {word: k for k, word in enumerate(dict.fromkeys([*toy_tokenizers.SPECIAL, *known]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def chatting() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a chat template."""
    tokenizer = toy_tokenizers.byte_level()
    tokenizer.chat_template = CHAT
    return tokenizer


def saved(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    *,
    kind: str = "llama",
    seed: int = 0,
    answers: str = "",
) -> Path:
    """A checkpoint folder.

    Args:
        folder: where to write it.
        tokenizer: its tokenizer.
        kind: one of CLASSES.
        seed: of the weights.
        answers: letters of which the model (a Llama) writes one and ends, whatever it reads.
    """
    made = model(kind, len(tokenizer), seed)
    if answers:
        boost_letters(made, tokenizer, answers)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def boost_letters(made: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, letters: str) -> None:
    """Make a Llama write one of these letters and end, and leave the choice to what it reads.

    Output rows of letters add up to nothing and the others are nothing, so the largest is a letter's. The
    first hidden unit tells a letter from other tokens, and only the end of the sequence looks at it.
    """
    ids = [tokenizer.convert_tokens_to_ids(letter) for letter in letters]
    table, head = made.get_input_embeddings().weight, made.get_output_embeddings().weight
    with torch.no_grad():
        table[:, 0] = 0.0
        table[ids, 0] = 100.0
        for layer in made.get_decoder().layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        rows = head[ids] - head[ids].mean(0)
        rows[:, 0] = 0.0
        head.zero_()
        head[ids] = 5.0 * rows
        head[SPECIAL["eos_token_id"], 0] = 30.0
