"""What a recipe's penalties say of a caption, token by token: table 1 of VLRM (arXiv 2404.01911)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from limner.advantages.base import suffix_sums
from limner.captioners.words import split, token_spans
from limner.errors import UserError
from limner.metrics.phrases import word_spans
from limner.paths import resolve
from limner.rewards import bad_phrases, repeats
from limner.rewards.base import plain
from limner.types import Rollouts

if TYPE_CHECKING:
    from limner.config import Recipe


def inspect(caption: str, recipe: Recipe, phrases: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The penalties of a caption's tokens.

    The tokens are those of the recipe's captioner where its tokenizer is on this machine, else words and
    punctuation marks; a line on stderr says so. Nothing is downloaded.

    Args:
        caption: Any text.
        recipe: Its `bad_phrases` and `repeats` rewards count, each with its weight.
        phrases: Bad phrases in place of the recipe's.

    Returns:
        A row a token: `text`; `bad` and `repeat`, 1 where the token is fined, else 0; `penalty`, the
        weighted sum of the fines from this token on, negative or 0: what they add to the token's return at
        gamma 1.

    Raises:
        UserError: The caption is empty, or phrases are given and the recipe has no `bad_phrases` reward.
    """
    if not caption.strip():
        raise UserError("the caption is empty")
    rewards = list(recipe.rewards.values())
    if phrases is not None and not any(isinstance(reward, bad_phrases.Reward) for reward in rewards):
        raise UserError("--phrases: the recipe has no bad_phrases reward")
    texts, rollouts = _tokens(caption, recipe.captioner.path)
    fines = torch.zeros(rollouts.caption_mask.shape)
    flags = {"bad": fines.bool(), "repeat": fines.bool()}
    for reward in rewards:
        if isinstance(reward, bad_phrases.Reward):
            name = "bad"
            if phrases is not None:
                reward = replace(reward, phrases=tuple(phrases), extra=())
        elif isinstance(reward, repeats.Reward):
            name = "repeat"
        else:
            continue
        values = reward(rollouts).values
        flags[name] |= values < 0
        fines += reward.weight * values
    penalties = suffix_sums(fines, 1.0)
    return [
        {
            "text": text,
            "bad": int(flags["bad"][0, t]),
            "repeat": int(flags["repeat"][0, t]),
            "penalty": _number(float(penalties[0, t])),
        }
        for t, text in enumerate(texts)
    ]


def _tokens(caption: str, path: str) -> tuple[list[str], Rollouts]:
    """The text of every token and the caption as a roll-out of one row, without end-of-sequence token."""
    from transformers import AutoTokenizer

    rollouts = plain([caption], ended=False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            resolve(path), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, UserError):
        sys.stderr.write(f"tokens are words: the tokenizer of {path} is not on this machine\n")
        return [caption[start:stop] for start, stop in word_spans(caption)], rollouts
    ids = tokenizer(caption, add_special_tokens=False)["input_ids"]
    tokens = torch.tensor([ids], dtype=torch.long)
    caption_mask = torch.ones_like(tokens, dtype=torch.bool)
    text, spans = token_spans(tokenizer, ids)
    rollouts = rollouts.replace(
        tokens=tokens,
        caption_mask=caption_mask,
        logprobs=torch.zeros(tokens.shape),
        words=(split(tokenizer, tokens[0], caption_mask[0]),),
    )
    return [text[start:stop].strip() for start, stop in spans], rollouts


def _number(value: float) -> float | int:
    return int(value) if value.is_integer() else round(value, 6)
