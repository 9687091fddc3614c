"""`limner world build`: train the miniature world's models from nothing and check their gates.

Two stages run at a time, one thread each. Every stage is a function of the seed; a build that was killed
goes on where it stopped when it is started again with the same folder.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import Blip2ForImageTextRetrieval
from transformers.utils import logging

from limner.errors import UserError
from limner.world import (
    MODELS,
    answerer,
    answerer_gates,
    captioner,
    clip,
    gates,
    itm,
    video_captioner,
    video_gates,
    vision,
    weights,
)
from limner.world.training import Report

_PROCESSES = 2
VIDEO = "video_captioner"
"""The stage, and the model, that needs nothing but the ViT."""
ANSWERER = "answerer"
"""The stage, and the model, that needs no other: it reads text only."""


@dataclass(frozen=True)
class Stage:
    """One model, or one step towards it."""

    train: Callable[[Path, int, Report], None]
    """Called with the work folder, the seed and what to tell the progress to."""
    after: tuple[str, ...] = ()
    """Stages that must be finished before."""


STAGES: Mapping[str, Stage] = {
    "vit": Stage(vision.train),
    "clip": Stage(partial(clip.train, reward=False)),
    "captioner": Stage(captioner.train, after=("vit",)),
    "itm": Stage(itm.train, after=("vit",)),
    "mixture": Stage(captioner.train_mixture, after=("captioner",)),
    "clip_reward": Stage(partial(clip.train, reward=True)),
    VIDEO: Stage(video_captioner.train, after=("vit",)),
    ANSWERER: Stage(answerer.train),
}
"""In the order in which they start when they can."""
ABLATION: Mapping[str, Stage] = {"itm_one_word": Stage(partial(itm.train, negatives="one_word"))}


def build(
    out: Path,
    *,
    seed: int = 0,
    stages: Sequence[str] | None = None,
    itm_negatives: Literal["mixed", "one_word"] = "mixed",
    world: Path | None = None,
) -> None:
    """Build the models and their gates into `out`; out/work holds the way there.

    Args:
        out: folder of the world; a build that stopped there goes on.
        seed: the world's seed, for scenes, first weights and batches.
        stages: names of STAGES to run; all of them by default. The gates are measured when all are there,
            those of the video captioner and of the answerer when these are. The video captioner by itself
            takes the ViT (and the seed) of the world `world`, unless the folder has one.
        itm_negatives: "one_word" builds only the matching model of the ablation, on the ViT (and the seed)
            of the world `world`, into out/itm.
        world: folder of an existing world; by default the one that is shipped.

    Raises:
        UserError: unknown stage, a folder that holds a build with other settings, or a gate that is missed.
    """
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    if itm_negatives == "one_word":
        seed = _take_vit(world or weights("itm").parent, work)
        _run(ABLATION, work, seed)
        shutil.copytree(work / "itm_one_word", out / "itm", dirs_exist_ok=True)
        return
    unknown = sorted(set(stages or ()) - set(STAGES))
    if unknown:
        raise UserError(f"unknown stage {unknown[0]!r}; the stages are {', '.join(STAGES)}")
    if list(stages or ()) == [VIDEO] and not _done(work, "vit").exists():
        seed = _take_vit(world or weights("itm").parent, work)
        _done(work, "vit").write_text("taken from another world\n")
    _same_settings(work, seed)
    _run({name: stage for name, stage in STAGES.items() if not stages or name in stages}, work, seed)
    if all(_done(work, name).exists() for name in STAGES):
        _finish(work, out, seed)
        return
    for name in ALONE:
        if _done(work, name).exists():
            _finish_alone(name, work, out, seed)


def _same_settings(work: Path, seed: int) -> None:
    """Refuse to go on with a build that was started with other settings."""
    schedules = {
        "vit": asdict(vision.SCHEDULE),
        "captioner": asdict(captioner.SCHEDULE),
        "mixture": asdict(captioner.MIXTURE),
        "itm": [[asdict(part) for part in phase] for phase in itm.PHASES["mixed"]],
        "clip": {phase: asdict(schedule) for phase, schedule in clip.PHASES.items()},
        VIDEO: asdict(video_captioner.SCHEDULE),
        ANSWERER: asdict(answerer.SCHEDULE),
    }
    settings = json.dumps({"seed": seed, **schedules}, indent=1)
    file = work / "settings.json"
    if file.exists() and file.read_text() != settings:
        raise UserError(f"{work} holds a build with other settings; delete it or choose another folder")
    file.write_text(settings)


def _take_vit(world: Path, work: Path) -> int:
    """Copy the ViT of an existing world to work/vit; returns the world's seed."""
    model = Blip2ForImageTextRetrieval.from_pretrained(world / "itm", dtype=torch.float32)
    model.vision_model.save_pretrained(work / "vit")
    return json.loads((world / "gates.json").read_text())["seed"]


def _done(work: Path, stage: str) -> Path:
    return work / f"{stage}.done"


