"""Outputs other than JSONL: parquet, shards, a new column; and what stops a job."""

import json
import resource
import signal

import datasets
import pyarrow
import pyarrow.parquet
import pytest

import bulk_jobs
from bulk_jobs import Colours
from limner.bulk import inputs
from limner.bulk.engine import Local
from limner.bulk.job import run
from limner.bulk.prompts import Prompt
from limner.bulk.sidecars import Sidecars
from limner.caption import output_of
from limner.errors import UserError


def caption(given, out, *, column=None, overwrite=False, shard=3, sidecar=False, prompt=None, **options):
    source = inputs.source(str(given))
    output = output_of(out, source, column=column, overwrite=overwrite, shard=shard)
    sidecars = Sidecars(out.parent, overwrite=overwrite) if sidecar else None
    engine = Local(Colours(), 2, Prompt(prompt))
    return run(source, output, lambda seen: engine, sidecars=sidecars, **options)


def said(number):
    return bulk_jobs.said(bulk_jobs.image(number))


@pytest.fixture
def photos(tmp_path):
    bulk_jobs.photos(tmp_path / "photos", 8, broken=[7])
    return tmp_path / "photos"


def test_shards_grow(photos, tmp_path):
    out = tmp_path / "out" / "cc.tar"
    caption(f"{photos}/0000[0-4].png", out)
    first = {path.name: path.read_bytes() for path in out.parent.glob("*.tar")}
    assert sorted(first) == ["cc-000000.tar", "cc-000001.tar"]
    caption(f"{photos}/0000[0-7].png", out)
    assert (out.parent / "cc-000000.tar").read_bytes() == first["cc-000000.tar"]
    found = bulk_jobs.samples(out.parent)
    assert [one["text"] for one in found] == [said(n) for n in range(7)]
    assert [one["id"] for one in found] == [f"0000{n}.png" for n in range(7)]
    assert all(one["file"] == (photos / one["id"]).read_bytes() for one in found)
    (out.parent / "cc-000002.tar").unlink()  # killed before the last shard was there
    caption(photos, out)
    assert bulk_jobs.samples(out.parent) == found
    with pytest.raises(UserError, match="another --shard"):
        caption(photos, out, shard=2)
    again = inputs.source(str(out.parent))  # what was written can be read
    assert [again.read(n).extra["row"]["txt"] for n in range(7)] == [said(n) for n in range(7)]


