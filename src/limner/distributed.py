"""Many processes that train one policy: who am I, and what is said between the ranks.

Every rank takes its samples of the one global batch. What a method takes over the whole batch is computed on
every rank from the same numbers of all ranks (`whole`), so that all ranks decide alike; gradients are summed.
In a process of its own each function here gives back what it was given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from limner.devices import torch_device
from limner.errors import UserError
from limner.launch import STORE, announce
from limner.rewards.base import NoInputs
from limner.types import Mean, Part, Rollouts, Sample, Scores, Targets

if TYPE_CHECKING:
    from limner.config import Recipe
    from limner.objectives.base import Objective

PATIENCE = timedelta(hours=6)
"""How long a rank waits for another, which may be measuring; the launcher finds out when one is dead."""

Value = TypeVar("Value")
Given = ParamSpec("Given")


@contextlib.contextmanager
def ranks(recipe: Recipe) -> Iterator[Recipe]:
    """One of several ranks inside, where this process was launched as such, by whatever launcher.

    Yields:
        The recipe; launched as one of several ranks without `run.sharding` it is that of `ddp`.

    Raises:
        UserError: the batch is not divisible by the ranks.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or dist.is_initialized():
        yield recipe
        return
    _join(recipe, world)
    try:
        yield recipe if recipe.run.sharding != "none" else _shared(recipe)
    finally:
        dist.destroy_process_group()


def _join(recipe: Recipe, world: int) -> None:
    """Meet the other ranks."""
    samples = recipe.update.captions // recipe.rollout.captions
    if samples % world:
        raise UserError(
            f"update.captions: {recipe.update.captions}: {samples} samples a step cannot be shared evenly by "
            f"{world} ranks; give a multiple of {world * recipe.rollout.captions}"
        )
    device = torch_device(recipe.run.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store = os.environ.get(STORE)
    met = (Path(store) / "meeting").as_uri() if store else "env://"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        rank=int(os.environ["RANK"]), world_size=world, timeout=PATIENCE, init_method=met,
    )  # fmt: skip


def _shared(recipe: Recipe) -> Recipe:
    """The recipe with `run.sharding` as launching several ranks means it."""
    return replace(
        recipe,
        run=replace(recipe.run, sharding="ddp"),
        settings={**recipe.settings, "run.sharding": "ddp"},
        origins={**recipe.origins, "run.sharding": "command line"},
    )


def rank() -> int:
    """The number of this process among the ranks, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Whether this rank is the one that writes."""
    return rank() == 0


def everyone(value: Value) -> list[Value]:
    """The values of all ranks, in their order."""
    if count() == 1:
        return [value]
    out: list[Any] = [None] * count()
    dist.all_gather_object(out, value)
    return out


def alone(work: Callable[Given, Value], *args: Given.args, **kwargs: Given.kwargs) -> Value:
    """What rank 0 alone computes, for all ranks."""
    if count() == 1:
        return work(*args, **kwargs)
    out: list[Any] = [work(*args, **kwargs) if first() else None]
    dist.broadcast_object_list(out)
    return out[0]


def meet(folder: Callable[[], Path]) -> Path:
    """The run's folder, which rank 0 names, and tells a launcher."""
    found = alone(folder)
    if first():
        announce(found)
    return found


def wait() -> None:
    """Go on when all ranks are here."""
    everyone(None)


def joined(tensor: torch.Tensor) -> torch.Tensor:
    """The tensors (n, ...) of all ranks one after another, without gradient; n may differ."""
    if count() == 1:
        return tensor
    return torch.cat([part.to(tensor.device) for part in everyone(tensor.detach().cpu())])


def own(joined: torch.Tensor) -> torch.Tensor:
    """This rank's rows of what all ranks have equally many of, one rank's after another."""
    return joined.chunk(count())[rank()]


def summed(means: Mapping[str, Mean]) -> dict[str, Mean]:
    """The means over the ranks; each rank gives the same names."""
    out: dict[str, Mean] = {}
    for part in everyone(dict(means)):
        out = {**out, **{name: out.get(name, Mean()) + mean for name, mean in part.items()}}
    return out


