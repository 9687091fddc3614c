"""The reward that docs/extending/rewards.md writes out works as it stands there."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from limner import component
from limner.rewards.base import plain

PAGE = Path(__file__).parents[3] / "docs" / "extending" / "rewards.md"


def test_the_reward_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"^    # src/limner/rewards/colour_count.py\n(?:    .*\n|\n)+", PAGE.read_text(), re.M)
    assert block is not None
    (tmp_path / "colour_count.py").write_text(textwrap.dedent(block[0]))
    monkeypatch.syspath_prepend(tmp_path)
    reward = component.find("rewards", "colour_count:Reward")
    for example in reward.examples:
        assert reward()(plain([example.caption])).values.tolist() == [example.expected]
    part = reward(most=1)(plain(["a red and white dog", "a dog"]))
    assert part.values.tolist() == [1.0, 0.0]
    assert part.details[0] == {"colours": ["red", "white"]}


@pytest.mark.parametrize("name", component.available("rewards"))
def test_the_page_lists_every_reward(name: str) -> None:
    assert f"| `{name}` | {component.find('rewards', name).per} |" in PAGE.read_text()
