"""Policy gradient on each token's probability (VLRM, arXiv 2404.01911, 4) or its logarithm (REINFORCE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from limner.objectives import base
from limner.types import Rollouts, Targets


@dataclass(frozen=True)
class Objective(base.Objective):
    """Policy gradient on the probability (the paper) or the log-probability of each token."""

    of: Literal["probability", "log_probability"] = "probability"
    """What is pushed. The gradient of p is p times that of log p: it fades for unlikely tokens."""

    def losses(self, logprobs: torch.Tensor, rollouts: Rollouts, targets: Targets) -> torch.Tensor:
        """-p_k M_k, or -log p_k M_k."""
        pushed = logprobs.exp() if self.of == "probability" else logprobs
        return -pushed * targets.advantages
