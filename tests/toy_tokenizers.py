"""Small tokenizers of every kind that captioners use, trained on a few lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
TABLE_1 = "an image of a man in green shirt and green shirt is talking about a car"
LINES = [
    "a red triangle above a blue star, left of a green square",
    "two men in green shirts are talking about the car on the street",
    "an image of a café in Zürich; it's 1998 and the dog's ball is blue",
    "a close-up of a zoomed-in skateboarder, riding a skateboard",
]
"""What the tokenizers learn from: most words of TABLE_1 are unknown to them and fall into pieces."""


def _train(tokenizer: Tokenizer, trainer: trainers.Trainer, lines: list[str]) -> PreTrainedTokenizerFast:
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def byte_level() -> PreTrainedTokenizerFast:
    """BPE over bytes with spaces in front of words, as GPT-2, OPT and Qwen have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    return _train(tokenizer, trainer, LINES)


def llama() -> PreTrainedTokenizerFast:
    """SentencePiece BPE with bytes for unknown characters, as Llama and Vicuna have it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    return _with_bytes_as_text(_train(tokenizer, trainer, LINES))


def _with_bytes_as_text(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The trainer adds byte tokens as special ones; Llama's are ordinary, so that decoding keeps them."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def t5() -> PreTrainedTokenizerFast:
    """SentencePiece unigrams, as T5 has them; unknown characters are a special token."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    return _train(tokenizer, trainer, [*LINES, TABLE_1.replace(" ", "")])


def clip() -> PreTrainedTokenizerFast:
    """BPE that marks the ends of words, as CLIP has it."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=150, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    return _train(tokenizer, trainer, LINES)


def word_piece() -> PreTrainedTokenizerFast:
    """WordPiece, as BERT has it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    return _train(tokenizer, trainer, LINES)


def word_level() -> PreTrainedTokenizerFast:
    """A token a word, as the miniature world has it."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)
    return _train(tokenizer, trainer, [*LINES, TABLE_1])


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte_level": byte_level,
    "llama": llama,
    "t5": t5,
    "clip": clip,
    "word_piece": word_piece,
    "word_level": word_level,
}


@cache
def toy(kind: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a kind, made once."""
    return KINDS[kind]()
