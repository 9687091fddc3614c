"""Evaluation during a run: the same numbers each time, without the pictures of the set in memory."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import torch

from limner import config
from limner.checkpoint import Progress
from limner.data.usable import READERS
from limner.selection import Evaluator

SOURCE = '''
import weakref
from dataclasses import dataclass, replace
from limner.data import world

SEEN, MOST = [], []

@dataclass(frozen=True, kw_only=True)
class Source(world.Source):
    """Gives copies of its pictures, which the world keeps, and sees which of them are still held."""

    def read(self, index):
        sample = super().read(index)
        sample = replace(sample, media=(sample.media[0].copy(),))
        SEEN.append(weakref.ref(sample.media[0]))
        MOST.append(sum(seen() is not None for seen in SEEN))
        return sample
'''
RECIPE = """
captioner: {kind: blip2, path: "world:captioner"}
data: {kind: world, split: train}
rewards: {repeats: {}}
advantage: {kind: group_relative}
objective: {kind: policy_gradient}
rollout: {captions: 2}
update: {captions: 8, micro_batch: 4, lr: 1.0e-4, steps: 1}
evaluate: {data: {kind: "counted:Source", split: validation, count: 60}, samples: 50,
           metrics: [words, facts_f1], best: facts_f1,
           decoding: {do_sample: false, num_beams: 1, max_new_tokens: 16}}
"""


def test_the_pictures_of_the_validation_set_are_not_kept(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "counted.py").write_text(SOURCE)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "counted", raising=False)
    recipe = config.load(str(tmp_path / "mine.yaml"))
    policy = recipe.captioner.load(device=torch.device("cpu"), dtype=torch.float32)
    evaluator = Evaluator(recipe, policy)
    first, second = Progress(step=1), Progress(step=2)
    measured = evaluator(first)
    assert set(measured) == {"evaluate/words", "evaluate/facts_f1"}
    assert evaluator(second) == measured
    assert measured["evaluate/facts_f1"].value == first.best == second.best

    counted = sys.modules["counted"]
    gc.collect()
    assert len(counted.SEEN) >= 3 * 50
    assert not any(seen() is not None for seen in counted.SEEN), "none is held between evaluations"
    # Two batches at the change from one to the next, what the readers have ready, and what each has in hand.
    assert max(counted.MOST) <= 2 * 4 + 5 * READERS + 1


def test_without_samples_nothing_is_measured(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    recipe = config.load(str(tmp_path / "mine.yaml"), ["evaluate.data=null", "evaluate.best=null"])
    policy = recipe.captioner.load(device=torch.device("cpu"), dtype=torch.float32)
    assert Evaluator(recipe, policy)(Progress()) == {}
