"""`limner inspect` with tokenizers on the machine, weights, and wrong input; table 1 is in tests/golden."""

from __future__ import annotations

from pathlib import Path

import pytest

from limner import config
from limner.errors import UserError
from limner.inspect import inspect
from toy_tokenizers import TABLE_1, toy


def recipe(*overrides: str) -> config.Recipe:
    return config.load("vlrm", overrides, complete=False)


@pytest.mark.parametrize("kind", ["byte_level", "llama", "t5"])
def test_tokens_are_those_of_a_local_tokenizer(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy(kind).save_pretrained(tmp_path)
    rows = inspect("a green shirt, a shirt", recipe(f"captioner.path={tmp_path}"), ["green"])
    assert capsys.readouterr().err == ""
    ids = toy(kind)("a green shirt, a shirt", add_special_tokens=False)["input_ids"]
    assert len(rows) == len(ids) > 6
    assert "".join(row["text"] for row in rows) == "agreenshirt,ashirt"
    assert "".join(row["text"] for row in rows if row["bad"]) == "green"
    assert "".join(row["text"] for row in rows if row["repeat"]) == "shirt"
    fined = sum(row["bad"] + row["repeat"] for row in rows)
    assert rows[0]["penalty"] == -fined
    assert rows[-1]["penalty"] == -1


def test_weights_and_settings_of_the_recipe_count(capsys: pytest.CaptureFixture[str]) -> None:
    changed = recipe(
        "rewards.repeats.weight=0.25", "rewards.bad_phrases.weight=2", "rewards.bad_phrases.phrases=[is]"
    )
    rows = inspect(TABLE_1, changed)
    assert [row["text"] for row in rows if row["bad"]] == ["is"]
    assert [row["penalty"] for row in rows] == [-2.25] * 11 + [-2] + [0] * 4
    assert "tokens are words: the tokenizer of Salesforce/blip2-opt-2.7b" in capsys.readouterr().err
    without = inspect(TABLE_1, recipe("rewards.repeats=null"))
    assert not any(row["repeat"] for row in without)


def test_the_recipes_own_list_is_the_papers() -> None:
    rows = inspect("an image of a red car, on the left", recipe())
    assert [row["bad"] for row in rows] == [1, 1, 1, 0, 0, 0, 0, 1, 1, 1]


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UserError, match="the caption is empty"):
        inspect("  ", recipe())
    with pytest.raises(UserError, match="no bad_phrases reward"):
        inspect("a car", recipe("rewards.bad_phrases=null"), ["a car"])
