"""Captions a second of a GRPO step: limner against TRL's GRPOTrainer, on one small LLaVA and the same images.

All parameters are trained, with 8 captions an image, the same reward, loss and optimiser. Each side runs in
its own process, and they take steps in turns. Then where the time goes, and limner's peak memory with few and
with many captions of the same images.

    python benchmarks/grpo_vs_trl.py                 # batch 64, group 8, 30 tokens, two threads
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
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
PARTS = ("images and prompts", "generation", "texts", "reward", "gradient", "optimiser", "rest")
SPEED = 3
"""At least so many times TRL's captions a second."""


class Side:
    """A process that takes a step when it is asked to."""

    def __init__(self, side: str, folder: Path, options: dict[str, object], env: dict[str, str]):
        """Start it and wait until it is ready for the first step."""
        flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        command = [sys.executable, str(HERE / "grpo_sides.py"), side, str(folder), *flags]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=env,
        )  # fmt: skip
        self.loaded: float = self._answer()["loaded"]
        self.steps: list[dict[str, Any]] = []

    def step(self, *, counted: bool = True) -> None:
        """Have it take a step."""
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        answer = self._answer()
        if counted:
            self.steps.append(answer)

    def end(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    @property
    def seconds(self) -> list[float]:
        """Of each step."""
        return [step["seconds"] for step in self.steps]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a side ended with {self.process.wait()}")
        return json.loads(line)


def race(folder: Path, given: argparse.Namespace, env: dict[str, str]) -> dict[str, Any]:
    """Both sides in turns; ratios are taken within a turn, so that a busy machine matters less."""
    options = {name: getattr(given, name) for name in ("batch", "group", "tokens", "threads", "device")}
    sides = {name: Side(name, folder, options, env) for name in ("trl", "limner")}
    try:
        for side in sides.values():
            side.step(counted=False)  # the first step allocates
        for turn in range(given.steps):
            for name in list(sides)[:: -1 if turn % 2 else 1]:
                sides[name].step()
    finally:
        for side in sides.values():
            side.end()
    trl, limner = sides["trl"], sides["limner"]
    ratios = [one / other for one, other in zip(trl.seconds, limner.seconds, strict=True)]
    return {
        "captions_per_second": {n: given.batch / statistics.median(s.seconds) for n, s in sides.items()},
        "memory_mib": {name: side.steps[-1]["memory"] - side.loaded for name, side in sides.items()},
        "ratio": statistics.median(ratios),
        "ratio_cpu_seconds": statistics.median(
            one["cpu_seconds"] / other["cpu_seconds"]
            for one, other in zip(trl.steps, limner.steps, strict=True)
        ),
        "ratios": ratios,
        "parts": {
            name: {part: statistics.median(s["parts"][part] for s in side.steps) for part in PARTS}
            for name, side in sides.items()
        },
    }


def memory(folder: Path, given: argparse.Namespace, env: dict[str, str]) -> list[dict[str, Any]]:
    """Peak memory of limner's steps on the same images with more and more captions, packed and not."""
    images = given.batch // given.group
    rows = []
    for packed in ("true", "false"):
        for group in (given.group, 2 * given.group, 4 * given.group):
            options = {
                "batch": images * group, "group": group, "tokens": given.tokens, "threads": given.threads,
                "device": given.device, "packed": packed,
            }  # fmt: skip
            side = Side("limner", folder, options, env)
            for _ in range(2):
                side.step()
            side.end()
            peak = side.steps[-1]["memory"] - side.loaded
            rows.append({"packed": packed, "images": images, "group": group, "mib": peak})
    return rows


def show(console: Console, given: argparse.Namespace, result: dict[str, Any]) -> None:
    """Print the tables."""
    table = Table(title=f"batch {given.batch}, group {given.group}, {given.tokens} tokens, "
                  f"{given.threads} thread(s), {given.device}", title_justify="left")  # fmt: skip
    for head in ("side", "captions/s", "MiB of a step"):
        table.add_column(head, justify="left" if head == "side" else "right")
    for name, speed in result["captions_per_second"].items():
        table.add_row(name, f"{speed:.1f}", f"{result['memory_mib'][name]:.0f}")
    console.print(table)
    ratio = result["ratio"]
    spread = f"{min(result['ratios']):.2f} to {max(result['ratios']):.2f}"
    met = "met" if ratio >= SPEED else "MISSED"
    console.print(f"limner / TRL: {ratio:.2f} ({spread} over {len(result['ratios'])} turns); {SPEED}: {met}")
    console.print(f"TRL's CPU seconds of a step / limner's: {result['ratio_cpu_seconds']:.2f}")
    table = Table(title="seconds of a step", title_justify="left")
    for head in ("side", *PARTS):
        table.add_column(head, justify="left" if head == "side" else "right")
    for name, parts in result["parts"].items():
        table.add_row(name, *(f"{parts[part]:.3f}" for part in PARTS))
    console.print(table)
    if result["memory"]:
        show_memory(console, result["memory"])


def show_memory(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print how the peak grows with the captions of an image."""
    table = Table(title="limner's peak memory of a step beyond the loaded model", title_justify="left")
    for head in ("captions", "images", "captions an image", "MiB", "MiB a further caption"):
        table.add_column(head, justify="left" if head == "captions" else "right")
    for place, row in enumerate(rows):
        how = "behind one prefix" if row["packed"] == "true" else "a row each"
        before = rows[place - 1] if place and rows[place - 1]["packed"] == row["packed"] else None
        further = ""
        if before is not None:
            more = row["images"] * (row["group"] - before["group"])
            further = f"{(row['mib'] - before['mib']) / more:.2f}"
        table.add_row(how, str(row["images"]), str(row["group"]), f"{row['mib']:.0f}", further)
    console.print(table)


def main() -> None:
    """Measure and print; the last line is the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=6, help="steps that each side takes")
    parser.add_argument("--batch", type=int, default=64, help="captions a step")
    parser.add_argument("--group", type=int, default=8, help="captions an image")
    parser.add_argument("--tokens", type=int, default=30, help="longest caption")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--memory", action=argparse.BooleanOptionalAction, default=True, help="measure memory"
    )
    given = parser.parse_args()
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    env = {**os.environ, "OMP_NUM_THREADS": str(given.threads), **quiet}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build = [sys.executable, str(HERE / "grpo_sides.py"), "build", str(folder)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        result = race(folder, given, env)
        result["memory"] = memory(folder, given, env) if given.memory else []
    console = Console(width=110)
    show(console, given, result)
    load = os.getloadavg()[0]
    console.print(f"Load of the machine at the end: {load:.1f} on {os.cpu_count()} cores.")
    print(json.dumps({"machine": platform.machine(), "load": load, **vars(given), **result}))


if __name__ == "__main__":
    main()
