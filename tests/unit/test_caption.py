import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import nasty_files
import tiny
from limner import captioners
from limner.caption import CaptionReport, Where, caption
from limner.data.folder import Source as Folder
from limner.data.jsonl import Source as Rows
from limner.data.media import open_image
from limner.data.world import Source as World
from limner.decoding import Decoding
from limner.errors import UserError

GREEDY = Decoding(do_sample=False, max_new_tokens=8)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny.blip2(tmp_path_factory.mktemp("model") / "blip2"))


@pytest.fixture
def photos(tmp_path):
    """Seven scenes as image files, with three files that cannot be used."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for index, sample in enumerate(World(split="validation", count=7)):
        sample.image.save(folder / ("below" if index % 2 else "") / f"{index}.png")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.md").write_text("# Notes")
    (folder / "text.jpg").write_text("not a photograph")
    return folder


def rows_in(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(source, out, model, **options):
    return caption(source, out, model=model, decoding=GREEDY, **{"batch": 3, **options})


def test_every_image_has_the_caption_the_captioner_gives_it(photos, tmp_path, model):
    source = Folder(path=str(photos))
    report = run(source, tmp_path / "out" / "captions.jsonl", model)
    assert report == CaptionReport(written=7, skipped_existing=0, rejected=3, sidecars_kept=0)
    rows = rows_in(tmp_path / "out" / "captions.jsonl")
    policy = captioners.load(model)
    samples = list(source)
    assert [row["id"] for row in rows] == [sample.id for sample in samples]
    assert [row["caption"] for row in rows] == [policy.caption([sample], GREEDY)[0] for sample in samples]
    assert [row["image"] for row in rows] == [f"../photos/{sample.id}" for sample in samples]
    rejects = {row["id"]: row["reason"] for row in rows_in(tmp_path / "out" / "rejects.jsonl")}
    assert rejects == {
        "empty.jpg": "empty file",
        "notes.md": "not an image file",
        "text.jpg": "not an image (JPEG, PNG, WebP, GIF, TIFF or BMP)",
    }


def test_the_output_is_a_data_source(photos, tmp_path, model):
    run(Folder(path=str(photos)), tmp_path / "captions.jsonl", model)
    rows = rows_in(tmp_path / "captions.jsonl")
    samples = list(Rows(path=str(tmp_path / "captions.jsonl"), captions="caption"))
    assert [(sample.id, sample.references) for sample in samples] == [
        (r["id"], (r["caption"],)) for r in rows
    ]


def test_scenes_have_no_image_file(tmp_path, model):
    run(World(split="test", count=4), tmp_path / "captions.jsonl", model)
    rows = rows_in(tmp_path / "captions.jsonl")
    assert [row["id"] for row in rows] == [f"test-{index:06d}" for index in range(4)]
    assert all(set(row) == {"id", "caption"} for row in rows)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), batch=st.integers(1, 8))
def test_a_job_stopped_anywhere_ends_as_one_never_stopped(photos, tmp_path_factory, model, cut, batch):
    out = tmp_path_factory.mktemp("out") / "captions.jsonl"
    source = Folder(path=str(photos))
    run(source, out, model)
    whole = out.read_bytes()
    out.write_bytes(whole[: int(cut * len(whole))])
    there = out.read_bytes().count(b"\n")
    report = run(source, out, model, batch=batch)
    assert out.read_bytes().count(b"\n") == 7
    assert rows_in(out) == [json.loads(line) for line in whole.splitlines()]
    assert report == CaptionReport(7 - there, there, 3, 0)
    assert len(rows_in(out.with_name("rejects.jsonl"))) == 3


def test_a_finished_job_needs_no_captioner(tmp_path, model):
    run(World(count=3), tmp_path / "captions.jsonl", model)
    report = run(World(count=3), tmp_path / "captions.jsonl", "no/such/model")
    assert report == CaptionReport(0, 3, 0, 0)
    assert str(report) == "0 captions written, 3 were there already"


def test_new_images_are_added_and_mended_ones_forgotten_among_the_rejects(photos, tmp_path, model):
    out = tmp_path / "captions.jsonl"
    run(Folder(path=str(photos)), out, model)
    Image.new("RGB", (9, 9)).save(photos / "empty.jpg")
    Image.new("RGB", (9, 9)).save(photos / "below" / "new.gif")
    assert run(Folder(path=str(photos)), out, model) == CaptionReport(2, 7, 2, 0)
    assert {row["id"] for row in rows_in(out)[7:]} == {"empty.jpg", "below/new.gif"}
    assert {row["id"] for row in rows_in(tmp_path / "rejects.jsonl")} == {"notes.md", "text.jpg"}


def test_nothing_usable_is_a_report_not_an_error(tmp_path, model):
    nasty_files.broken(tmp_path / "photos")
    report = run(Folder(path=str(tmp_path / "photos")), tmp_path / "captions.jsonl", model)
    assert report.written == 0
    assert report.rejected == len(rows_in(tmp_path / "rejects.jsonl")) > 20
    assert " rejected (rejects.jsonl says why)" in str(report)


def test_text_files_beside_images(photos, tmp_path, model):
    out = tmp_path / "captions.jsonl"
    Image.new("RGB", (9, 9), "red").save(photos / "0.JPG", format="JPEG")
    (photos / "2.txt").write_text("my own words\n")
    report = run(Folder(path=str(photos)), out, model, where=Where(sidecar=True))
    assert report == CaptionReport(8, 0, 3, 1)
    captions = {row["id"]: row["caption"] for row in rows_in(out)}
    expected = {
        "0.png.txt": captions["0.png"],  # 0.png and 0.JPG cannot share 0.txt
        "0.JPG.txt": captions["0.JPG"],
        "2.txt": "my own words",
        "4.txt": captions["4.png"],
        "6.txt": captions["6.png"],
        "below/1.txt": captions["below/1.png"],
        "below/3.txt": captions["below/3.png"],
        "below/5.txt": captions["below/5.png"],
    }
    written = {path.relative_to(photos).as_posix(): path.read_text() for path in photos.rglob("*.txt")}
    assert written == {name: text + "\n" for name, text in expected.items()}
    assert not list(photos.rglob(".*"))


def test_text_files_that_a_stopped_job_did_not_come_to_are_written(photos, tmp_path, model):
    out = tmp_path / "captions.jsonl"
    run(Folder(path=str(photos)), out, model, where=Where(sidecar=True))
    lost = (photos / "below" / "3.txt").read_text()
    (photos / "below" / "3.txt").unlink()
    out.write_bytes(
        out.read_bytes().rsplit(b"\n", 2)[0] + b"\n"
    )  # the last caption is not there, its text is
    assert run(Folder(path=str(photos)), out, model, where=Where(sidecar=True)) == CaptionReport(1, 6, 3, 0)
    assert (photos / "below" / "3.txt").read_text() == lost


def test_mistakes_are_told_before_a_model_is_loaded(photos, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        run(Folder(path=str(tmp_path / "nowhere")), tmp_path / "captions.jsonl", "no/such/model")
    assert not (tmp_path / "captions.jsonl").exists()
    with pytest.raises(UserError, match="world:train: has no image files"):
        run(World(), tmp_path / "captions.jsonl", "no/such/model", where=Where(sidecar=True))
    with pytest.raises(UserError, match="choose another name for the captions"):
        run(Folder(path=str(photos)), tmp_path / "rejects.jsonl", "no/such/model")
    (tmp_path / "diary.jsonl").write_text("dear diary\n")
    with pytest.raises(UserError, match=r"diary\.jsonl: line 1 is no row"):
        run(Folder(path=str(photos)), tmp_path / "diary.jsonl", "no/such/model")
    with pytest.raises(UserError, match=r"1\.png: captions go into a file whose name ends in"):
        run(Folder(path=str(photos)), photos / "below" / "1.png", "no/such/model")
    assert open_image(photos / "below" / "1.png").size == (48, 48)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UserError, match=r"folder\.jsonl: cannot be written"):
        run(Folder(path=str(photos)), tmp_path / "folder.jsonl", "no/such/model")


def test_no_such_captioner(photos, tmp_path):
    with pytest.raises(UserError, match="no/such/model"):
        run(Folder(path=str(photos)), tmp_path / "captions.jsonl", str(tmp_path / "no/such/model"))


def test_paths_of_images_hold_from_a_linked_folder(photos, tmp_path, model):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    run(Folder(path=str(photos)), tmp_path / "link" / "captions.jsonl", model)
    assert len(list(Rows(path=str(tmp_path / "link" / "captions.jsonl")))) == 7
