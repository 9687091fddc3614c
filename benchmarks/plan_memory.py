"""What `limner plan` says a step holds, against what steps really hold, of the three methods.

Every case is trained for two steps in a process of its own, every caption as long as it may be. Measured is
what torch's allocator holds at most (its own records, by torch.profiler, with the weights that lie in files),
and beside it the resident memory of another such process beyond its libraries: there are also pictures,
threads and Python's objects in it. On a GPU it is torch.cuda.max_memory_allocated.

    python benchmarks/plan_memory.py                 # tiny and mid-size models on the CPU, some minutes
    python benchmarks/plan_memory.py --gpu           # the same and BLIP-2 OPT-2.7B on a GPU
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from sides import NEVER, resident_peak
from torch.profiler import ProfilerActivity, profile

from limner import config
from limner.config import Recipe
from limner.plan.fit import Plan
from limner.plan.step import Setting
from limner.train import Trainer

SMALL = {"rollout.min_new_tokens": 24, "rollout.max_new_tokens": 24}
CAPTIONER = {"captioner.path": "FOLDER/captioner"}
VLRM = SMALL | CAPTIONER | {"rewards.itm.path": "FOLDER/itm", "data.path": "world:train"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny vlrm": ("tiny/vlrm", SMALL),
    "tiny vlrm, micro-batches": ("tiny/vlrm", SMALL | {"update.micro_batch": 24}),
    "tiny vlrm, recomputed": ("tiny/vlrm", SMALL | {"run.recompute": "true"}),
    "tiny vlrm_rs": ("tiny/vlrm_rs", SMALL),
    "tiny scst": (
        "tiny/video_scst",
        {"captioner.path": "world:video_captioner", "rollout.min_new_tokens": 32, "update.micro_batch": 40},
    ),
    "tiny caprl": ("tiny/caprl", SMALL),
    "llava, caprl, all trained": (
        "tiny/caprl",
        SMALL | {"captioner": "{kind: auto, path: FOLDER/model, train: ['*']}", "update.micro_batch": 64},
    ),
    "mid vlrm": ("vlrm", VLRM | {"update.captions": 32, "update.micro_batch": 4, "run.dtype": "float32"}),
    "mid scst": (
        "tiny/video_scst",
        SMALL
        | CAPTIONER
        | {"captioner.prompt": "''", "data": "{path: 'world:train'}"}
        | {"update.captions": 40, "update.micro_batch": 10},
    ),
    "mid caprl": ("tiny/caprl", SMALL | CAPTIONER | {"update.captions": 32, "update.micro_batch": 8}),
    "full vlrm": ("vlrm", VLRM | {"update.captions": 64, "update.micro_batch": 16, "run.dtype": "bfloat16"}),
}
"""Recipe and settings; FOLDER holds the models of the size that the name begins with."""
QUIET = {
    "evaluate.every": 0, "evaluate.data": "null", "evaluate.best": "null", "evaluate.test": "null",
    "run.sample_every": NEVER, "run.checkpoint_every": NEVER, "update.steps": NEVER,
}  # fmt: skip


def recipe_of(case: str, folder: Path, *, device: str = "cpu") -> Recipe:
    """The recipe of a case on the models in `folder`."""
    name, changes = CASES[case]
    settings = QUIET | {"run.device": device} | changes
    return config.load(
        name, [f"{key}={value}".replace("FOLDER", str(folder)) for key, value in settings.items()]
    )


def predicted(recipe: Recipe, *, gpu: bool = False) -> dict[str, Any]:
    """What a step is said to hold, in MiB."""
    sample = recipe.data.read(0)
    media = sample.media or (sample.video and recipe.data.read(0).media) or ()
    frames = len(media) or int(getattr(recipe.data, "frames", 1))
    size = media[0].size if media else (64, 64)
    plan = Plan(recipe, Setting(size, frames, gpu=gpu))
    use = plan.use(recipe.update.micro_batch, "none")
    return {"mib": use.peak / 2**20, "part": use.worst}


def measured(recipe: Recipe, folder: Path) -> float:
    """MiB that two steps hold at most, by torch's allocator."""
    gc.collect()
    before = live()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as records:
        trainer = Trainer(recipe, folder)
        for _ in range(2):
            trainer.step()
    events: list[Any] = records.profiler.kineto_results.events()  # type: ignore[union-attr]
    now = most = 0
    for _, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        now += size
        most = max(most, now)
    gc.collect()
    mapped = live() - before - now  # weights that lie in files are not allocated
    trainer.close()
    return (most + mapped) / 2**20


