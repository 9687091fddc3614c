"""Speed and memory of one VLRM training step: limner against a plain reading of the paper (plain_vlrm.py).

Both write captions, score them, update the value function and the policy, on the same models, the same images
and captions of the same length; each lives in a process of its own and they take turns. The bound beside the
speed-up is the ratio of their floating-point operations: what the speed-up would be if both computed at one
rate and did nothing else.

    python benchmarks/vlrm_step.py              # the miniature's models, and about 50M parameters
    python benchmarks/vlrm_step.py --gpu        # BLIP-2 OPT-2.7B, random weights, bfloat16; 60 GB for both
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
PARTS = ("data", "rollout", "rewards", "value", "policy")
SIDES = {"plain": ("plain", False), "limner": ("limner", False), "limner, one pass": ("limner", True)}
"""Rows of the table: the side, and whether its gradient is made in one pass, as the plain version's is."""
SPEED, OF_BOUND, MEMORY = 1.5, 0.85, 0.5
"""Targets: times the captions a second, share of the bound, share of the plain version's peak memory."""


@dataclass
class Side:
    """A process that takes steps, and what it answered."""

    process: subprocess.Popen[str]
    steps: list[dict[str, Any]] = field(default_factory=list)
    flops: float = 0.0
    loaded: float = 0.0
    memory: float = 0.0

    @classmethod
    def start(cls, side: str, size: str, folder: Path, *, options: list[str], env: dict[str, str]) -> Side:
        """Start it and wait until its models are loaded."""
        command = [sys.executable, str(HERE / "sides.py"), side, size, str(folder), *options]
        made = cls(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        )
        made.loaded = made._answer()["loaded"]
        return made

    def ask(self, word: str) -> dict[str, Any]:
        """Have it do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def seconds(self, clock: str) -> float:
        """Median of a step."""
        return statistics.median(step[clock] for step in self.steps)

    def part(self, name: str) -> float:
        """Median of a part of a step."""
        return statistics.median(step["parts"][name] for step in self.steps)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a side ended with {self.process.wait()}; what it said stands above")
        return json.loads(line)


def measure(size: str, given: argparse.Namespace, env: dict[str, str]) -> dict[str, Any]:
    """Run every side at one size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        where = ["--device", given.device, "--dtype", given.dtype]
        build = [sys.executable, str(HERE / "shapes.py"), size, str(folder), *where]
        built = subprocess.run(build, check=True, stdout=subprocess.PIPE, text=True, env=env)
        shape = json.loads(built.stdout)
        sides: dict[str, Side] = {}
        try:
            for row, (side, whole) in SIDES.items():
                micro_batch = shape["batch"] if whole else shape["micro_batch"]
                options = [*where, "--threads", str(given.threads), "--micro-batch", str(micro_batch)]
                sides[row] = Side.start(side, size, folder, options=options, env=env)
            for side in sides.values():
                side.ask("step")  # the first step allocates
            for turn in range(given.rounds):
                for row in list(sides)[:: -1 if turn % 2 else 1]:
                    sides[row].steps.append(sides[row].ask("step"))
            for side in sides.values():
                side.memory = side.steps[-1]["memory"]
                side.flops = side.ask("flops")["flops"]
        finally:
            for side in sides.values():
                side.end()
    rows = {name: summary(side, sides["plain"], shape["batch"]) for name, side in sides.items()}
    return {"size": size, **shape, "threads": given.threads, "device": given.device, "rows": rows}


def summary(side: Side, plain: Side, batch: int) -> dict[str, Any]:
    """One row: medians over the turns; ratios are taken within a turn, so a busy machine matters less."""
    out: dict[str, Any] = {
        "captions_per_second": batch / side.seconds("seconds"),
        "seconds": side.seconds("seconds"),
        "cpu_seconds": side.seconds("cpu_seconds"),
        "gflop": side.flops / 1e9,
        "memory_mib": side.memory,
        "loaded_mib": side.loaded,
        "parts": {name: side.part(name) for name in PARTS},
    }
    if side is not plain:
        for clock in ("seconds", "cpu_seconds"):
            pairs = zip(plain.steps, side.steps, strict=True)
            out[f"speedup_{clock}"] = statistics.median(one[clock] / other[clock] for one, other in pairs)
        out["bound"] = plain.flops / side.flops
        out["of_bound"] = out["speedup_seconds"] / out["bound"]
        out["memory_ratio"] = side.memory / plain.memory
    return out


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the table of one size."""
    title = (
        f"{result['size']}: {result['parameters'] / 1e6:.1f}M parameters (captioner), "
        f"batch {result['batch']}, {result['tokens']} tokens, {result['device']}, "
        f"{result['threads']} thread(s)"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("side")
    heads = ["captions/s", "speed-up", "bound", "of bound", "GFLOP", "MiB", "of plain's"]
    for head in [*heads, *(f"{part} s" for part in PARTS)]:
        table.add_column(head, justify="right")
    for name, row in result["rows"].items():
        ratios = ["1", "", "", f"{row['gflop']:.1f}", f"{row['memory_mib']:.0f}", "1"]
        if "bound" in row:
            ratios = [
                f"{row['speedup_seconds']:.2f}", f"{row['bound']:.2f}", f"{row['of_bound']:.2f}",
                f"{row['gflop']:.1f}", f"{row['memory_mib']:.0f}", f"{row['memory_ratio']:.2f}",
            ]  # fmt: skip
        parts = [f"{row['parts'][part]:.3f}" for part in PARTS]
        table.add_row(name, f"{row['captions_per_second']:.1f}", *ratios, *parts)
    console.print(table)
    row = result["rows"]["limner"]
    verdicts = {
        f"at least {SPEED} times the captions a second": row["speedup_seconds"] >= SPEED,
        f"at least {OF_BOUND:.0%} of the bound": row["of_bound"] >= OF_BOUND,
        f"at most {MEMORY:.0%} of the peak memory": row["memory_ratio"] <= MEMORY,
    }
    for target, met in verdicts.items():
        console.print(f"  {'met   ' if met else 'MISSED'} {target}")


def main() -> None:
    """Measure and print; the last line is the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["world", "tiny", "mid"], help="world, tiny, mid, full")
    parser.add_argument("--rounds", type=int, default=7, help="steps that each side takes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--gpu", action="store_true", help="--sizes full --device cuda --dtype bfloat16")
    given = parser.parse_args()
    if given.gpu:
        given.sizes, given.device, given.dtype = ["full"], "cuda", "bfloat16"
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    env = {**os.environ, "OMP_NUM_THREADS": str(given.threads), **quiet}
    console = Console(width=150)
    results = []
    for size in given.sizes:
        results.append(measure(size, given, env))
        show(console, results[-1])
    load = os.getloadavg()[0]
    console.print(
        "MiB: peak beyond the imported libraries: models, optimisers and a step. "
        f"Load of the machine at the end: {load:.1f} on {os.cpu_count()} cores. "
        "Captions have one length, so limner gains nothing here from rows that end early."
    )
    print(json.dumps({"machine": platform.machine(), "load": load, "results": results}))


if __name__ == "__main__":
    main()
