"""One side of the comparison in its own process: it obeys words on standard input, answers in JSON lines.

`python benchmarks/sides.py limner|plain SIZE FOLDER ...` loads the models and says so; then `step` takes one
training step, `flops` takes one and counts its operations, `profile` takes one and prints where torch spends
its time.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from plain_vlrm import PlainVlrm
from shapes import SIZES
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from limner import config
from limner.config import Recipe
from limner.data.batches import Batches
from limner.devices import torch_device, torch_dtype
from limner.train import Trainer

PARTS = ("data", "rollout", "rewards", "value", "policy")
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
NEVER = 1_000_000
"""Steps between things that are no part of a step: evaluation, samples, checkpoints."""


class Operations(TorchDispatchMode):
    """Counts floating-point operations: of matrix products, convolutions and attention.

    torch's FlopCounterMode also follows modules, at which it fails where a module without gradient is given
    a parameter; and it does not know the attention of CPUs.
    """

    def __init__(self):
        """Start at nothing."""
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation and count it."""
        out = func(*args, **(kwargs or {}))
        kind = func._overloadpacket
        if kind is ATTENTION:
            self.total += sdpa_flop_count(*(each.shape for each in args[:3]))
        elif kind is ATTENTION_BACKWARD:
            self.total += sdpa_backward_flop_count(*(each.shape for each in args[:4]))
        elif kind in flop_registry:
            self.total += flop_registry[kind](*args, **(kwargs or {}), out_val=out)
        return out


def recipe_of(size: str, folder: Path, *, micro_batch: int, device: str, dtype: str) -> Recipe:
    """The recipe of a size on the models in `folder`."""
    shape = SIZES[size]
    changes = {
        "captioner.path": "world:captioner" if size == "world" else folder / "captioner",
        "rewards.itm.path": "world:itm" if size == "world" else folder / "itm",
        "data.path": "world:train",
        "update.captions": shape.batch,
        "update.micro_batch": micro_batch,
        "update.steps": NEVER,
        "run.sample_every": NEVER,
        "run.checkpoint_every": NEVER,
        "run.device": device,
        "run.dtype": dtype,
        "evaluate.every": 0,
        "evaluate.data": "null",
        "evaluate.best": "null",
        "evaluate.metrics": "[captions]",
    }
    if shape.tokens is not None:
        changes |= {"rollout.min_new_tokens": shape.tokens, "rollout.max_new_tokens": shape.tokens}
    return config.load(shape.recipe, [f"{name}={value}" for name, value in changes.items()])


def limner_side(recipe: Recipe, folder: Path) -> Callable[[], dict[str, float]]:
    """The training step of limner, all of it: reading, logging and watching too."""
    trainer = Trainer(recipe, folder / f"run-{time.time_ns()}")

    def step() -> dict[str, float]:
        row = trainer.step()
        return {part: row[f"time/{part}"] or 0.0 for part in PARTS}

    return step


def plain_side(recipe: Recipe, folder: Path) -> Callable[[], dict[str, float]]:
    """The plain version, on the same samples."""
    plain = PlainVlrm(recipe, device=torch_device(recipe.run.device), dtype=torch_dtype(recipe.run.dtype))
    batches = Batches(recipe.data, recipe.update.captions, seed=recipe.run.seed)
    steps = iter(range(NEVER))

    def step() -> dict[str, float]:
        start = time.perf_counter()
        samples = batches.next()
        data = time.perf_counter() - start
        number = next(steps)
        torch.manual_seed(recipe.run.seed * 1_000_003 + number)  # as the trainer draws
        return {"data": data, **plain.step(samples, number).seconds}

    return step


SIDES: dict[str, Callable[[Recipe, Path], Callable[[], dict[str, float]]]] = {
    "limner": limner_side,
    "plain": plain_side,
}


class Memory:
    """Peak memory in MiB: of the process on a CPU, of torch's allocator on a GPU."""

    def __init__(self, device: torch.device):
        """Remember what the libraries alone take."""
        self.cuda = device.type == "cuda"
        self.libraries = self._peak()

    def peak(self) -> float:
        """The most that was held so far, libraries left out."""
        return self._peak() - self.libraries

    def _peak(self) -> float:
        return torch.cuda.max_memory_allocated() / 2**20 if self.cuda else resident_peak()


def resident_peak() -> float:
    """The most MiB that this process has held.

    On Linux from /proc: what getrusage says begins with what the parent held when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        held = next(
            line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:")
        )
        return int(held.split()[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, others in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def answer(word: str, step: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """Do what a word says."""
    if word == "flops":
        with Operations() as counted:
            step()
        return {"flops": counted.total}
    if word == "profile":
        with torch.profiler.profile() as profile:
            step()
        table = profile.key_averages().table(
            sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=45
        )
        return {"profile": table}
    start, cpu = time.perf_counter(), time.process_time()
    parts = step()
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu, "parts": parts}


def main() -> None:
    """Load, then obey until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--micro-batch", type=int, required=True)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    recipe = recipe_of(
        given.size, given.folder, micro_batch=given.micro_batch, device=given.device, dtype=given.dtype
    )
    memory = Memory(torch_device(given.device))
    step = SIDES[given.side](recipe, given.folder)
    say = {"loaded": memory.peak()}
    print(json.dumps(say), flush=True)
    for line in sys.stdin:
        said = answer(line.strip(), step)
        print(json.dumps({**said, "memory": memory.peak()}), flush=True)


if __name__ == "__main__":
    main()
