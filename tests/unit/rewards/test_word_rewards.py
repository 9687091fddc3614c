"""Rewards that read words and masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import limner
from limner.metrics.phrases import exempt_words
from limner.rewards import bad_phrases, fluency, length, no_eos, repeats
from limner.rewards.base import Reward, plain
from limner.types import Words

LIST = Path(limner.__file__).parent / "metrics" / "data" / "bad_phrases.txt"
PHRASES = LIST.read_text(encoding="utf-8").splitlines()


def fines(reward: Reward, caption: str) -> list[int]:
    """What every word and mark of a caption is fined."""
    values = reward(plain([caption], ended=False)).values[0]
    return (-values).int().tolist()


def test_the_list_is_the_papers() -> None:
    assert len(PHRASES) == len(set(PHRASES)) == 212


@pytest.mark.parametrize("phrase", PHRASES)
def test_every_phrase_of_the_paper_finds_itself(phrase: str) -> None:
    reward = bad_phrases.Reward(phrases=(phrase,))
    assert all(fine == 1 for fine in fines(reward, phrase))
    assert fines(reward, f"green {phrase.upper()} dog")[0] == 0
    assert fines(reward, f"green {phrase.upper()} dog")[-1] == 0
    assert sum(fines(reward, f"green {phrase.upper()} dog")) == len(fines(reward, phrase))
    assert all(fine == 1 for fine in fines(bad_phrases.Reward(), phrase)), "the default is the whole list"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("an eclipse over videos", [0, 0, 0, 0]),  # "clip" and "video" are whole words
        ("a camera", [0, 0]),
        ("a camera, black", [0, 1, 1, 0]),
        ("a man's camera's view", [0, 0, 1, 1]),
        ("A CLOSE-UP OF a dog", [1, 1, 1, 1, 1, 1, 0]),
        ("there is a view of a photo of 1998", [1, 1, 1, 1, 1, 0, 1, 1, 1]),  # overlapping or not: once
        ("19980 people, 199 dogs", [0, 0, 0, 0, 0]),
    ],
)
def test_bad_phrases_by_hand(caption: str, expected: list[int]) -> None:
    assert fines(bad_phrases.Reward(), caption)[: len(expected)] == expected


def test_bad_phrases_settings() -> None:
    caption = "an image of a dog in 2019"
    assert fines(bad_phrases.Reward(years=False), caption) == [1, 1, 1, 0, 0, 0, 0]
    assert fines(bad_phrases.Reward(phrases=("a dog",)), caption) == [0, 0, 0, 1, 1, 0, 1]
    assert fines(bad_phrases.Reward(extra=("a dog",)), caption) == [1, 1, 1, 1, 1, 0, 1]
    assert fines(bad_phrases.Reward(phrases=("in 2019",), years=False), caption) == [0, 0, 0, 0, 0, 1, 1]
    assert fines(bad_phrases.Reward(phrases=(), years=False), caption) == [0] * 7
    part = bad_phrases.Reward()(plain([caption, "a dog"]))
    assert part.details == ({"phrases": ["an image of", "2019"]}, {"phrases": []})


def test_all_tokens_of_a_word_and_of_the_space_between_are_fined() -> None:
    rollouts = plain(["0 1 2 3 4 5 6"], ended=False).replace(
        words=(
            Words(("web", "cast", "red", "red", "shirt", "shirt"), ((0, 1), (3,), (4,), (4,), (5,), (5, 6))),
        )
    )
    bad = bad_phrases.Reward(phrases=("web cast",))(rollouts).values
    assert bad.tolist() == [[-1, -1, -1, -1, 0, 0, 0]]
    again = repeats.Reward()(rollouts).values
    assert again.tolist() == [[0, 0, 0, 0, 0, -1, -1]]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog, a dog, and a Dog", [0, 0, 0, 0, 1, 0, 0, 0, 1]),
        ("grey and gray and grey", [0, 0, 0, 1, 0]),
        ("in the hat of the man in the hat", [0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("the man's dog's the man dogs", [0, 0, 0, 0, 0, 0]),
        ("- - . . !", [0, 0, 0, 0, 0]),
    ],
)
def test_repeats_by_hand(caption: str, expected: list[int]) -> None:
    assert fines(repeats.Reward(), caption) == expected


def test_more_words_may_be_exempt() -> None:
    caption = "a star left of a star left of a cross"
    assert sum(fines(repeats.Reward(), caption)) == 2
    assert sum(fines(repeats.Reward(also=("LEFT", "star")), caption)) == 0


@given(st.lists(st.sampled_from(["dog", "red", "of", "the", "cat", ","]), max_size=12))
def test_repeats_fine_every_word_but_the_first(words: list[str]) -> None:
    fined = fines(repeats.Reward(), " ".join(words)) if words else []
    free = [word for word in words if word not in exempt_words() and word != ","]
    assert sum(fined) == len(free) - len(set(free))


def test_no_eos_is_for_the_whole_caption() -> None:
    rollouts = plain(["a dog", "a cat"]).replace(ended=torch.tensor([True, False]))
    assert no_eos.Reward()(rollouts).values.tolist() == [0, -1]


def test_fluency_is_the_mean_over_caption_tokens() -> None:
    rollouts = plain(["a dog", "a"])
    lm_logprobs = torch.tensor([[-1.0, -2.0, -6.0], [-1.0, -2.0, -100.0]])
    values = fluency.Reward()(rollouts.replace(lm_logprobs=lm_logprobs)).values
    assert values.tolist() == [-3.0, -1.5]  # the end-of-sequence token counts, the padding does not
    lm_logprobs[0, 1] = float("-inf")
    values = fluency.Reward()(rollouts.replace(lm_logprobs=lm_logprobs)).values
    assert values[0].isnan()
    assert values[1] == -1.5


def test_length_is_a_ramp() -> None:
    rollouts = plain([" ".join(["dog"] * count) for count in (1, 3, 4, 5, 7, 20)])  # and one for the end
    values = length.Reward(full=4, zero=8)(rollouts).values
    assert values.tolist() == [1.0, 1.0, 0.75, 0.5, 0.0, 0.0]
    assert length.Reward().weight == 0.2
    with pytest.raises(ValueError, match="zero is 5: must be above full, which is 5"):
        length.Reward(full=5, zero=5)
