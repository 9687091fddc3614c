"""What every data source on disk must satisfy; a new file with a class Source is found by itself."""

import dataclasses
import json

import numpy as np
import pytest

import data_sets
import nasty_files
import nasty_videos
from limner import component
from limner.data.base import Source
from limner.data.batches import Batches
from limner.data.video import load
from limner.errors import Reject
from limner.types import Sample


def make_folder(path):
    nasty_files.good(path / "good")
    nasty_files.broken(path / "broken")
    return {"path": str(path)}


def make_jsonl(path):
    names = [*nasty_files.good(path), *nasty_files.broken(path)]
    rows = [{"id": f"row {n}", "image": name, "captions": ["a photo"]} for n, name in enumerate(names)]
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"id": "no image"}]))
    return {"path": str(path / "rows.jsonl")}


def make_caption_qa(path):
    names = [*nasty_files.good(path), *nasty_files.broken(path)]
    question = {"question": "What is it?", "options": ["a photo", "a drawing"], "answer": 0}
    rows = [{"id": n, "image": name, "questions": [question]} for n, name in enumerate(names)]
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"id": "no image"}]))
    return {"path": str(path / "rows.jsonl")}


def make_videos(path):
    nasty_videos.video(path / "a.mp4", 30)
    nasty_videos.animation(path / "b.gif", 4)
    nasty_videos.folder_of_frames(path / "c", 3)
    (path / "empty.mp4").write_bytes(b"")
    (path / "half.mp4").write_bytes((path / "a.mp4").read_bytes()[:2000])
    return {"path": str(path), "sampling": "headtail", "frames": 4}


def make_mixture(path):
    msrvtt = component.find("data", "msrvtt")(**data_sets.msrvtt(path / "msrvtt"))
    lavis = component.find("data", "lavis")(**data_sets.lavis(path / "lavis"))
    return {"parts": {"msrvtt": msrvtt, "lavis": lavis}, "ratio": {"msrvtt": 3, "lavis": 1}}


SETTINGS = {
    "caption_qa": make_caption_qa,
    "coco": data_sets.coco,
    "folder": make_folder,
    "jsonl": make_jsonl,
    "lavis": data_sets.lavis,
    "mixture": make_mixture,
    "msrvtt": data_sets.msrvtt,
    "msvd": data_sets.msvd,
    "vatex": data_sets.vatex,
    "videos": make_videos,
    "webvid": data_sets.webvid,
    "world": lambda path: {"split": "validation", "count": 12},
    "world_videos": lambda path: {"split": "validation", "count": 12},
}
"""How to make a small instance of each source: it returns settings. A new source adds its own line."""


@pytest.fixture(params=component.available("data"), scope="module")
def make(request, tmp_path_factory):
    assert request.param in SETTINGS, f"add {request.param} to SETTINGS in {__file__}"
    kind = component.find("data", request.param)
    settings = SETTINGS[request.param](tmp_path_factory.mktemp(request.param))
    return lambda: kind(**settings)


def read(source, index):
    try:
        return load(source.read(index))
    except Reject as reject:
        return reject


def same(first, second):
    if isinstance(first, Reject) or isinstance(second, Reject):
        return type(first) is type(second) and first.reason == second.reason
    pixels = zip(first.media, second.media, strict=True)
    return (
        (first.id, first.references, first.extra) == (second.id, second.references, second.extra)
        and all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pixels)
    )  # fmt: skip


def test_it_is_a_frozen_dataclass_with_a_docstring(make):
    source = make()
    assert isinstance(source, Source)
    assert source.__dataclass_params__.frozen
    assert type(source).__doc__
    assert json.loads(json.dumps(dataclasses.asdict(source))) == dataclasses.asdict(source)
    assert str(source)


def test_ids_are_unique_stable_strings(make):
    first, second = make(), make()
    ids = list(first.ids())
    assert ids == list(first.ids()) == list(second.ids())
    assert len(ids) == len(set(ids)) == len(first) > 0
    assert all(isinstance(id, str) and id.encode("utf-8") for id in ids)


def test_items_are_samples_of_rgb_images_or_rejects(make):
    source = make()
    for index, id in enumerate(source.ids()):
        item = read(source, index)
        if isinstance(item, Reject):
            assert item.reason
            assert "\n" not in item.reason
        else:
            assert isinstance(item, Sample)
            assert item.id == id
            assert item.media
            assert all(image.mode == "RGB" for image in item.media)


def test_videos_are_not_opened_when_they_are_read(make):
    source = make()
    for index in range(len(source)):
        try:
            sample = source.read(index)
        except Reject:
            continue
        assert (sample.video is None) == bool(sample.media)


def test_items_are_the_same_in_any_order_and_by_any_instance(make):
    first, second = make(), make()
    forward = [read(first, index) for index in range(len(first))]
    for index in reversed(range(len(second))):
        assert same(forward[index], read(second, index))
        assert same(forward[index], read(first, index))


def test_iteration_leaves_out_what_is_rejected(make):
    source = make()
    items = [read(source, index) for index in range(len(source))]
    assert [s.id for s in source] == [item.id for item in items if isinstance(item, Sample)]


def test_batches_resume_in_the_middle_of_an_epoch(make):
    whole = Batches(make(), 3, seed=5)
    whole.next()
    resumed = Batches(make(), 3, seed=5, position=whole.position)
    for _ in range(len(whole.source) // 3 + 2):
        for first, second in zip(whole.next(), resumed.next(), strict=True):
            assert same(first, second)
    assert whole.position == resumed.position
