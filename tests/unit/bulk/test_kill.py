"""A job that is killed twenty times ends as one that never was: each item once, nothing torn."""

import json
from pathlib import Path

import pytest

import bulk_jobs
from bulk_jobs import Colours
from limner.bulk import inputs
from limner.bulk.engine import Local
from limner.bulk.job import run
from limner.bulk.journal import Journal
from limner.caption import output_of

COUNT, BATCH, KILLS = 240, 4, 20
BROKEN = (3, 50, 51, 52, 53, 119, 239)


def job(
    photos: Path, out: Path, log: Path, *, column: str | None = None, dedup: bool = False, slow: bool = False
):
    def work():
        source = inputs.source(str(photos))
        output = output_of(out, source, column=column, overwrite=False, shard=16)
        author = Colours(log, seconds=0.025 if slow else 0)
        return run(source, output, lambda seen: Local(author, BATCH, seen=seen if dedup else None))

    return work


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def check_log(log: Path, kills: int, ids: set[str]) -> None:
    """Nothing is captioned twice but what was in flight."""
    tried = [id for line in log.read_text().splitlines() for id in json.loads(line)]
    assert set(tried) == ids
    assert len(tried) - len(ids) <= kills * BATCH


@pytest.mark.slow
@pytest.mark.parametrize("name", ["captions.jsonl", "captions.parquet", "captions.tar", "new.csv"])
def test_killed_twenty_times(tmp_path, name):
    names = bulk_jobs.photos(tmp_path / "photos", COUNT, broken=BROKEN)
    out, log, given = tmp_path / "out" / name, tmp_path / "log", tmp_path / "photos"
    if name == "new.csv":
        given = tmp_path / "rows.csv"
        given.write_text("".join(["image,n\n", *(f"photos/{name},{n}\n" for n, name in enumerate(names))]))
        names = [f"photos/{name}" for name in names]
    column = "caption" if name == "new.csv" else None
    work = job(given, out, log, column=column, slow=True)
    journal = output_of(out, inputs.source(str(given)), column=column, overwrite=False, shard=16).journal
    rejects = out.with_name("rejects.jsonl")
    kills = bulk_jobs.kill_often(work, lambda: lines(journal), times=KILLS, total=COUNT)
    assert kills >= KILLS // 2, "too few kills met a running job"
    work()

    good = {names[n] for n in range(COUNT) if n not in BROKEN}
    assert sorted(row["id"] for row in bulk_jobs.rows(journal)) == sorted(good)
    assert sorted(row["id"] for row in bulk_jobs.rows(rejects)) == sorted(set(names) - good)
    check_log(log, kills, good)
    right = {name: bulk_jobs.said(bulk_jobs.image(n)) for n, name in enumerate(names)}
    if name == "captions.tar":
        found = bulk_jobs.samples(out.parent)
        assert len(list(out.parent.glob("captions-*.tar"))) == -(-len(good) // 16)
        assert all(one["file"] == (tmp_path / "photos" / one["id"]).read_bytes() for one in found)
        written = [(one["id"], one["text"]) for one in found]
    elif name == "new.csv":
        table = bulk_jobs.rows(out)
        assert [row["image"] for row in table] == names
        assert [row["n"] for row in table] == [str(n) for n in range(COUNT)]
        assert [row["image"] for row in table if not row["caption"]] == sorted(set(names) - good)
        written = [(row["image"], row["caption"]) for row in table if row["caption"]]
    else:
        written = [(row["id"], row["caption"]) for row in bulk_jobs.rows(out)]
    assert sorted(written) == sorted((id, right[id]) for id in good)
    assert not list(out.parent.glob(".*"))


def test_a_beginning_of_a_batch_that_was_written_is_kept(tmp_path):
    """Wherever a write was cut, whole rows stay, and the job makes the others."""
    names = bulk_jobs.photos(tmp_path / "photos", 6)
    out = tmp_path / "captions.jsonl"
    work = job(tmp_path / "photos", out, tmp_path / "log")
    work()
    whole = out.read_bytes()
    for cut in range(0, len(whole), 61):
        out.write_bytes(whole[:cut])
        there = whole[:cut].count(b"\n")
        report = work()
        assert (report.written, report.skipped_existing) == (6 - there, there)
        assert sorted(row["id"] for row in bulk_jobs.rows(out)) == names


def test_equal_images_are_captioned_once_and_that_outlives_a_kill(tmp_path):
    bulk_jobs.photos(tmp_path / "photos", 6)
    for number in range(6):
        bulk_jobs.image(number).save(tmp_path / "photos" / f"{number}-again.bmp")
    out, log = tmp_path / "captions.jsonl", tmp_path / "log"
    job(tmp_path / "photos", out, log, dedup=True)()
    rows = bulk_jobs.rows(out)
    assert len(rows) == len({row["id"] for row in rows}) == 12
    assert len({row["caption"] for row in rows}) == 6
    check_log(
        log, 0, {f"{n:05d}.png" if f"{n:05d}.png" in log.read_text() else f"{n}-again.bmp" for n in range(6)}
    )
    out.write_text("".join(json.dumps(row) + "\n" for row in rows if "again" in row["id"]))
    log.unlink()
    job(tmp_path / "photos", out, log, dedup=True)()
    assert not log.exists()
    assert {(row["id"], row["caption"]) for row in bulk_jobs.rows(out)} == {
        (row["id"], row["caption"]) for row in rows
    }


def test_two_jobs_do_not_write_one_output(tmp_path):
    bulk_jobs.photos(tmp_path / "photos", 3)
    out = tmp_path / "captions.jsonl"
    held = Journal(out)
    with pytest.raises(Exception, match="another process is writing it"):
        job(tmp_path / "photos", out, tmp_path / "log")()
    held.close()
    assert job(tmp_path / "photos", out, tmp_path / "log")().written == 3
