"""The miniature VLRM learns: a short run raises its reward, and captions get longer and stay true."""

from __future__ import annotations

from pathlib import Path

import pytest

from limner import config
from limner.run import read_metrics
from limner.train import train


@pytest.mark.slow
def test_twenty_five_steps_raise_the_reward(tmp_path: Path) -> None:
    overrides = [f"run.output={tmp_path}", "run.name=short", "run.device=cpu", "update.steps=25"]
    overrides += ["update.captions=96", "update.lr=3e-4", "update.warmup_steps=5"]
    overrides += ["evaluate.test=null", "evaluate.samples=60"]
    run = train(config.load("tiny/vlrm", overrides))
    rows = read_metrics(run)

    def mean(key: str, part: list[dict[str, float | None]]) -> float:
        return sum(row[key] or 0.0 for row in part) / len(part)

    # Chance is smaller than this: in four seeds of the whole recipe, rewards of the first three steps lie
    # between -2.54 and -2.84.
    assert mean("reward/total", rows[-5:]) > mean("reward/total", rows[:5]) + 0.6
    assert mean("watch/words", rows[-5:]) > mean("watch/words", rows[:5]) + 1.0
    assert rows[-1]["evaluate/facts_true"] is not None
    assert rows[-1]["evaluate/facts_true"] > 0.8
    assert all(row["unscored"] == row["refused"] == 0.0 for row in rows)
