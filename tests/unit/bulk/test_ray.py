"""Captions by workers of a real Ray cluster of two cores: drivers and workers are killed."""

import functools
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bulk_jobs
import tiny
from bulk_jobs import Colours, Deadly
from forks import finished, forked
from limner.bulk import inputs
from limner.bulk.job import run
from limner.bulk.ray_actors import Ray
from limner.caption import caption, output_of
from limner.data.world import Source as World
from limner.decoding import Decoding
from patience import SECONDS, free_port, listening

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
TESTS = Path(bulk_jobs.__file__).parent
BATCH = 4


@pytest.fixture(scope="module")
def cluster():
    """A cluster in processes of its own, which `RAY_ADDRESS` names while the tests run."""
    port = free_port()
    start = [
        sys.executable,
        "-c",
        "from ray.scripts.scripts import main; main()",
        "start",
        "--head",
        "--block",
    ]
    options = ["--num-cpus=2", "--num-gpus=0", f"--port={port}", "--include-dashboard=false"]
    options += ["--object-store-memory=100000000", "--disable-usage-stats"]
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    quiet = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
    quiet["RAY_AUTH_MODE"] = "disabled"  # else a token that lies in the home folder from before is asked for
    process = subprocess.Popen(
        [*start, *options], env={**os.environ, **quiet}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    listening(port, process)
    os.environ["RAY_ADDRESS"] = f"127.0.0.1:{port}"
    yield
    del os.environ["RAY_ADDRESS"]
    process.terminate()
    process.wait(SECONDS)


def job(photos, out, author, workers=1):
    source = inputs.source(str(photos))
    output = output_of(out, source, column=None, overwrite=False, shard=16)
    return run(source, output, lambda seen: Ray(author, BATCH, workers=workers), resume="limner caption")


def in_a_process(work):
    """Ray's threads and its exit handlers stay out of the process that runs the tests."""
    assert finished(forked(work))


def test_a_real_captioner_says_the_same_as_in_process(cluster, tmp_path):
    model = str(tiny.blip2(tmp_path / "blip2"))
    greedy = Decoding(do_sample=False, max_new_tokens=8)
    options = {"model": model, "decoding": greedy, "batch": 3, "device": "cpu"}
    source = World(split="validation", count=7)

    def work():
        report = caption(source, tmp_path / "ray.jsonl", engine="ray", workers=2, **options)
        assert report.written == 7

    in_a_process(work)
    caption(source, tmp_path / "here.jsonl", **options)
    rows = [
        sorted((row["id"], row["caption"]) for row in bulk_jobs.rows(tmp_path / name))
        for name in ("ray.jsonl", "here.jsonl")
    ]
    assert rows[0] == rows[1]


def test_workers_that_die_are_replaced_and_what_kills_them_is_rejected(cluster, tmp_path):
    names = bulk_jobs.photos(tmp_path / "photos", 12, broken=[2])
    settings = {"once": names[1], "always": names[6], "marks": tmp_path}
    author = functools.partial(bulk_jobs.make, Deadly, **settings)

    def work():
        logging.getLogger("limner").addHandler(logging.FileHandler(tmp_path / "log"))
        report = job(tmp_path / "photos", tmp_path / "captions.jsonl", author)
        assert (report.written, report.rejected) == (10, 2)

    in_a_process(work)
    rejects = {row["id"]: row["reason"] for row in bulk_jobs.rows(tmp_path / "rejects.jsonl")}
    assert rejects.keys() == {names[2], names[6]}
    assert rejects[names[6]] == "the worker that captioned it died, time after time"
    assert (tmp_path / "log").read_text().count("worker 0 died") >= 3
    rows = bulk_jobs.rows(tmp_path / "captions.jsonl")
    assert sorted(row["id"] for row in rows) == sorted(set(names) - set(rejects))


def test_killed_twenty_times(cluster, tmp_path):
    names = bulk_jobs.photos(tmp_path / "photos", 240, broken=[5])
    out, log = tmp_path / "captions.jsonl", tmp_path / "log"
    author = functools.partial(bulk_jobs.make, Colours, log=log, seconds=0.03)

    def work():
        return job(tmp_path / "photos", out, author)

    def progress():
        return out.read_bytes().count(b"\n") if out.exists() else 0

    kills = bulk_jobs.kill_often(work, progress, times=20, total=240)
    assert kills >= 10, "too few kills met a running job"
    in_a_process(work)
    good = [name for n, name in enumerate(names) if n != 5]
    assert sorted(row["id"] for row in bulk_jobs.rows(out)) == good
    assert [row["id"] for row in bulk_jobs.rows(tmp_path / "rejects.jsonl")] == [names[5]]
    tried = [id for line in log.read_text().splitlines() for id in json.loads(line)]
    assert set(tried) == set(good)
    assert len(tried) - len(good) <= kills * 2 * BATCH  # a worker has two batches
