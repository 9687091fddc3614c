"""Where the weights of a run are: whole in every process, or a part of them on each rank (FSDP2).

torch's `fully_shard` is called directly. accelerate would wrap a model that is called in one way, by its
forward; a policy is called in five, and `register_fsdp_forward_method` is what torch has for that.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from limner import distributed
from limner.captioners.base import Policy
from limner.captioners.tree import PrefixedLM

if TYPE_CHECKING:
    from limner.config import Run

CALLED = ("encode", "generate", "logprobs", "hidden", "lm_logprobs")
"""The methods of a policy in which its weights are used."""


class Weights:
    """The weights of policy and value head as `run.sharding` and `run.recompute` put them."""

    def __init__(self, run: Run, policy: Policy, head: nn.Module | None):
        """Shard in place; the parameters are others afterwards, so optimisers are made later."""
        policies: list[nn.Module] = [policy]
        self.roots = policies + ([] if head is None else [head])
        distributed.same(parameter for root in self.roots for parameter in root.parameters())
        if run.recompute:
            recompute(policy)
        self.sharded = run.sharding == "fsdp" and distributed.count() > 1
        if not self.sharded:
            return
        # Nothing writes into what a block or a policy gives, which is what this warns of.
        warnings.filterwarnings("ignore", message=".*returned a view tensor")
        mesh = init_device_mesh(policy.device.type, (distributed.count(),))
        for root in self.roots:
            for module in [*blocks(root), root]:
                shard = fully_shard(module, mesh=mesh, reshard_after_forward=True)
                # The weights in the loss are shares of the whole batch: its gradient is a sum.
                shard.set_force_sum_reduction_for_comms(True)
                shard.set_gradient_divide_factor(1.0)
        for name in CALLED:
            register_fsdp_forward_method(policy, name)
        _change(policy, together=True)

    @contextlib.contextmanager
    def whole(self, wanted: bool = True) -> Iterator[None]:
        """Every rank has all weights inside, where that is wanted, and may use them alone; no gradient."""
        if not (self.sharded and wanted):
            yield
            return
        modules = [m for root in self.roots for m in root.modules() if isinstance(m, FSDPModule)]
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in modules:
                module.reshard()
                module.set_reshard_after_forward(True, recurse=False)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of the transformers in a model, in the order of their names; none lies within another."""
    found: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and not any(
            module is inner for outer in found for inner in outer.modules()
        ):
            found.append(module)
    return found


def recompute(policy: Policy) -> None:
    """Keep of each block its input alone where there is gradient, and run it again on the way back.

    transformers' own switch works in training mode alone, and turns dropout on with it.
    """
    for block in blocks(policy):
        block.forward = partial(_again, block.forward)
    _change(policy, packed=False)  # a second run would add to the cache of the shared prefix


def _change(policy: Any, **changes: bool) -> None:
    """Change how a language model behind a prefix scores captions; others have no choice."""
    if isinstance(getattr(policy, "lm", None), PrefixedLM):
        policy.lm = replace(policy.lm, **changes)


def _again(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
