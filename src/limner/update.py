"""Optimisers, learning-rate schedules, and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from limner import distributed

if TYPE_CHECKING:
    from limner.config import Update


def learning_rate(update: Update, step: int, *, lr: float | None = None) -> float:
    """The rate of a step, counted from 0: linear warm-up over `warmup_steps`, then the schedule.

    Without `warmup_from` step 0 has rate lr / warmup_steps, so that the rate reaches lr at step
    warmup_steps - 1 and no step is wasted at 0. With it step 0 has that rate, and step warmup_steps lr, as
    in LAVIS. A rate of its own (`lr`) scales the whole curve.
    """
    top = update.lr if lr is None else lr
    if step < update.warmup_steps:
        if update.warmup_from is not None:
            start = update.warmup_from * top / update.lr
            return start + (top - start) * step / update.warmup_steps
        return top * (step + 1) / update.warmup_steps
    if update.schedule == "constant":
        return top
    done = (step - update.warmup_steps) / max(1, update.steps - update.warmup_steps)
    share = (
        0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        if update.schedule == "cosine"
        else max(0.0, 1.0 - done)
    )
    floor = update.final_lr * top / update.lr
    return floor + (top - floor) * share


class Optimiser:
    """Adam over named parameters, with the recipe's schedule and clipping."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], update: Update, *, lr: float | None = None):
        """Make the optimiser; `lr` replaces the recipe's rate."""
        self.parameters, self.update, self.lr = dict(parameters), update, lr
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[update.optimiser]
        # In one call where it can be: of all parameters on a CPU, unless they are parts of sharded ones.
        fused = all(type(p) is nn.Parameter and p.device.type == "cpu" for p in self.parameters.values())
        self.torch = kind(
            self.parameters.values(), lr=update.lr, weight_decay=update.weight_decay, fused=fused
        )

    def zero_grad(self) -> None:
        """Forget gradients."""
        self.torch.zero_grad(set_to_none=True)

    def clip(self) -> float:
        """Sum the gradients over the ranks and scale them down to the recipe's norm; returns that before."""
        distributed.sum_gradients(self.parameters.values())
        limit = self.update.clip_norm if self.update.clip_norm else math.inf
        parameters = list(self.parameters.values())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = distributed.complete(nn.utils.get_total_norm(gradients))
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return float(norm)

    def step(self, step: int) -> None:
        """Update the parameters at the rate of this step."""
        for group in self.torch.param_groups:
            group["lr"] = learning_rate(self.update, step, lr=self.lr)
        self.torch.step()

    def state(self) -> dict[str, torch.Tensor]:
        """Parameters and moments as named tensors, whole on the rank that writes; every rank calls this."""
        out: dict[str, torch.Tensor] = {}
        for name, parameter in self.parameters.items():
            out[f"parameter/{name}"] = distributed.written(parameter.detach())
            for key, tensor in self.torch.state.get(parameter, {}).items():
                out[f"{key}/{name}"] = distributed.written(torch.as_tensor(tensor))
        return out

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take parameters and moments from `state()`."""
        for name, parameter in self.parameters.items():
            parameter.copy_(distributed.like(state[f"parameter/{name}"], parameter))
            moments = {key.split("/", 1)[0]: t for key, t in state.items() if key.split("/", 1)[1] == name}
            moments.pop("parameter")
            if moments:
                self.torch.state[parameter] = {
                    key: tensor if key == "step" else distributed.like(tensor, parameter)
                    for key, tensor in moments.items()
                }
