"""Policy gradient on the probability of each token (VLRM, arXiv 2404.01911, equation 4) or on its logarithm (REINFORCE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from limner.objectives import base
from limner.types import Targets


@dataclass(frozen=True)
class Objective(base.Objective):
    """Policy gradient on the probability (the paper) or the log-probability of each token."""

    of: Literal["probability", "log_probability"] = "probability"
    """What is pushed up or down. Gradient of p is p times the gradient of log p: it fades for unlikely tokens."""

    def losses(self, logprobs: torch.Tensor, old_logprobs: torch.Tensor, targets: Targets) -> torch.Tensor:
        """-p_k M_k, or -log p_k M_k."""
        pushed = logprobs.exp() if self.of == "probability" else logprobs
        return -pushed * targets.advantages
