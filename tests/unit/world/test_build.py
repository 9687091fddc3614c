"""The training loop resumes to the bit, and the build runs its stages in order and stops on a failure."""

import functools
from pathlib import Path

import pytest
import torch

from limner.errors import UserError
from limner.world import build, training
from limner.world.training import Schedule, fit

STEPS = Schedule(steps=12, lr=0.05, warmup=2)


class Killed(Exception):
    """Stands for the end of the process."""


def run_fit(folder: Path, *, kill_at: int | None = None) -> torch.Tensor:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)

    def loss(step, rng):
        if step == kill_at:
            raise Killed
        return module(torch.from_numpy(rng.normal(size=(4, 3))).float()).square().mean()

    fit(module, loss, STEPS, name="toy", seed=5, folder=folder, report=lambda *_: None)
    return module.weight.detach()


@pytest.mark.parametrize("kill_at", [0, 4, 5, 11])
def test_a_killed_stage_ends_as_one_that_was_never_killed(tmp_path, monkeypatch, kill_at):
    monkeypatch.setattr(training, "_CHECKPOINT_STEPS", 4)
    whole = tmp_path / "whole"
    broken = tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    expected = run_fit(whole)
    with pytest.raises(Killed):
        run_fit(broken, kill_at=kill_at)
    assert torch.equal(run_fit(broken), expected)


def note(name: str, work: Path, seed: int, report) -> None:
    """A stage for the tests: adds its name to a file."""
    report(name, 1, 1, 0.5)
    with (work / "order.txt").open("a") as file:
        file.write(f"{name} {seed}\n")


def fail(work: Path, seed: int, report) -> None:
    """A stage that fails."""
    raise SystemExit(3)


@pytest.mark.slow
def test_stages_run_after_those_they_need_and_once_only(tmp_path):
    stages = {
        "second": build.Stage(functools.partial(note, "second"), after=("first",)),
        "first": build.Stage(functools.partial(note, "first")),
    }
    build._run(stages, tmp_path, 7)
    build._run(stages, tmp_path, 7)
    assert (tmp_path / "order.txt").read_text().split("\n")[:-1] == ["first 7", "second 7"]


@pytest.mark.slow
def test_a_stage_that_fails_stops_the_build(tmp_path):
    with pytest.raises(RuntimeError, match="'bad' of the world failed with exit status 3"):
        build._run({"bad": build.Stage(fail)}, tmp_path, 0)


def test_user_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="unknown stage 'vitt'"):
        build.build(tmp_path, stages=["vitt"])
    with pytest.raises(UserError, match="stage 'captioner' needs vit first"):
        build.build(tmp_path, stages=["captioner"])
    with pytest.raises(UserError, match="other settings"):
        build.build(tmp_path, seed=1)
