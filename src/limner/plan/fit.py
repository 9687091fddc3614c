"""What fits: a step's memory and time by micro-batch, number of GPUs, and how these share the weights.

The parts of a step are run without values for two small micro-batches. What a part holds beyond what is there
when it begins is a straight line in the micro-batch, and what is kept one in the captions of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from limner.captioners.inputs import TensorInputs
from limner.config import Recipe
from limner.errors import UserError
from limner.plan.machines import LINK_SHARE, NETWORK, OVERHEAD, USABLE, Gpu
from limner.plan.shadow import Phase, Work
from limner.plan.step import Setting, Step
from limner.rollout import NO_GRADIENT, part_of
from limner.types import Rollouts

Sharding = Literal["none", "ddp", "fsdp"]
OWN = ("frozen weights", "trained weights", "gradients", "moments of Adam", "weights at the start",
       "value function")  # fmt: skip
"""Terms that FSDP shares out among the ranks; models of rewards and measures are whole on each."""
GATHERED = ("roll-outs", "evaluation")
"""Parts during which every rank holds all weights; rewards are others."""
BLOCKS = 2
"""Blocks whose weights are gathered at a time while a gradient is made: one in use, and the next."""


@dataclass(frozen=True)
class Load:
    """What one part of a step takes."""

    over: float
    """Bytes beyond those that are held and kept when it begins, at its peak."""
    work: Mapping[Work, float]
    """What it does."""

    @classmethod
    def of(cls, phase: Phase, times: float = 1.0) -> Load:
        """Of a part that was run, and is done so many times in a step."""
        return cls(phase.over, {kind: times * count for kind, count in phase.work.items()})


@dataclass(frozen=True)
class Loaded:
    """The parts of a step at a micro-batch."""

    loads: dict[str, Load]
    """By name."""
    kept: float
    """Bytes that are kept of the step's images and captions until it ends."""
    cache: float
    """Bytes of keys and values at the end of a generation."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of weights that matter where they are shared out."""

    weights: int
    """Of the captioner."""
    block: int
    """Of its largest block."""
    outside: int
    """Of what stands in no block."""
    trained: int
    """Of what the policy's and the value function's losses train, in float32."""
    head: int
    """Of the value head."""


@dataclass(frozen=True)
class Use:
    """What one GPU holds, and how long a step takes."""

    sharding: Sharding
    micro_batch: int
    held: dict[str, float]
    """Bytes all the time, by what they are for."""
    parts: dict[str, float]
    """Bytes in each part of a step beyond `held`."""
    of: dict[str, float]
    """Bytes of some things in those parts."""
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    """Of each part of a step, where the GPU is known."""

    @property
    def peak(self) -> float:
        """The most bytes at once."""
        return sum(self.held.values()) + max(self.parts.values())

    @property
    def worst(self) -> str:
        """The part of the step in which that is."""
        return max(self.parts, key=lambda name: self.parts[name])