def live() -> int:
    """Bytes of all tensors that Python holds."""
    storages = {
        each.untyped_storage()._cdata: each.untyped_storage().nbytes()
        for each in gc.get_objects()
        if issubclass(type(each), torch.Tensor) and not each.is_meta  # isinstance would ask lazy modules
    }
    return sum(storages.values())


def resident(recipe: Recipe, folder: Path) -> float:
    """MiB that the process holds at most in three steps, beyond what it held before; on a GPU of the GPU."""
    before = resident_peak()
    trainer = Trainer(recipe, folder)
    for _ in range(3):
        trainer.step()
    cuda = trainer.policy.device.type == "cuda"
    trainer.close()
    return torch.cuda.max_memory_allocated() / 2**20 if cuda else resident_peak() - before


def main() -> None:
    """Measure and print; the last line is the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--side", choices=("predicted", "measured", "resident"), help="for its own use")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    device = "cuda" if given.gpu else "cpu"
    if given.side:
        recipe = recipe_of(given.cases[0], given.folder, device=device)
        if given.side == "predicted":
            print(json.dumps(predicted(recipe, gpu=given.gpu)))
        else:
            with tempfile.TemporaryDirectory() as name:
                side = measured if given.side == "measured" else resident
                print(json.dumps({"mib": side(recipe, Path(name) / "run")}))
        return
    results = {}
    chosen = given.cases or [case for case in CASES if given.gpu or not case.startswith("full")]
    print(f"{'':26} {'predicted':>9} {'measured':>9} {'ratio':>6} {'resident':>9}  MiB; most in")
    with tempfile.TemporaryDirectory() as name:
        for case in chosen:
            results[case] = compare(case, Path(name), gpu=given.gpu)
            row = results[case]
            print(
                f"{case:26} {row['predicted']:9.1f} {row['measured']:9.1f} {row['ratio']:6.2f} "
                f"{row['resident']:9.1f}  {row['part']}", flush=True,
            )  # fmt: skip
    worst = max(abs(row["ratio"] - 1) for row in results.values())
    print(f"farthest from what was measured: {worst:.0%} (target: 15%)")
    print(json.dumps(results))


def compare(case: str, folder: Path, *, gpu: bool) -> dict[str, Any]:
    """One case: each side in a process of its own."""
    env = {
        **os.environ, "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",  # what is freed goes back at once
    }  # fmt: skip
    size, here = case.replace(",", "").split()[0], Path(__file__).parent
    models = folder / size
    if size != "tiny" and not models.exists():
        build = (
            "import grpo_sides, pathlib, sys; grpo_sides.build(pathlib.Path(sys.argv[1]))"
            if size == "llava"
            else "import shapes, pathlib, sys; shapes.build(sys.argv[2], pathlib.Path(sys.argv[1]))"
        )
        subprocess.run([sys.executable, "-c", build, str(models), size], check=True, env=env, cwd=here)

    def run(side: str) -> dict[str, Any]:
        command = [sys.executable, __file__, "--side", side, "--cases", case, "--folder", str(models)]
        said = subprocess.run(
            [*command, *(["--gpu"] if gpu else [])], check=True, env=env, stdout=subprocess.PIPE, text=True
        )
        return json.loads(said.stdout.splitlines()[-1])

    found, held = run("predicted"), run("resident")["mib"]
    real = held if gpu else run("measured")["mib"]
    return {"predicted": found["mib"], "part": found["part"], "measured": real, "resident": held,
            "ratio": found["mib"] / real}  # fmt: skip


if __name__ == "__main__":
    main()