def test_shards_are_read_by_others(photos, tmp_path):
    """By `datasets`, which keeps the conventions of the package webdataset."""
    out = tmp_path / "out" / "cc.tar"
    caption(photos, out, shard=4)
    found = datasets.load_dataset(
        "webdataset", data_files=str(out.parent / "*.tar"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert found["txt"][:] == [said(n) for n in range(7)]
    assert [row["id"] for row in found["json"]] == [f"0000{n}.png" for n in range(7)]
    assert [row["caption"] for row in found["json"]] == found["txt"][:]
    assert [image.getpixel((0, 0)) for image in found["png"]] == [
        bulk_jobs.image(n).getpixel((0, 0)) for n in range(7)
    ]
    assert len(set(found["__key__"])) == 7


def test_what_no_job_wrote_is_left_alone(photos, tmp_path):
    for name in ("captions.parquet", "cc-000000.tar"):
        (tmp_path / name).write_bytes(b"mine")
    for name in ("captions.parquet", "cc.tar"):
        with pytest.raises(UserError, match=r"(its journal .* is not|is no shard)"):
            caption(photos, tmp_path / name)
    assert (tmp_path / "captions.parquet").read_bytes() == b"mine"


TABLE = [{"image": f"photos/0000{n}.png", "n": n, "about": "mine" if n == 2 else None} for n in range(8)]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_column_beside_the_input(photos, tmp_path, form, overwrite):
    given, out = tmp_path / f"rows.{form}", tmp_path / "out" / f"new.{form}"
    if form == "jsonl":
        given.write_text("".join(json.dumps(row) + "\n" for row in TABLE))
    elif form == "csv":
        given.write_text(
            "image,n,about\n" + "".join(f"{r['image']},{r['n']},{r['about'] or ''}\n" for r in TABLE)
        )
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(TABLE), given, row_group_size=3)
    report = caption(given, out, column="about", overwrite=overwrite)
    assert (report.written, report.skipped_existing, report.rejected) == (
        7 - (not overwrite),
        not overwrite,
        1,
    )
    right = [said(n) if n != 2 or overwrite else "mine" for n in range(7)]
    found = bulk_jobs.rows(out)
    assert [row["about"] for row in found] == [*right, "" if form == "csv" else None]
    assert [int(row["n"]) for row in found] == list(range(8))
    whole = out.read_bytes()
    assert caption(given, out, column="about", overwrite=overwrite).written == 0
    assert out.read_bytes() == whole
    with pytest.raises(UserError, match="is the input itself"):
        caption(given, given, column="about")


def test_a_column_that_cannot_be_written_is_refused_before_anything_is_captioned(photos, tmp_path):
    table = pyarrow.Table.from_pylist([{**row, "tags": ["a"]} for row in TABLE])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    pyarrow.parquet.write_table(table, tmp_path / "many-0.parquet")
    pyarrow.parquet.write_table(table.drop(["n"]), tmp_path / "many-1.parquet")
    (tmp_path / "rows.csv").write_text("image\nphotos/00000.png\n")
    for given, name, column, why in (
        ("rows.parquet", "new.parquet", "tags", "column 'tags' is of list<.*>, not of text"),
        ("rows.parquet", "new.parquet", "n", "column 'n' is of int64, not of text"),
        ("rows.parquet", "new.jsonl", "about", r"is written as \.parquet"),
        ("rows.csv", "new.parquet", "about", r"is written as \.jsonl or \.csv or \.tsv"),
        ("many-*.parquet", "new.parquet", "about", "different columns"),
        ("rows.csv", "new.csv.gz", None, r"ends in \.jsonl, \.parquet, or \.tar"),
    ):
        with pytest.raises(UserError, match=why):
            caption(tmp_path / given, tmp_path / name, column=column)
    assert not list(tmp_path.glob("new*"))


def test_a_column_of_a_data_set(tmp_path):
    data = datasets.Dataset.from_dict({"image": [bulk_jobs.image(n) for n in range(3)]})
    data.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "set"))
    caption(tmp_path / "set", tmp_path / "new", column="caption")
    found = datasets.load_from_disk(str(tmp_path / "new"))
    assert found["caption"][:] == [said(n) for n in range(3)]
    assert found[1]["image"].getpixel((0, 0)) == bulk_jobs.image(1).getpixel((0, 0))


def test_text_files_are_written_over_only_if_asked(photos, tmp_path):
    (photos / "00002.txt").write_text("mine\n")
    report = caption(photos, tmp_path / "a.jsonl", sidecar=True)
    assert report.sidecars_kept == 1
    assert (photos / "00002.txt").read_text() == "mine\n"
    assert caption(photos, tmp_path / "b.jsonl", sidecar=True, overwrite=True).sidecars_kept == 0
    assert (photos / "00002.txt").read_text() == said(2) + "\n"


def test_prompts_with_columns(photos, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TABLE))
    caption(tmp_path / "rows.jsonl", tmp_path / "a.jsonl", prompt="{{{n}}} {name}: ")
    rows = {row["id"]: row["caption"] for row in bulk_jobs.rows(tmp_path / "a.jsonl")}
    assert rows["photos/00003.png"] == "{3} 00003: " + said(3)
    report = caption(tmp_path / "rows.jsonl", tmp_path / "b.jsonl", prompt="About {about}: ")
    assert (report.written, report.rejected) == (1, 7)
    for wrong in ("{n.__class__}", "{n!r}", "{n:>3}", "{", "{}"):
        with pytest.raises(UserError, match="--prompt"):
            Prompt(wrong)


def test_a_full_disk_stops_the_job_and_names_the_command_that_goes_on(photos, tmp_path):
    """A limit on the size of files fails as a full disk does: in the middle of a write."""
    out = tmp_path / "captions.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(File too large\)\n.*limner caption again"):
            caption(photos, out, resume="limner caption again")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    there = len(bulk_jobs.rows(out))
    assert 0 < there < 7
    assert caption(photos, out).written == 7 - there
    assert len({row["id"] for row in bulk_jobs.rows(out)}) == len(bulk_jobs.rows(out)) == 7
