"""The runs of docs/methods/scst.md: cross-entropy, then SCST, on clips of the miniature world, over seeds.

    python benchmarks/scst_miniature.py run --out RESULTS --seeds 0 1 2
    python benchmarks/scst_miniature.py table --out RESULTS

For each seed: recipes/tiny/video_xe.yaml, its best checkpoint (chosen on validation) exported, then
recipes/tiny/video_scst.yaml from there; and both once more with one frame a clip instead of eight. All is
measured on the test clips with five beams. Finished runs are skipped, so that a killed call goes on.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from miniature import arrow, by_measure, compared, finished, interval, markdown, once, parser

from limner import compare, config, export, train
from limner.world import clip_captions, clips

FRAMES = (8, 1)
STAGES = ("xe", "scst")


def slug(stage: str, frames: int, seed: int) -> str:
    """Folder name of a run."""
    return f"{stage}-frames{frames}-seed{seed}"


def overrides_of(stage: str, frames: int, seed: int, out: Path) -> list[str]:
    """Command-line overrides of a run."""
    values = [f"{key}.frames={frames}" for key in ("data", "evaluate.data", "evaluate.test")]
    if stage == "scst":
        values.append(f"captioner.path={exported(frames, seed, out)}")
    return [*values, f"run.output={out}", f"run.name={slug(stage, frames, seed)}", f"run.seed={seed}"]


def exported(frames: int, seed: int, out: Path) -> Path:
    """Where the best checkpoint of a cross-entropy run is exported to."""
    return out / f"{slug('xe', frames, seed)}-best"


def run(stage: str, frames: int, seed: int, out: Path) -> dict[str, object]:
    """Train, measure, and return the row of the table."""
    folder = out / slug(stage, frames, seed)
    recipe = config.load(f"tiny/video_{stage}", overrides_of(stage, frames, seed, out))
    started = (folder / "resolved.json").is_file()
    start = time.perf_counter()
    train.train(recipe, resume=folder if started else None)
    seconds = None if started else time.perf_counter() - start
    if stage == "xe" and not exported(frames, seed, out).is_dir():
        export.export(folder, exported(frames, seed, out))
    return {
        "stage": stage, "frames": frames, "seed": seed, "threads": torch.get_num_threads(),
        "seconds": seconds, "compare": compared(folder),
    }  # fmt: skip


def main() -> None:
    """Run what is missing, or print the table."""
    arguments = parser(__doc__, "run", "table")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--frames", type=int, nargs="+", default=list(FRAMES))
    args = arguments.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "table":
        print(table(args.out))
        return
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        for frames in args.frames:
            for stage in STAGES:
                once(args.out, slug(stage, frames, seed), partial(run, stage, frames, seed, args.out))


def table(out: Path) -> str:
    """Markdown rows of all finished runs, then eight frames against one, paired over the test clips."""
    rows = finished(out)
    rows.sort(key=lambda row: (-row["frames"], row["seed"], STAGES[::-1].index(row["stage"]) == 0))
    head = ["frames", "seed", "stage", "CIDEr x 100", "change, 95% interval", "BLEU-4", "ROUGE-L", "words",
            "distinct", "motions right", "seconds"]  # fmt: skip
    made = []
    for row in rows:
        measured = by_measure(row["compare"])
        made.append([
            str(row["frames"]), str(row["seed"]), row["stage"], arrow(measured["cider"], 100),
            interval(measured["cider"]["change"]), arrow(measured["bleu_4"], 1, 3),
            arrow(measured["rouge_l"], 1, 3), arrow(measured["words"]),
            arrow(measured["distinct_captions"], 1, 0),
            motions(out / slug(row["stage"], row["frames"], row["seed"]) / "evaluation"),
            "" if row["seconds"] is None else f"{row['seconds']:.0f}",
        ])  # fmt: skip
    return "\n".join([*markdown(head, made), "", *frames_compared(rows, out)])


def motions(folder: Path) -> str:
    """Share of the things told with a happening for which it is the right one, before and after."""
    shares = []
    for name in ("before", "after"):
        rows = json.loads((folder / f"{name}.json").read_text())["rows"]
        told = [(clips.clip(0, int(row["id"].rpartition("-")[2]), "test"), row["caption"]) for row in rows]
        counts = [clip_captions.motions_right(clip, caption) for clip, caption in told]
        right, stated = (sum(column) for column in zip(*counts, strict=True))
        shares.append(f"{right}/{stated} = {right / max(1, stated):.2f}")
    return " -> ".join(shares)


def frames_compared(rows: list[dict[str, Any]], out: Path) -> list[str]:
    """What eight frames gain over one after a stage, by seed."""
    made = []
    for stage in STAGES:
        for seed in sorted({row["seed"] for row in rows}):
            files = [out / slug(stage, frames, seed) / "evaluation" / "after.json" for frames in (1, 8)]
            if all(file.is_file() for file in files):
                found = compare.compare(*files).plain()["differences"]
                cider = next(row for row in found if row["measure"] == "cider")
                made.append([stage, str(seed), arrow(cider, 100), interval(cider["change"])])
    return markdown(["stage", "seed", "CIDEr x 100 with 1 frame -> 8", "change, 95% interval"], made)


if __name__ == "__main__":
    main()
