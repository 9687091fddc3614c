"""Where a caption's words lie among its tokens: words are what rewards speak of, tokens are what is trained.

And the other way: the tokens a written caption has after a prompt.

Generated ids are never tokenised again. Every prefix of the ids is decoded, and what a token adds to the text
is where it lies; so the map is right for whatever the tokenizer's decoder does: byte-level BPE, SentencePiece
or whole words.
"""

from __future__ import annotations

from itertools import takewhile

import torch
from transformers import PreTrainedTokenizerFast

from limner.metrics.phrases import normal, word_spans
from limner.types import Words

BLOCK = 64
"""Tokens decoded in one go: the work grows with T * BLOCK instead of with T squared."""
UNFINISHED = "\ufffd"
"""What decoders write for bytes that are no character yet."""
LONGEST_CHARACTER = 8
"""Tokens that a block may be prolonged by to end with a whole character."""


def split(tokenizer: PreTrainedTokenizerFast, tokens: torch.Tensor, caption_mask: torch.Tensor) -> Words:
    """The words of one caption and the tokens that hold any of their characters.

    A word made of several tokens has them all; a token that reaches into two words belongs to both. Special
    tokens (end of sequence, padding) and tokens of white space alone belong to no word. What a word is says
    `limner.metrics.phrases.word_spans`: punctuation marks are words of their own.

    Args:
        tokenizer: a Hugging Face fast tokenizer, the one the ids are of.
        tokens: (T,) int64 generated ids.
        caption_mask: (T,) bool, True on generated tokens.
    """
    ids = tokens.tolist()
    positions = [index for index, kept in enumerate(caption_mask.tolist()) if kept]
    text, spans = token_spans(tokenizer, [ids[index] for index in positions])
    places = [place for place, (begin, end) in zip(positions, spans, strict=True) if begin < end]
    spans = [(begin, end) for begin, end in spans if begin < end]
    words, holders = [], []
    first = 0
    for start, stop in word_spans(text):
        while first < len(spans) and spans[first][1] <= start:
            first += 1
        last = first
        while last < len(spans) and spans[last][0] < stop:
            last += 1
        words.append(normal(text[start:stop]))
        holders.append(tuple(places[first:last]))
    return Words(tuple(words), tuple(holders))


def after_prompt(tokenizer: PreTrainedTokenizerFast, prompt: str, text: str) -> list[int]:
    """The ids of a caption as they follow those of the prompt, no special tokens.

    Byte-level tokenizers write a word in mid-text with the space before it and the first word of a text
    without. So prompt and caption are tokenised as one text, and the prompt's ids are taken off in front.
    Where the prompt's last token would have merged with the caption, the caption is tokenised alone.

    Args:
        tokenizer: a Hugging Face fast tokenizer.
        prompt: what the language model reads before the caption; may be empty.
        text: the caption.
    """

    def ids(words: str) -> list[int]:
        # What looks like a special token in a caption is text.
        return list(tokenizer(words, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    caption = " ".join(text.split())
    if not prompt or not caption:
        return ids(caption)
    before = ids(prompt)
    both = ids(prompt + ("" if prompt[-1].isspace() else " ") + caption)
    return both[len(before) :] if both[: len(before)] == before else ids(caption)


def token_spans(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> tuple[str, list[tuple[int, int]]]:
    """The text of token ids, special tokens left out, and which characters each token makes.

    A character made of several tokens, which hold its bytes, belongs to each of them.

    Returns:
        The text, and (first character, one past the last) of every token; the ends never decrease.
    """
    # Straight to the tokenizers library: transformers' decode() costs three times as much here.
    decode = tokenizer.backend_tokenizer.decode  # which leaves special tokens out
    text = ""
    spans: list[tuple[int, int]] = []
    context = start = 0
    while start < len(ids):
        stop = min(start + BLOCK, len(ids))
        prefixes = [decode(ids[context:end]) for end in range(start, stop + 1)]
        while prefixes[-1].endswith(UNFINISHED) and stop < min(start + BLOCK + LONGEST_CHARACTER, len(ids)):
            stop += 1
            prefixes.append(decode(ids[context:stop]))
        whole = prefixes[-1]
        known = _common(prefixes[0], whole)
        shift = len(text) - known
        text += whole[known:]
        begin = known
        for index, prefix in enumerate(prefixes[1:], start):
            end = settled = max(begin, _common(prefix, whole))
            # Bytes of a character that later tokens complete: this token holds a part of it, unless it is
            # a special token between two bytes, which decodes to nothing at all.
            if settled < len(prefix) and settled < len(whole) and decode(ids[index : index + 1]):
                end += 1
            last = spans[-1][1] if spans else 0
            spans.append((begin + shift, end + shift) if begin < end else (last, last))
            begin = settled
        context, start = start, stop
    return text, spans


def _common(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    if other.startswith(one):
        return len(one)
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
