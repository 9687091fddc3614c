"""The runs of docs/methods/caprl.md: CapRL on the miniature world over seeds, variants, and mixed rewards.

    python benchmarks/caprl_miniature.py run --out RESULTS --seeds 0 1 2
    python benchmarks/caprl_miniature.py run --out RESULTS --runs mixed "temperature 1"
    python benchmarks/caprl_miniature.py table --out RESULTS

Each run trains a recipe and measures its best checkpoint (chosen on validation) on the test scenes and on the
scenes of unseen compositions, greedily.
"Read by rule" are the same questions answered by `limner.world.questions.answer`, which reads captions by
rules and never guesses: where the reward's answerer is fooled, the two part. Finished runs are skipped, so
that a killed call goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from miniature import arrow, by_measure, compared, finished, interval, markdown, once, parser

from limner import config, evaluate, train
from limner.data.world import Source
from limner.questions import questions_of
from limner.run import read_metrics
from limner.world import questions

AT_1 = ("rollout.temperature=1.0", "rollout.top_k=0", "update.steps=80")
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "caprl": ("tiny/caprl", ()),
    "mixed": ("tiny/mixed", ()),
    "temperature 1": ("tiny/caprl", AT_1),
    "temperature 1, GRPO": ("tiny/caprl", (*AT_1, "advantage.kind=group_relative", "objective.kl=0.01")),
    "temperature 1, 1 question": ("tiny/caprl", (*AT_1, "rewards.qa_accuracy.questions=1")),
    "temperature 1, 8 questions": ("tiny/caprl", (*AT_1, "rewards.qa_accuracy.questions=8")),
    "temperature 1, mixed": ("tiny/mixed", AT_1),
}
"""Recipe and overrides of each run by its name in the table."""


def slug(name: str, seed: int) -> str:
    """Folder name of a run."""
    return f"{name.replace(',', '').replace(' ', '-')}-seed{seed}"


def run(name: str, seed: int, out: Path) -> dict[str, object]:
    """Train, measure, and return the row of the table."""
    recipe, overrides = RUNS[name]
    folder = out / slug(name, seed)
    place = [f"run.output={out}", f"run.name={folder.name}", f"run.seed={seed}"]
    started = (folder / "resolved.json").is_file()
    wall, cpu = time.perf_counter(), time.process_time()
    train.train(config.load(recipe, [*overrides, *place]), resume=folder if started else None)
    seconds = None if started else (time.perf_counter() - wall, time.process_time() - cpu)
    return {
        "name": name, "seed": seed, "threads": torch.get_num_threads(), "seconds": seconds,
        "compare": compared(folder), "by_rule": [by_rule(measured(folder, when)) for when in WHEN],
    }  # fmt: skip


WHEN = ("before", "after")


def measured(folder: Path, when: str) -> list[dict[str, Any]]:
    """The rows of an evaluation: caption, measures and questions with their answers."""
    return json.loads((folder / "evaluation" / f"{when}.json").read_text())["rows"]


def unseen(name: str, seed: int, out: Path) -> Path:
    """The measures on scenes of compositions that nobody was taught, made where they are not there yet."""
    folder = out / slug(name, seed)
    result = folder / "evaluation" / "unseen.json"
    if not result.exists():
        settings = config.load(*RUNS[name]).evaluate
        evaluate.evaluate_command(
            str(folder), data="world:unseen", out=result, metrics=settings.metrics, qa=settings.qa
        )
    return result


def by_rule(rows: Sequence[Mapping[str, Any]]) -> float:
    """Share of the questions of each test scene that its caption answers to a reader that never guesses."""
    scenes = Source(split="test")
    known = {id: index for index, id in enumerate(scenes.ids())}
    shares = []
    for row in rows:
        told = questions.read(row["caption"])
        asked = questions_of(scenes.read(known[row["id"]]))
        shares.append(fmean(questions.answer(told, each) == each.answer for each in asked))
    return fmean(shares)


def main() -> None:
    """Run what is missing, or print the tables (which measures unseen scenes where that was not done)."""
    arguments = parser(__doc__, "run", "table")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--runs", nargs="+", choices=RUNS, default=["caprl"])
    args = arguments.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "table":
        print(table(args.out))
        return
    torch.set_num_threads(args.threads)
    for name in args.runs:
        for seed in args.seeds:
            once(args.out, slug(name, seed), partial(run, name, seed, args.out))
            unseen(name, seed, args.out)


def table(out: Path) -> str:
    """Markdown: all finished runs, their questions by kind, and accuracy on validation as it rose."""
    rows = sorted(finished(out), key=lambda row: (list(RUNS).index(row["name"]), row["seed"]))
    head = [
        "run", "seed", "questions right, %", "change, 95% interval", "read by rule, %", "cannot answer, %",
        "facts true, %", "change, 95% interval", "scene covered, %", "words", "distinct", "unseen: right, %",
        "unseen: true, %", "seconds (CPU)",
    ]  # fmt: skip
    lines = markdown(head, [cells(row, out) for row in rows])
    kinds = [[row["name"], str(row["seed"]), *by_kind(out / slug(row["name"], row["seed"]))] for row in rows]
    lines += ["", *markdown(["run", "seed", *questions.KINDS], kinds)]
    rises = [[row["name"], str(row["seed"]), validated(out / slug(row["name"], row["seed"]))] for row in rows]
    lines += ["", *markdown(["run", "seed", "questions right on validation, %, by step"], rises)]
    return "\n".join(lines)


def cells(row: Mapping[str, Any], out: Path) -> list[str]:
    """One run."""
    other = json.loads(unseen(row["name"], row["seed"], out).read_text())["summary"]
    found = by_measure(row["compare"])
    start, end = row["by_rule"]
    seconds = "" if row["seconds"] is None else "{:.0f} ({:.0f})".format(*row["seconds"])
    return [
        row["name"], str(row["seed"]), arrow(found["qa_accuracy"], 100),
        interval(found["qa_accuracy"]["change"]), arrow({"a": start, "b": end}, 100),
        arrow(found["qa_cannot_answer"], 100), arrow(found["facts_true"], 100),
        interval(found["facts_true"]["change"]), arrow(found["coverage"], 100), arrow(found["words"]),
        arrow(found["distinct_captions"], 1, 0),
        *(f"{100 * other[name]['value']:.1f}" for name in ("qa_accuracy", "facts_true")), seconds,
    ]  # fmt: skip


def by_kind(folder: Path) -> list[str]:
    """Share of the questions of each kind that are answered rightly, before and after."""
    made: list[dict[str, list[float]]] = []
    for when in WHEN:
        made.append({kind: [] for kind in questions.KINDS})
        for asked in (each for row in measured(folder, when) for each in row["questions"]):
            if asked["correct"] is not None:
                made[-1][asked["kind"]].append(asked["correct"])
    before, after = made
    return [arrow({"a": fmean(before[kind]), "b": fmean(after[kind])}, 100) for kind in questions.KINDS]


def validated(folder: Path) -> str:
    """Accuracy on the validation scenes at every evaluation."""
    rows = [row for row in read_metrics(folder) if row.get("evaluate/qa_accuracy") is not None]
    return ", ".join(f"{row['step']:.0f}: {100 * (row['evaluate/qa_accuracy'] or 0):.1f}" for row in rows)


if __name__ == "__main__":
    main()