def total(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over the ranks."""
    if count() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


@torch.no_grad()
def same(tensors: Iterable[torch.Tensor]) -> None:
    """Give every rank the values of rank 0."""
    if count() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum the gradients over the ranks, all of them in one message.

    The loss is a sum over captions whose weights were made over the whole batch, so the sum is the gradient
    of the whole batch, however many micro-batches and ranks it came from. What FSDP shards is summed already.
    """
    if count() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
    if gradients:
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def complete(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of which each rank may have a part, whole."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def written(tensor: torch.Tensor) -> torch.Tensor:
    """The whole tensor for the rank that writes, out of the way of the device; every rank calls this."""
    if not isinstance(tensor, DTensor):
        return tensor
    whole = tensor.full_tensor()
    return whole.cpu() if first() else whole[:0]


def like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A whole tensor as the parameter is: on its device, and this rank's part where it is one."""
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


@dataclass(frozen=True)
class Whole:
    """The batch of all ranks, its rows in the order in which one process would have them."""

    rollouts: Rollouts
    """N captions. On many ranks the samples have neither media nor `extra`, and there are no inputs."""
    scores: Scores
    """Theirs; without details where there are many ranks."""
    rows: torch.Tensor | None = None
    """(n,) which rows are this rank's; None: all of them."""

    def own(self, targets: Targets, objective: Objective) -> Targets:
        """This rank's part (n, T) of the targets (N, T), with their weights in the loss."""
        if self.rows is None:
            return targets
        weights = objective.weights(targets.target_mask)
        returns = None if targets.returns is None else targets.returns[self.rows]
        return Targets(
            targets.advantages[self.rows], targets.target_mask[self.rows], returns, weights[self.rows]
        )


def whole(rollouts: Rollouts, scores: Scores, places: Sequence[int]) -> Whole:
    """Gather what was made of a batch and earned by it, the pictures and features apart.

    Args:
        rollouts: this rank's captions.
        scores: their rewards.
        places: where in the global batch each of this rank's samples stands.
    """
    if count() == 1:
        return Whole(rollouts, scores)
    parts = everyone((list(places), _lean(rollouts), _lean_scores(scores)))
    order = torch.tensor([place for mine, *_ in parts for place in mine]).argsort()
    group, device = rollouts.captions, rollouts.tokens.device
    rows = (order[:, None] * group + torch.arange(group)).flatten()
    width = max(part.tokens.shape[1] for _, part, _ in parts)

    def put(tensors: Sequence[Any]) -> Any:
        """Rows of all ranks in their order, as wide as the widest."""
        if any(tensor is None for tensor in tensors):
            return None
        if tensors[0].dim() == 2:
            tensors = [nn.functional.pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors]
        every = torch.cat(list(tensors))
        return every[order if len(every) == len(order) else rows].to(device)

    lists = {name: [value for _, part, _ in parts for value in getattr(part, name)] for name in LISTS}
    gathered = Rollouts(
        samples=tuple(lists["samples"][i] for i in order.tolist()),
        inputs=NoInputs(len(order)),
        texts=tuple(lists["texts"][i] for i in rows.tolist()),
        words=tuple(lists["words"][i] for i in rows.tolist()),
        step=rollouts.step,
        **{name: put([getattr(part, name) for _, part, _ in parts]) for name in TENSORS},
    )
    earned = [part for *_, part in parts]
    every = Scores(
        {
            name: Part(
                put([each.parts[name].values for each in earned]),
                metrics=summed(scores.parts[name].metrics),
            )
            for name in scores.parts
        },
        put([each.rewards for each in earned]),
        put([each.scored for each in earned]),
        put([each.greedy for each in earned]),
        scores.seconds,
    )
    mine = (torch.tensor(list(places))[:, None] * group + torch.arange(group)).flatten()
    return Whole(gathered, every, mine.to(device))


LISTS = ("samples", "texts", "words")
TENSORS = (
    *("tokens", "caption_mask", "logprobs", "ended"),
    *("lm_logprobs", "reference_logprobs", "values"),
)


def _lean(rollouts: Rollouts) -> Rollouts:
    """What other ranks are told of roll-outs: no pictures, features or greedy captions."""
    return rollouts.replace(
        samples=tuple(Sample(sample.id, (), sample.references) for sample in rollouts.samples),
        inputs=NoInputs(len(rollouts.samples)), greedy=None,
        **{n: t.cpu() for n in TENSORS if (t := getattr(rollouts, n)) is not None},
    )  # fmt: skip


def _lean_scores(scores: Scores) -> Scores:
    """What other ranks are told of scores."""
    parts = {name: Part(part.values.cpu()) for name, part in scores.parts.items()}
    greedy = None if scores.greedy is None else scores.greedy.cpu()
    return dataclasses.replace(
        scores, parts=parts, rewards=scores.rewards.cpu(), scored=scores.scored.cpu(), greedy=greedy
    )
