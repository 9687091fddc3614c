"""Checkpoints are whole or absent; the last few and the best stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from limner import checkpoint
from limner.checkpoint import Progress
from limner.config import Update
from limner.errors import UserError
from limner.update import Optimiser


def optimiser(value: float) -> Optimiser:
    return Optimiser({"w": nn.Parameter(torch.full((2,), value))}, Update(captions=1, lr=0.1, steps=9))


def save(run: Path, step: int, best: int | None = None) -> None:
    checkpoint.save(
        run / "checkpoints",
        Progress(step, step * 10, 0, 0.5, best),
        {"policy": optimiser(float(step))},
        keep=2,
    )


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step, best=2 if step >= 2 else None)
    assert [path.name for path in checkpoint.steps(tmp_path / "checkpoints")] == [
        "step-000002",
        "step-000005",
        "step-000006",
    ]
    assert checkpoint.choose(tmp_path).name == "step-000002"
    assert checkpoint.choose(tmp_path, "last").name == "step-000006"
    assert checkpoint.choose(tmp_path, "5").name == "step-000005"
    with pytest.raises(UserError, match="best, last, 2, 5, 6"):
        checkpoint.choose(tmp_path, "3")


def test_what_was_saved_is_restored(tmp_path: Path) -> None:
    save(tmp_path, 4)
    into = optimiser(0.0)
    progress = checkpoint.restore(checkpoint.choose(tmp_path), {"policy": into})
    assert progress == Progress(4, 40, 0, 0.5, None)
    assert into.parameters["w"].tolist() == [4.0, 4.0]


def test_a_torn_checkpoint_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, 1)
    torn = tmp_path / "checkpoints" / ".step-000002.writing"
    torn.mkdir()
    (torn / "policy.safetensors").write_bytes(b"half")
    assert checkpoint.choose(tmp_path, "last").name == "step-000001"
    save(tmp_path, 2)
    assert not torn.exists()


def test_what_a_kill_left_behind_is_removed(tmp_path: Path) -> None:
    """Killed between writing a checkpoint and removing the old ones, or while removing one."""
    for step in range(1, 4):
        save(tmp_path, step)
    folder = tmp_path / "checkpoints"
    (folder / ".step-000004.writing").mkdir()
    (folder / "step-000001").mkdir()
    (folder / "step-000001" / "policy.safetensors").write_bytes(b"half")
    checkpoint.prune(folder, Progress(3, 30, best_step=None), keep=1)
    assert [path.name for path in folder.iterdir()] == ["step-000003"]


def test_a_run_without_checkpoints_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoint.choose(tmp_path)