def _run(stages: Mapping[str, Stage], work: Path, seed: int) -> None:
    """Run the stages that are not done, each when those before it are, `_PROCESSES` at a time."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = get_context("spawn")
    queue = context.Queue()
    waiting = [name for name in stages if not _done(work, name).exists()]
    running: dict[str, BaseProcess] = {}
    with _progress() as progress:
        tasks: dict[str, TaskID] = {}
        while waiting or running:
            for name in [name for name, process in running.items() if not process.is_alive()]:
                _check_ended(running, name)
            free = _PROCESSES - len(running)
            ready = [name for name in waiting if _can_start(stages[name], work)][:free]
            if waiting and not ready and not running:
                raise UserError(f"stage {waiting[0]!r} needs {', '.join(stages[waiting[0]].after)} first")
            for name in ready:
                waiting.remove(name)
                arguments = (stages[name].train, _done(work, name), seed, os.getpid(), queue)
                running[name] = context.Process(target=_stage, args=arguments, daemon=True)
                running[name].start()
            _show(progress, tasks, queue)


def _can_start(stage: Stage, work: Path) -> bool:
    return all(_done(work, name).exists() for name in stage.after)


def _check_ended(running: dict[str, BaseProcess], name: str) -> None:
    """Take a process that ended off the list; when it failed, end the others too."""
    process = running.pop(name)
    if process.exitcode:
        for other in running.values():
            other.terminate()
        raise RuntimeError(f"stage {name!r} of the world failed with exit status {process.exitcode}")


def _stage(
    train: Callable[[Path, int, Report], None], done: Path, seed: int, parent: int, queue: Queue
) -> None:
    """Run one stage in a process of its own and write its file `done`."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()

    def report(label: str, step: int, steps: int, loss: float) -> None:
        if os.getppid() != parent:
            sys.exit("the build that started this stage is gone")
        queue.put((label, step, steps, loss))

    started = time.monotonic()
    train(done.parent, seed, report)
    done.write_text(f"{time.monotonic() - started:.0f} seconds\n")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"), console=Console(stderr=True))


def _show(progress: Progress, tasks: dict[str, TaskID], queue: Queue) -> None:
    """Pass on what the stages reported, waiting for it half a second."""
    try:
        label, step, steps, loss = queue.get(timeout=0.5)
    except Empty:
        return
    if label not in tasks:
        tasks[label] = progress.add_task(label, total=steps, loss=loss)
    progress.update(tasks[label], completed=step, loss=loss)


def _finish(work: Path, out: Path, seed: int) -> None:
    """Measure, print and store the gates; copy the models to `out` when all are passed."""
    numbers = gates.measure(work, seed)
    gates.store(numbers, work / "gates.json", seed=seed)
    Console().print(gates.table(numbers))
    _refuse(gates.missed(numbers), numbers, work, seed)
    for name in ALONE:
        _finish_alone(name, work, out, seed)
    for name in MODELS:
        shutil.copytree(work / name, out / name, dirs_exist_ok=True)
    shutil.copy(work / "gates.json", out / "gates.json")


@dataclass(frozen=True)
class Alone:
    """A model with gates of its own."""

    measure: Callable[[Path, int], gates.Numbers]
    """Called with the work folder and the seed."""
    limits: tuple[gates.Gate, ...]
    """What must be reached."""
    file: str
    """Where the numbers are stored."""
    title: str
    """Of their table."""


ALONE: Mapping[str, Alone] = {
    VIDEO: Alone(
        video_gates.measure,
        video_gates.GATES,
        "video_gates.json",
        "The video captioner on 300 validation clips",
    ),
    ANSWERER: Alone(
        answerer_gates.measure,
        answerer_gates.GATES,
        "answerer_gates.json",
        f"The answerer on questions about {answerer_gates.SCENES} validation scenes",
    ),
}
"""Models that are finished when their stage is, whatever else is there."""


def _finish_alone(name: str, work: Path, out: Path, seed: int) -> None:
    """Measure, print, store and copy one of ALONE."""
    alone = ALONE[name]
    numbers = alone.measure(work, seed)
    gates.store(numbers, work / alone.file, seed=seed, gates=alone.limits)
    Console().print(gates.table(numbers, alone.limits, alone.title))
    _refuse(gates.missed(numbers, alone.limits), numbers, work, seed)
    shutil.copytree(work / name, out / name, dirs_exist_ok=True)
    shutil.copy(work / alone.file, out / alone.file)


def _refuse(missed: Sequence[gates.Gate], numbers: gates.Numbers, work: Path, seed: int) -> None:
    """Stop where a gate is missed."""
    if missed:
        named = ", ".join(f"{gate.name} is {numbers[gate.name]:.3f}" for gate in missed)
        raise UserError(f"the world of seed {seed} misses its gates ({named}); {work} keeps the models")


def main() -> None:
    """`python -m limner.world.build`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the world")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", action="append", choices=list(STAGES), help="run only this; repeatable")
    parser.add_argument("--itm-negatives", choices=["mixed", "one_word"], default="mixed")
    parser.add_argument("--world", type=Path, help="existing world, for --itm-negatives one_word")
    given = parser.parse_args()
    try:
        build(
            given.out,
            seed=given.seed,
            stages=given.stage,
            itm_negatives=given.itm_negatives,
            world=given.world,
        )
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
