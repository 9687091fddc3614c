"""A run killed by SIGKILL and resumed ends bit-equal to one never killed; bad steps are refused."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny
from forks import finished, forked
from limner import checkpoint, config
from limner.errors import UserError
from limner.run import read_metrics
from limner.train import Trainer, train
from patience import until

STEPS = 16
KILLS = 10

RECIPE = """
captioner: {{kind: blip2, path: "{path}"}}
data: {{kind: world, split: train}}
rollout: {{top_k: 10, max_new_tokens: 16}}
rewards: {{fluency: {{}}, bad_phrases: {{}}, repeats: {{}}, no_eos: {{}}}}
advantage: {{kind: token_returns, value: {{lora_rank: 2, head: [2]}}}}
objective: {{kind: policy_gradient, of: log_probability}}
update: {{captions: 8, micro_batch: 4, lr: 1.0e-3, warmup_steps: 2, steps: {steps}}}
evaluate: {{every: 4, data: {{kind: world, split: validation}}, samples: 4, metrics: [captions], best: words,
            decoding: {{do_sample: false, max_new_tokens: 16}}}}
run: {{output: "{out}", name: {name}, checkpoint_every: 2, sample_every: 5, device: cpu}}
"""


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.blip2(tmp_path_factory.mktemp("blip2"))


def recipe(captioner: Path, out: Path, name: str, *overrides: str) -> config.Recipe:
    file = out / f"{name}.yaml"
    file.write_text(RECIPE.format(path=captioner, out=out, name=name, steps=STEPS))
    return config.load(str(file), overrides)


def in_child(work: Callable[[], object], *, dies: Callable[[], None] | None = None) -> bool:
    """Run in a forked process, which is killed when `dies` returns; was it left to finish?"""

    def alone() -> None:
        torch.set_num_threads(1)
        work()

    return finished(forked(alone, dies=dies))


def random_moment(run: Path, number: int) -> None:
    """Return within the first second, or some milliseconds after a step to come was logged."""
    chance = random.Random(number)
    done = len(read_metrics(run))
    if chance.random() < 0.3:
        return time.sleep(chance.uniform(0, 1))
    target = chance.randint(min(done + 1, STEPS), min(done + 3, STEPS))
    until(lambda: len(read_metrics(run)) >= target, every=0.001)
    return time.sleep(chance.uniform(0, 0.1))


def state(run: Path) -> dict[str, torch.Tensor]:
    folder = checkpoint.choose(run, "last")
    assert checkpoint.read_progress(folder).step == STEPS
    return {
        f"{file.stem}/{k}": t for file in folder.glob("*.safetensors") for k, t in load_file(file).items()
    }


def logged(run: Path) -> list[dict[str, float | None]]:
    """What was logged, without wall times."""
    return [
        {k: v for k, v in row.items() if k != "seconds" and not k.startswith("time/")}
        for row in read_metrics(run)
    ]


@pytest.mark.slow
def test_killed_and_resumed_is_bit_equal_to_unbroken(captioner: Path, tmp_path: Path) -> None:
    unbroken = recipe(captioner, tmp_path, "unbroken")
    assert in_child(lambda: train(unbroken))
    broken, folder = recipe(captioner, tmp_path, "broken"), tmp_path / "broken"
    kills = 0
    for number in range(KILLS):
        kills += not in_child(
            lambda: train(broken, resume=folder), dies=functools.partial(random_moment, folder, number)
        )
    assert kills >= KILLS // 2, "too few kills met a running process"
    assert in_child(lambda: train(broken, resume=folder))

    expected, got = state(tmp_path / "unbroken"), state(folder)
    assert set(got) == set(expected)
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    assert logged(folder) == logged(tmp_path / "unbroken")
    assert [row["step"] for row in logged(folder)] == list(range(1, STEPS + 1))
    assert len(list((folder / "checkpoints").iterdir())) <= 3, "the last two, and the best"


def test_a_run_directory_is_not_overwritten(captioner: Path, tmp_path: Path) -> None:
    given = recipe(captioner, tmp_path, "once", "update.steps=1", "evaluate.every=0", "evaluate.best=null")
    train(given)
    with pytest.raises(UserError, match="--resume"):
        train(given)


def test_steps_that_are_not_finite_are_refused_and_end_the_run(captioner: Path, tmp_path: Path) -> None:
    given = recipe(
        captioner, tmp_path, "bad", "update.max_bad_steps=2", "evaluate.every=0", "evaluate.best=null"
    )
    trainer = Trainer(given, tmp_path / "bad")
    trainer.step()
    trainer.step()
    good = {name: p.detach().clone() for name, p in trainer.policy.trained().items()}
    fluency = trainer.judge.loaded["fluency"]
    trainer.judge.loaded["fluency"] = lambda rollouts: infinite(fluency(rollouts))
    row = trainer.step()
    assert row["refused"] == 1.0
    assert all(torch.equal(p, good[name]) for name, p in trainer.policy.trained().items())
    with pytest.raises(UserError, match=r"reward fluency.*2 steps in a row.*step-000002"):
        trainer.step()
    trainer.close()


def infinite(part):
    values = part.values.clone()
    values[0] = float("inf")
    return type(part)(values)


def test_an_unscored_caption_is_left_out_and_counted(captioner: Path, tmp_path: Path) -> None:
    given = recipe(captioner, tmp_path, "nan", "evaluate.every=0", "evaluate.best=null")
    trainer = Trainer(given, tmp_path / "nan")
    fluency = trainer.judge.loaded["fluency"]

    def sometimes(rollouts):
        part = fluency(rollouts)
        part.values[:2] = float("nan")
        return part

    trainer.judge.loaded["fluency"] = sometimes
    row = trainer.step()
    trainer.close()
    assert row["unscored"] == 2 / 8
    assert row["refused"] == 0.0
    assert row["reward/total"] is not None