class Plan:
    """A recipe on so many GPUs."""

    def __init__(self, recipe: Recipe, setting: Setting, *, gpus: int = 1, nodes: int = 1):
        """Build the recipe's models without weights, and run the parts of a step on them.

        Raises:
            UserError: a model has no configuration, or the GPUs cannot share the batch.
        """
        group, captions = recipe.rollout.captions, recipe.update.captions
        if captions % (gpus * group):
            raise UserError(
                f"update.captions: {captions}: cannot be shared evenly by {gpus} GPUs; "
                f"give a multiple of {gpus * group}"
            )
        self.recipe, self.setting, self.gpus, self.nodes = recipe, setting, gpus, nodes
        self.group, self.captions = group, captions // gpus
        self.step = Step(recipe, setting)
        self.terms = self.step.terms()
        self.sizes = sizes(self.step)
        self._micro: dict[int, Loaded] = {}
        self._rewards = {f"reward {name}": self._judged(name) for name in self.step.judges.rewards}

    def use(self, micro_batch: int, sharding: Sharding, gpu: Gpu | None = None) -> Use:
        """Memory and time at a micro-batch, which is raised to the captions of one sample at least."""
        micro_batch = max(self.group, min(micro_batch, self.captions) // self.group * self.group)
        use = self._use(micro_batch, sharding, gpu, self._measured(micro_batch))
        if gpu is None:
            return use
        loads = self._measured(micro_batch).loads | self._rewards
        seconds = {name: gpu.seconds(load.work) for name, load in loads.items() if load.work}
        if self.gpus > 1:
            seconds["between GPUs"] = self._sent(micro_batch, sharding) / self._link(gpu)
        return replace(use, seconds=seconds)

    def _use(self, micro_batch: int, sharding: Sharding, gpu: Gpu | None, loaded: Loaded) -> Use:
        """Memory at a micro-batch."""
        loads, kept = loaded.loads | self._rewards, loaded.kept
        held, ranks = dict[str, float](self.terms), self.gpus
        if sharding == "fsdp":
            held = {name: size / ranks if name in OWN else size for name, size in held.items()}
        parts = {name: load.over + (0 if name == "roll-outs" else kept) for name, load in loads.items()}
        if sharding == "fsdp":
            parts = {name: over + self._gathered(name) for name, over in parts.items()}
        elif ranks > 1:
            parts["optimiser"] += self.sizes.trained  # all gradients in one message
        if gpu is not None:
            held["CUDA and its libraries"] = OVERHEAD
        vocabulary = int(self.step.policy.language_model.config.get_text_config().vocab_size)
        of = {
            "images and captions of the step": kept, "keys and values of a generation": loaded.cache,
            "logits with gradient, one copy": 4.0 * micro_batch * self.step.tokens * vocabulary,
        }  # fmt: skip
        return Use(sharding, micro_batch, held, parts, of)

    def largest(self, memory: float, sharding: Sharding, gpu: Gpu | None = None) -> Use:
        """The largest micro-batch that fits, doubled from one sample on; one sample's where none fits."""
        usable = memory * (1.0 if gpu is None else USABLE)
        chosen = self.group
        while 2 * chosen <= self.captions:
            if self._use(2 * chosen, sharding, gpu, self._reckoned(2 * chosen)).peak > usable:
                break
            chosen *= 2
        found = self.use(chosen, sharding, gpu)
        while found.peak > usable and chosen > self.group:
            chosen = chosen // 2 // self.group * self.group
            found = self.use(chosen, sharding, gpu)
        return found

    def _reckoned(self, micro_batch: int) -> Loaded:
        """Memory at a micro-batch, from that at one and at two samples."""
        group = self.group
        if micro_batch <= 2 * group or self.captions < 2 * group:
            return self._measured(micro_batch)
        first, second = self._measured(group), self._measured(2 * group)
        times, one, two = micro_batch / group - 1, first.loads, second.loads
        return Loaded(
            {name: replace(one[name], over=line(one[name].over, two[name].over, times)) for name in one},
            first.kept, line(first.cache, second.cache, times),
        )  # fmt: skip

    def _measured(self, micro_batch: int) -> Loaded:
        """The same, run without values."""
        if micro_batch not in self._micro:
            self._micro[micro_batch] = self._run(micro_batch)
        return self._micro[micro_batch]

    def _run(self, micro_batch: int) -> Loaded:
        step, captions = self.step, self.captions
        chunk = max(self.group, NO_GRADIENT * micro_batch // self.group * self.group)
        few = min(captions, chunk)
        written, rollouts, kept = self._written(few, micro_batch)
        if few < captions:
            del rollouts
            more = min(captions, 2 * chunk)
            second, rollouts, both = self._written(more, micro_batch)
            times = (captions - few) / (more - few)
            kept, over = line(kept, both, times), line(written.over, second.over, times)
            chunks = captions / few
            written = Load(over, {kind: chunks * count for kind, count in written.work.items()})
            if isinstance(rollouts.inputs, TensorInputs):  # joined at the end, while the parts are there
                scored = step.ledger.phases.get("scored", Phase()).over
                written = replace(written, over=max(written.over, 2 * kept + scored))
        loads = {"roll-outs": written}
        samples = min(2 * micro_batch, captions) // self.group
        _, learnt = part_of(rollouts, torch.arange(samples))
        share = captions / len(learnt.tokens)
        if step.critic.head is not None:
            loads["value gradient"] = Load.of(step.learn(learnt, micro_batch, value=True), share)
        loads["policy gradient"] = Load.of(step.learn(learnt, micro_batch), share)
        del rollouts, learnt
        loads["optimiser"] = Load.of(step.update())
        if self.recipe.evaluate.data is not None:
            loads["evaluation"] = Load.of(step.evaluate(min(micro_batch, self.recipe.evaluate.samples)), 0)
        return Loaded(loads, kept, max(step.caches, default=0))

    def _written(self, captions: int, micro_batch: int) -> tuple[Load, Rollouts, float]:
        rollouts, kept = self.step.write(captions, micro_batch)
        return Load.of(self.step.ledger.phases["roll-outs"]), rollouts, kept

    def _judged(self, name: str) -> Load:
        """A reward of all captions; what is the same over and over is run once."""
        enough = self.step.judges.enough(name, self.captions, self.step.tokens)
        enough = max(self.group, enough // self.group * self.group)
        return Load.of(self.step.judge(name, enough), self.captions / enough)

    def _gathered(self, part: str) -> float:
        """Bytes that FSDP gathers for a part of a step."""
        sizes, share = self.sizes, 1 - 1 / self.gpus
        if part in GATHERED or part.startswith("reward"):
            return share * sizes.weights
        if part == "optimiser":
            return 0.0
        head = sizes.head if part == "value gradient" else 0
        return share * (BLOCKS * sizes.block + sizes.outside + 2 * head)

    def _sent(self, micro_batch: int, sharding: Sharding) -> float:
        """Bytes that a GPU sends in a step."""
        share = 1 - 1 / self.gpus
        if sharding == "ddp":
            return 2 * share * self.sizes.trained
        passes = -(-self.captions // micro_batch) * (2 if self.step.critic.head is not None else 1)
        # Every pass gathers all weights for the way there and the way back, and scatters the gradients.
        return share * ((2 * passes + 1) * self.sizes.weights + passes * self.sizes.trained)

    def _link(self, gpu: Gpu) -> float:
        return LINK_SHARE * (gpu.link if self.nodes == 1 else min(gpu.link, NETWORK))


def line(one: float, two: float, times: float) -> float:
    """What lies `times` the way from one to two."""
    return one + times * (two - one)


def sizes(step: Step) -> Sizes:
    """The bytes of a step's weights."""
    policy, head = step.policy, step.critic.head
    every = {p.untyped_storage()._cdata: p.nbytes for p in policy.parameters()}
    inside = [
        sum(p.nbytes for p in module.parameters())
        for module in policy.modules()
        if isinstance(module, GradientCheckpointingLayer)
    ]
    weights, trained = sum(every.values()), (*policy.trained().values(), *step.critic.parameters().values())
    return Sizes(
        weights, max(inside, default=0), weights - min(weights, sum(inside)),
        trained=sum(p.nbytes for p in trained),
        head=0 if head is None else sum(p.nbytes for p in head.parameters()),
    )  # fmt: skip
