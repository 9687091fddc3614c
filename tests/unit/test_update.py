"""Learning rates, clipping, optimiser state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limner.config import Update
from limner.update import Optimiser, learning_rate

BASE = {"captions": 8, "lr": 1e-5, "steps": 100, "warmup_steps": 20}


def test_published_rate_rises_over_twenty_steps_then_stays() -> None:
    update = Update(**BASE)
    rates = [learning_rate(update, step) for step in range(100)]
    assert rates[:20] == pytest.approx([1e-5 * (i + 1) / 20 for i in range(20)])
    assert set(rates[20:]) == {1e-5}


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 0.55e-5), ("linear", 0.55e-5)])
def test_schedules_end_at_the_final_rate(schedule: str, middle: float) -> None:
    update = Update(**BASE, schedule=schedule, final_lr=1e-6)
    assert learning_rate(update, 20) == pytest.approx(1e-5)
    assert learning_rate(update, 60) == pytest.approx(middle)
    assert learning_rate(update, 100) == pytest.approx(1e-6)


def test_a_rate_of_its_own_keeps_the_shape() -> None:
    update = Update(**BASE)
    assert learning_rate(update, 9, lr=1e-3) == pytest.approx(0.5e-3)


def test_clipping_scales_to_the_norm_and_reports_the_one_before() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimiser = Optimiser({"w": weight}, Update(**BASE))
    weight.grad = torch.tensor([3.0, 4.0])
    assert optimiser.clip() == pytest.approx(5.0)
    assert weight.grad.norm() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_state_goes_on_where_it_was(kind: str) -> None:
    def fresh() -> tuple[dict[str, nn.Parameter], Optimiser]:
        parameters = {"a.b": nn.Parameter(torch.ones(3)), "c": nn.Parameter(torch.full((2, 2), 0.5))}
        return parameters, Optimiser(parameters, Update(**BASE, optimiser=kind, weight_decay=0.1))

    def steps(parameters: dict[str, nn.Parameter], optimiser: Optimiser, numbers: range) -> None:
        for number in numbers:
            for i, parameter in enumerate(parameters.values()):
                parameter.grad = torch.full_like(parameter, 0.3 * number + i)
            optimiser.step(number)

    whole, whole_optimiser = fresh()
    steps(whole, whole_optimiser, range(6))
    first, first_optimiser = fresh()
    steps(first, first_optimiser, range(3))
    saved = {name: tensor.clone() for name, tensor in first_optimiser.state().items()}
    second, second_optimiser = fresh()
    second_optimiser.load(saved)
    steps(second, second_optimiser, range(3, 6))
    assert all(torch.equal(second[name], whole[name]) for name in whole)
