"""A run directory with made-up numbers, for tests of what reads one; scenes and truth are the world's own."""

import json
import math
import random
from pathlib import Path

import numpy as np
from PIL import Image

from limner.answering.draw import shuffled
from limner.answering.exam import Answer
from limner.data.world import Source
from limner.evaluation import Evaluation, Row, summed_up
from limner.questions import questions_of
from limner.report import images
from limner.types import Sample
from limner.world.questions import answer
from limner.world.truth import check

STEPS = 60
SAMPLES = 24
CHOSEN = 50


def make(folder: Path, *, name: str = "made-up") -> Path:
    """A finished run on the miniature world, with everything a page can show."""
    run = folder / name
    for part in ("samples/images", "evaluation", "checkpoints/step-000060"):
        (run / part).mkdir(parents=True)
    rows = [_metrics(step) for step in range(1, STEPS + 1)]
    _write_lines(run / "metrics.jsonl", rows)
    (run / "recipe.yaml").write_text("# made up\nupdate: {steps: 60}\n")
    (run / "resolved.json").write_text(json.dumps(_settings()))
    (run / "environment.json").write_text(json.dumps({"python": "3.11.0", "libraries": {"torch": "2.13.0"}}))
    (run / "checkpoints/step-000060/progress.json").write_text(json.dumps({"step": 60, "best_step": CHOSEN}))
    reasons = ["empty file", "empty file", "not an image"]
    _write_lines(run / "rejects.jsonl", [{"id": f"{n}.jpg", "reason": why} for n, why in enumerate(reasons)])
    _samples(run)
    _evaluations(run)
    return run


def make_photographs(folder: Path) -> Path:
    """A run on photographs: file names as ids, no facts, no value function."""
    run = make(folder, name="photographs")
    ids = [f"holiday/père & mère {n}.jpg" for n in range(SAMPLES)]
    pictures = run / "evaluation" / "images"
    for n, id in enumerate(ids):
        Image.new("RGB", (320, 200), (n * 9, 90, 140)).save(pictures / images.file_name(id))
    for which in ("before", "after"):
        path = run / "evaluation" / f"{which}.json"
        old = Evaluation.load(path)
        rows = tuple(
            Row(id, row.caption, {"words": row.measures["words"]})
            for id, row in zip(ids, old.rows, strict=True)
        )
        Evaluation(rows, _summary(rows), which, "holiday photographs").save(path)
    for path in (run / "samples").glob("step-*.jsonl"):
        _write_lines(path, [{**json.loads(line), "values": None} for line in path.read_text().splitlines()])
    return run


def _metrics(step: int) -> dict[str, object]:
    part = step / STEPS
    row = {
        "step": step,
        "seconds": 1.5,
        "loss/policy": math.sin(step),
        "reward/total": -3 + 4 * part,
        "reward/itm": -2 + 3 * part,
        "watch/words": 3 + 10 * part,
        "watch/cut": 0.0,
        "watch/distinct": 0.3 + 0.6 * part,
        "unscored": 0.0,
        "refused": 0.0,
        "time/rollout": 0.9,
        "time/policy": 0.5,
    }
    return row | ({"evaluate/clip_recall_r1": 0.1 + 0.8 * part} if step % 10 == 0 else {})


def _settings() -> dict[str, dict[str, object]]:
    return {
        "captioner.kind": {"value": "blip2", "origin": "tiny/vlrm.yaml:3"},
        "captioner.train": {"value": ["query_tokens", "qformer"], "origin": "tiny/vlrm.yaml:3"},
        "rewards.itm.path": {"value": "world:itm", "origin": "command line"},
        "rewards.itm.weight": {"value": 1.0, "origin": "default"},
        "captioner.prompt": {"value": "", "origin": "default"},
        "update.steps": {"value": STEPS, "origin": "tiny/vlrm.yaml:9"},
        "update.captions": {"value": 192, "origin": "tiny/vlrm.yaml:9"},
    }


def _samples(run: Path) -> None:
    Image.new("RGB", (48, 48), (250, 180, 200)).save(run / "samples/images/00.png")
    for step in (20, 40, 60):
        row = {
            "id": "train-000001",
            "image": "images/00.png",
            "caption": "an image of a star",
            "parts": {"itm": 0.5, "bad_phrases": -3.0},
            "tokens": ["an", " image", " of", " a", " star", "</s>"],
            "returns": [-2.5, -1.5, -0.5, 0.5, 0.5, 0.5],
            "values": [-1.0, -1.0, -1.0, 0.0, 0.0, 0.25],
        }
        _write_lines(run / f"samples/step-{step:06d}.jsonl", [row])


def _evaluations(run: Path) -> None:
    """Before: three words of the reference. After: all of it, with a wrong word in every fifth."""
    samples = [sample for sample, _ in zip(Source(split="test"), range(SAMPLES), strict=False)]
    images.save(run / "evaluation" / "images", samples)
    full = [sample.references[0] for sample in samples]
    wrong = [text.replace("background", "star") if n % 5 == 0 else text for n, text in enumerate(full)]
    for which, captions in (("before", [" ".join(text.split()[:3]) for text in full]), ("after", wrong)):
        rows = []
        for n, (sample, caption) in enumerate(zip(samples, captions, strict=True)):
            truth = check(sample.extra["scene"], caption)
            facts = [
                {"start": fact.words[0], "end": fact.words[1], "true": fact.true, "kind": fact.kind}
                for fact in truth.stated
            ]
            found = float(which == "after" or n == 0)
            measures = {
                "clip_recall_r1": found,
                "words": float(len(caption.split())),
                "coverage": truth.coverage,
            }
            rows.append(Row(sample.id, caption, measures, facts, asked(sample, caption)))
        Evaluation(tuple(rows), _summary(rows), which, "world:test").save(
            run / "evaluation" / f"{which}.json"
        )


def asked(sample: Sample, caption: str) -> tuple[dict, ...]:
    """The sample's questions, answered by the rule that reads captions of the miniature world."""
    rows = []
    for place, question in enumerate(questions_of(sample)):
        drawn = shuffled(question, random.Random(f"{sample.id} {place}"))
        found = answer(caption, question)
        letter = (
            drawn.cannot if found is None else drawn.letters[drawn.options.index(question.options[found])]
        )
        rows.append(Answer(float(letter in drawn.right), letter).shown(drawn))
    return tuple(rows)


def _summary(rows) -> dict:
    return summed_up({name: np.array([row.measures[name] for row in rows]) for name in rows[0].measures})


def _write_lines(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
