"""Table 1 of VLRM (arXiv 2404.01911): the return of every token of its example, number by number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from limner import config
from limner.advantages.base import suffix_sums
from limner.captioners.words import split
from limner.inspect import inspect
from limner.rewards import bad_phrases, fluency, no_eos, repeats
from limner.rewards.base import NoInputs, plain
from limner.score import combine
from limner.types import Part, Rollouts, Sample
from toy_tokenizers import KINDS, TABLE_1, toy

PHRASES = ("an image of", "is talking about")
# token, bad, repeat, what is added to r0 + r1: copied from the table, without its last row, eos.
TABLE = """
an 1 0 -7
image 1 0 -6
of 1 0 -5
a 0 0 -4
man 0 0 -4
in 0 0 -4
green 0 0 -4
shirt 0 0 -4
and 0 0 -4
green 0 0 -4
shirt 0 1 -4
is 1 0 -3
talking 1 0 -2
about 1 0 -1
a 0 0 0
car 0 0 0
"""
ROWS = [
    (word, int(bad), int(repeat), int(sum_))
    for word, bad, repeat, sum_ in map(str.split, TABLE.split("\n")[1:-1])
]
R0, R1 = -1.25, 0.75  # reference and similarity, any numbers
SETTINGS = {
    "itm": None,
    "fluency": fluency.Reward(),
    "bad_phrases": bad_phrases.Reward(phrases=PHRASES),
    "repeats": repeats.Reward(),
    "no_eos": no_eos.Reward(),
}


def returns(rollouts: Rollouts) -> torch.Tensor:
    rollouts = rollouts.replace(lm_logprobs=torch.full(rollouts.tokens.shape, R0))
    parts = {
        name: Part(torch.tensor([R1])) if reward is None else reward(rollouts)
        for name, reward in SETTINGS.items()
    }
    scores = combine(rollouts, parts, dict.fromkeys(parts, 1.0), {})
    return suffix_sums(scores.rewards, gamma=1.0)[0]


def test_returns_of_words() -> None:
    expected = [R0 + R1 + row[3] for row in ROWS] + [R0 + R1]
    assert returns(plain([TABLE_1])).tolist() == expected


def test_a_caption_that_was_cut_pays_one_more() -> None:
    expected = [R0 + R1 - 1 + row[3] for row in ROWS]
    assert returns(plain([TABLE_1], ended=False)).tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_returns_with_any_tokenizer(kind: str) -> None:
    """Every token of a word has the word's penalty, however many tokens the word has."""
    tokenizer = toy(kind)
    ids = [*tokenizer(TABLE_1, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    tokens = torch.tensor([ids])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    words = split(tokenizer, tokens[0], mask[0])
    rollouts = Rollouts(
        samples=(Sample("a", ()),), inputs=NoInputs(1), tokens=tokens, caption_mask=mask,
        logprobs=torch.zeros(tokens.shape), ended=torch.tensor([True]), texts=(TABLE_1,), words=(words,),
    )  # fmt: skip
    found = [value - R0 - R1 for value in returns(rollouts).tolist()]
    assert found[-1] == 0
    assert words.words == tuple(row[0] for row in ROWS)
    fines = [before - after for before, after in pairwise(found)]
    for (word, bad, repeat, _), held in zip(ROWS, words.tokens, strict=True):
        assert [fines[t] for t in held] == [-(bad + repeat)] * len(held), word
    # White space alone is fined inside a phrase only.
    spaces = set(range(len(fines))) - {t for held in words.tokens for t in held}
    inside = {t for a, b in ((0, 3), (11, 14)) for t in range(words.tokens[a][0], words.tokens[b - 1][-1])}
    assert all(fines[t] == (-1 if t in inside else 0) for t in spaces)
    if not spaces and len(words.words) == len(fines):
        assert found[:-1] == [row[3] for row in ROWS]


def test_inspect_function() -> None:
    recipe = config.load("vlrm", complete=False)
    rows = inspect(TABLE_1, recipe, PHRASES)
    assert [tuple(row.values()) for row in rows] == ROWS
    assert list(rows[0]) == ["text", "bad", "repeat", "penalty"]


def test_inspect_command(tmp_path: Path) -> None:
    """The very line of the documentation, on a machine without the tokenizer and without a network."""
    recipe = Path(__file__).parents[2] / "recipes" / "vlrm.yaml"
    command = [
        sys.executable, "-m", "limner", "inspect", TABLE_1, "--recipe", str(recipe),
        "--phrases", "an image of", "--phrases", "is talking about",
    ]  # fmt: skip
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, env=offline)
    tokens = json.loads(done.stdout)["tokens"]
    assert [(t["text"], t["bad"], t["repeat"], t["penalty"]) for t in tokens] == ROWS
    assert "tokens are words" in done.stderr
