"""The form of a caption."""

from __future__ import annotations

import pytest

from limner.rewards import format
from limner.rewards.base import plain


def form(caption: str, **settings: object) -> float:
    return float(format.Reward(**settings)(plain([caption])).values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "caption",
    ["## Scene", "* a car\n* a dog", "1. a car\n2. a dog", "> a car", "```\na car\n```", "| a |\n|---|",
     "a __bold__ car", "Of course, a car.", "Here's a description of the image: a car", "Caption: a car",
     "As an AI, I see a car.", "I'm sorry, I can't see it.", " ", "..."],
)  # fmt: skip
def test_what_has_not_the_form(caption: str) -> None:
    assert form(caption) == 0.0


@pytest.mark.parametrize(
    "caption",
    ["A car, 1.5 m wide. It is red.", "Here is a dog.", "Great-looking cars, no. 1 among them", "a * b",
     "Sure-footed goats climb a wall.", "The caption: 'a dog' stands on a sign.", "I see a car."],
)  # fmt: skip
def test_what_has_the_form(caption: str) -> None:
    assert form(caption) == 1.0


def test_bounds_and_patterns() -> None:
    assert form("one two three", min_words=3, max_words=3) == 1.0
    assert form("one, two!", min_words=3) == 0.0
    assert form("One. Two? Three", min_sentences=3, max_sentences=3) == 1.0
    assert form("It is 1.5 m wide.", max_sentences=1) == 1.0
    assert form("One. Two.", max_sentences=1) == 0.0
    assert form("a red car", must=("red", "car$")) == 1.0
    assert form("a red cart", must=("red", "car$")) == 0.0
    part = format.Reward(must=("blue",), max_words=2)(plain(["Sure, a red car"]))
    assert part.details == (
        {"wrong": ["lacks blue", "has 'Sure,'", "4 words, at most 2 are allowed"]},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"must": ("(",)}, "no regular expression"), ({"min_words": 4, "max_words": 3}, "must not be above")],
)
def test_settings_that_nothing_can_meet_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        format.Reward(**settings)  # type: ignore[arg-type]
