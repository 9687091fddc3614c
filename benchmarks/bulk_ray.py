"""What a second worker of `limner caption --engine ray` brings: captions a second of two workers against one.

`python benchmarks/bulk_ray.py [--images 160] [--turns 3]`. A Ray of one core with one worker, then of two
cores with two, one torch thread a worker; the model and the photographs of bulk_captions.py, or `--model
world:captioner` with its own pictures. The rate is taken from the first batch of each worker on: starting Ray
and loading the model is not counted. Parallel efficiency is the rate of two over twice the rate of one. What
the machine allows is measured beside it: the same with processes that share nothing, without Ray.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

BATCH = 16
WAYS = ("alone", "ray")
"""Processes that know nothing of each other, and workers of Ray."""


def engine(model: str, workers: int | None):
    """Workers of Ray, or who captions in this process."""
    from bulk_captions import LIMITS

    from limner.bulk.engines import Choice, Who, engine_of
    from limner.decoding import Decoding

    kind = "inprocess" if workers is None else "ray"
    who = Who(
        model=model, decoding=Decoding(**LIMITS), engine=kind, workers=workers, device="cpu", batch=BATCH
    )
    return engine_of(who, Choice())({})


def steady(times: Sequence[float], workers: int) -> float:
    """Captions a second from the end of a round of batches, one a worker, to that of another.

    The first round is left out. To end within a round would count fewer batches than were computed, wherever
    workers end theirs at the same time; a worker with nothing left to do in the last round counts as one.
    """
    round_ = BATCH * workers
    last = len(times) // round_ * round_
    return (last - round_) / (times[last - 1] - times[round_ - 1])


def rate(way: str, workers: int, model: str, photos: str) -> float:
    """Captions a second of so many workers of Ray, or of this process."""
    from limner.bulk import inputs

    source = inputs.source(photos)
    if way == "ray":
        import ray

        ray.init(
            "local", num_cpus=workers, include_dashboard=False, log_to_driver=False,
            logging_level=logging.ERROR, object_store_memory=100_000_000,
        )  # fmt: skip
    made = engine(model, workers if way == "ray" else None)
    print("ready", flush=True)
    sys.stdin.readline()
    times: list[float] = []
    for group in made.run(source, range(len(source))):
        times += [time.monotonic()] * len(group)
    return steady(times, workers if way == "ray" else 1)


def measured(way: str, workers: int, model: str, photos: Path) -> float:
    """Captions a second of all workers together, in processes of their own."""
    command = [sys.executable, __file__, "--rate", way, str(workers), model, str(photos)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    processes = [
        subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(workers if way == "alone" else 1)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0].split() for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a process ended; what it said stands above")
    return sum(float(words[-1]) for words in said)


def main() -> None:
    """Measure in turns and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", help="a captioner instead of the one that bulk_captions.py builds")
    parser.add_argument("--keep", type=Path, help="folder that keeps model and files for the next time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        model, photos = inputs_of(given, folder)
        found = {(way, workers): list[float]() for way in WAYS for workers in (1, 2)}
        for _ in range(given.turns):
            for (way, workers), rates in found.items():
                rates.append(measured(way, workers, model, photos))
    for (way, workers), rates in found.items():
        print(f"{way:>5}, {workers} workers: {', '.join(f'{one:.2f}' for one in rates)} captions/s")
    for way in WAYS:
        ratios = [two / one / 2 for one, two in zip(found[way, 1], found[way, 2], strict=True)]
        listed = ", ".join(f"{one:.2f}" for one in ratios)
        print(f"{way:>5}: parallel efficiency {statistics.median(ratios):.2f} ({listed})")


def inputs_of(given: argparse.Namespace, folder: Path) -> tuple[str, Path]:
    """The captioner, and a folder of pictures."""
    import bulk_captions

    if given.model is not None and given.model.startswith("world:"):
        from limner.world.write import write_folder

        photos = folder / f"world-{given.images}"
        if not photos.exists():
            write_folder(photos, "validation", given.images)
        return given.model, photos
    model, photos = folder / "mid" / "captioner", folder / f"640x480-{given.images}"
    if given.model is None and not model.exists():
        bulk_captions.build(folder / "mid")
    if not photos.exists():
        bulk_captions.photographs(photos, given.images, width=640, height=480)
    return given.model or str(model), photos


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rate"]:
        print(rate(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]))
    else:
        main()
