"""The runs of docs/methods/vlrm.md: RL seeds on separately pretrained worlds, and the paper's ablations.

    python benchmarks/vlrm_miniature.py run --out RESULTS --world 0= --world 1=DIR --seeds 5
    python benchmarks/vlrm_miniature.py ablate --out RESULTS --itm-one-word DIR
    python benchmarks/vlrm_miniature.py table --out RESULTS

A world is NUMBER=FOLDER of `limner world build --seed NUMBER -o FOLDER`; an empty folder is the packaged
one. Finished runs are skipped, so that a killed call goes on. Each run trains recipes/tiny/vlrm.yaml and
measures its best checkpoint (chosen on validation) on the test scenes and on the scenes of unseen
compositions, beam 5.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from miniature import arrow, by_measure, compared, finished, interval, markdown, once, parser

from limner import config, evaluate, train
from limner.run import read_metrics

MODELS = {"captioner.path": "captioner", "rewards.itm.path": "itm", "evaluate.clip": "clip"}
ABLATIONS: dict[str, list[str]] = {
    "as the recipe": [],
    "without ref": ["rewards.fluency=null"],
    "without the penalties": ["rewards.bad_phrases=null", "rewards.repeats=null", "rewards.no_eos=null"],
    "one-layer value head": ["advantage.value.head=[]"],
    "no value function": ["advantage.value=null"],
    "p instead of log p, same rate": ["objective.of=probability"],
    "p, a third of the rate": ["objective.of=probability", "update.lr=LR/3"],
    "p, twice the rate": ["objective.of=probability", "update.lr=LR*2"],
    "log p, a third of the rate": ["update.lr=LR/3"],
    "log p, twice the rate": ["update.lr=LR*2"],
    "temperature 1": ["rollout.temperature=1.0"],
    "temperature 2": ["rollout.temperature=2.0"],
}


@dataclass(frozen=True)
class Job:
    """One run."""

    name: str
    world: str
    folder: str
    seed: int
    overrides: tuple[str, ...] = ()
    recipe: str = "tiny/vlrm"


def overrides_of(job: Job, out: Path) -> list[str]:
    """Command-line overrides of a run."""
    models = [f"{key}={job.folder}/{name}" for key, name in MODELS.items()] if job.folder else []
    lr = config.load(job.recipe).update.lr
    values = [o.replace("LR/3", str(lr / 3)).replace("LR*2", str(lr * 2)) for o in job.overrides]
    place = [f"run.output={out}", f"run.name={slug(job)}", f"run.seed={job.seed}"]
    return [*models, *values, *place]


def slug(job: Job) -> str:
    """Folder name of a run."""
    return "".join(c if c.isalnum() else "-" for c in f"{job.name}-world{job.world}-seed{job.seed}")


def run(job: Job, out: Path) -> dict[str, object]:
    """Train, measure, and return the row of the table."""
    folder = out / slug(job)
    recipe = config.load(job.recipe, overrides_of(job, out))
    started = (folder / "resolved.json").is_file()
    train.train(recipe, resume=folder if started else None)
    steps = read_metrics(folder)
    unseen = folder / "evaluation" / "unseen.json"
    start = time.perf_counter()
    evaluate.evaluate_command(
        str(folder), data="world:unseen", out=unseen, metrics=recipe.evaluate.metrics,
        clip=recipe.evaluate.clip,
    )  # fmt: skip
    return {
        "name": job.name, "world": job.world, "seed": job.seed, "threads": torch.get_num_threads(),
        "train_seconds": sum(step["seconds"] or 0.0 for step in steps),
        "unseen_seconds": time.perf_counter() - start, "compare": compared(folder),
        "unseen": json.loads(unseen.read_text())["summary"],
    }  # fmt: skip


def main() -> None:
    """Run what is missing, or print the table."""
    arguments = parser(__doc__, "run", "ablate", "table")
    arguments.add_argument("--world", action="append", default=[], metavar="NUMBER=FOLDER")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments.add_argument("--itm-one-word", default="", help="folder of the ablation's ITM")
    arguments.add_argument("--only", default="", help="ablations whose name starts with this")
    args = arguments.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "table":
        print(table(args.out))
        return
    torch.set_num_threads(args.threads)
    worlds = dict(pair.split("=", 1) for pair in args.world) or {"0": ""}
    jobs = [Job("vlrm", world, folder, seed) for world, folder in worlds.items() for seed in args.seeds]
    if args.what == "ablate":
        jobs = [Job(name, "0", "", 0, tuple(o)) for name, o in ABLATIONS.items() if name != "as the recipe"]
        jobs.append(Job("VLRM-RS", "0", "", 0, recipe="tiny/vlrm_rs"))
        if args.itm_one_word:
            jobs.append(
                Job("ITM of one-wrong-word negatives", "0", "", 0, (f"rewards.itm.path={args.itm_one_word}",))
            )
        jobs = [job for job in jobs if job.name.startswith(args.only)]
    for job in jobs:
        once(args.out, slug(job), partial(run, job, args.out))


def place(row: dict[str, Any]) -> str:
    """Folder name of a finished run."""
    return slug(Job(row["name"], row["world"], "", row["seed"]))


def validated(folder: Path) -> list[float]:
    """Facts F1 on the validation scenes, at every evaluation."""
    values = [row.get("evaluate/facts_f1") for row in read_metrics(folder)]
    return [value for value in values if value is not None]


def table(out: Path) -> str:
    """Markdown rows of all finished runs."""
    head = [
        "run", "world", "seed", "R@1", "rise, 95% interval", "coverage", "true", "relations true", "words",
        "bad phrases", "distinct", "unseen: R@1", "unseen: coverage", "unseen: true",
        "F1 at steps 25, 50, 75, 100, 125",
    ]  # fmt: skip
    made = []
    for row in finished(out):
        measured = by_measure(row["compare"])
        after = {name: m["b"] for name, m in measured.items()}
        unseen = {name: m["value"] for name, m in row["unseen"].items()}
        made.append([
            row["name"], row["world"], str(row["seed"]),
            arrow(measured["clip_recall_r1"], 1, 3),
            interval(measured["clip_recall_r1"]["change"], 1, 3),
            arrow(measured["coverage"], 1, 3), f"{after['facts_true']:.3f}",
            f"{after['relations_true']:.3f}", arrow(measured["words"]),
            f"{after['bad_phrases']:.3f}", f"{after['distinct_captions']:.0f}",
            f"{unseen['clip_recall_r1']:.3f}", f"{unseen['coverage']:.3f}", f"{unseen['facts_true']:.3f}",
            ", ".join(f"{value:.2f}" for value in validated(out / place(row))[:5]),
        ])  # fmt: skip
    return "\n".join(markdown(head, made))


if __name__ == "__main__":
    main()
