"""The value function of A2C: LoRA inside the policy's one language model, and a deep head.

Source: VLRM, arXiv 2404.01911, 3.5.2 and 4.2. The adapter is on only while values are computed: generation,
the policy pass and the reference see the plain language model, bit for bit. V_k is read from the hidden state
that predicts token k: it knows the image and the tokens before k, not k itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from limner import distributed
from limner.advantages.base import Advantage, Value
from limner.captioners import adapters
from limner.captioners.adapters import POLICY_ADAPTER, VALUE_ADAPTER
from limner.captioners.base import Policy
from limner.rollout import micro_batches
from limner.types import Mean, Rollouts, Scores
from limner.update import Optimiser

if TYPE_CHECKING:
    from limner.config import Update


def value_head(hidden_size: int, widths: tuple[int, ...]) -> nn.Sequential:
    """H -> w1 h -> ... -> 1 with GELU between; at h = 2560 and (2, 4, 8) it has 275,307,521 parameters."""
    sizes = [hidden_size, *(width * hidden_size for width in widths)]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1))


def add_adapter(policy: Policy, value: Value) -> dict[str, nn.Parameter]:
    """Put the value adapter, switched off, into the language model; returns its parameters by name."""
    if value.lora_rank == 0:
        return {}
    model = policy.language_model
    adapters.add(
        model, VALUE_ADAPTER, layers=policy.lora_targets, rank=value.lora_rank, alpha=value.lora_alpha
    )
    switch_adapter(policy, on=False)
    return adapter_parameters(policy)


def adapter_parameters(policy: Policy) -> dict[str, nn.Parameter]:
    """The parameters of the value adapter by name."""
    named = policy.language_model.named_parameters()
    return {name: parameter for name, parameter in named if adapters.is_adapter(name, VALUE_ADAPTER)}


def switch_adapter(policy: Policy, *, on: bool) -> None:
    """Turn the value adapter on or off.

    The policy's own adapter stays on: it is part of the policy whose states are valued. While the value
    adapter is on, only that one takes gradient.
    """
    names = (POLICY_ADAPTER, VALUE_ADAPTER) if on else (POLICY_ADAPTER,)
    adapters.switch(policy.language_model, on=names, trained=names[-1])


class Critic:
    """Trains a value function beside the policy; where the advantage has none, it does nothing."""

    def __init__(
        self, policy: Policy, advantage: Advantage, *, micro_batch: int, optimiser: Optimiser | None
    ):
        """Use `build`."""
        self.policy, self.advantage = policy, advantage
        self.micro_batch, self.optimiser = micro_batch, optimiser
        self.head: nn.Sequential | None = None

    @classmethod
    def build(cls, policy: Policy, advantage: Advantage, *, micro_batch: int, generator_seed: int) -> Critic:
        """Add adapter and head for the advantage's value function."""
        critic = cls(policy, advantage, micro_batch=micro_batch, optimiser=None)
        value = advantage.value_function
        if value is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator_seed)
                add_adapter(policy, value)
                critic.head = value_head(policy.hidden_size, value.head)
            critic.head.to(policy.device)
        return critic

    def optimise(self, update: Update) -> dict[str, Optimiser]:
        """Make the optimiser, for the parameters as they are now; returns it by its name."""
        value = self.advantage.value_function
        if value is None:
            return {}
        self.optimiser = Optimiser(self.parameters(), update, lr=value.lr)
        return {"value": self.optimiser}

    def parameters(self) -> dict[str, nn.Parameter]:
        """Adapter and head by name."""
        lora = {f"lora.{name}": p for name, p in adapter_parameters(self.policy).items()}
        head = {} if self.head is None else {f"head.{n}": p for n, p in self.head.named_parameters()}
        return {**lora, **head}

    @contextlib.contextmanager
    def _adapted(self) -> Iterator[None]:
        switch_adapter(self.policy, on=True)
        try:
            yield
        finally:
            switch_adapter(self.policy, on=False)

    def values(self, rollouts: Rollouts) -> torch.Tensor:
        """(n, T) values with gradient; the adapter must be on."""
        if self.head is None:
            raise RuntimeError("this run has no value function")
        hidden = self.policy.hidden(rollouts.inputs, rollouts.tokens, rollouts.caption_mask)
        kept = self.head(hidden[rollouts.caption_mask].float())[:, 0]
        out = torch.zeros(rollouts.tokens.shape, device=kept.device)
        return out.masked_scatter(rollouts.caption_mask, kept)

    def backward(self, rollouts: Rollouts, scores: Scores) -> tuple[Rollouts, dict[str, Mean]]:
        """Add the gradient of L_v = mean (R - V)^2 and return the values it was made of.

        The mean is over a caption's tokens, then over captions.

        Args:
            rollouts: N captions.
            scores: their rewards.

        Returns:
            The roll-outs with `values` (N, T) from before the update, and the metrics of the value function.
        """
        if self.optimiser is None:
            return rollouts, {}
        returns = self.advantage.returns(rollouts, scores)
        mask = rollouts.caption_mask & scores.scored[:, None]
        scored = distributed.total(scores.scored.sum()).clamp(min=1)
        weights = mask.float() / mask.sum(1, keepdim=True).clamp(min=1) / scored
        values = torch.zeros_like(returns)
        loss = 0.0
        self.optimiser.zero_grad()
        with self._adapted():
            for rows, part in micro_batches(rollouts, self.micro_batch):
                width = part.tokens.shape[1]
                made = self.values(part)
                part_loss = ((returns[rows, :width] - made).square() * weights[rows, :width]).sum()
                part_loss.backward()
                values[rows, :width] = made.detach()
                loss += float(part_loss.detach())
        kept, found = distributed.joined(returns[mask]), distributed.joined(values[mask])
        spread = kept.var(correction=0) if kept.numel() else torch.tensor(float("nan"))
        explained = 1 - (kept - found).var(correction=0) / spread.clamp(min=1e-12)
        loss = distributed.summed({"loss/value": Mean(loss)})["loss/value"].sum
        metrics = {"loss/value": Mean(loss, 1.0), "value/explained_variance": Mean(float(explained), 1.0)}
        return rollouts.replace(values=values), metrics
