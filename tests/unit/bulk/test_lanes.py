"""Batches that are captioned at the same time on a CPU, each on its share of the cores."""

import threading
from contextlib import closing
from dataclasses import dataclass, field

import pytest
import torch

import bulk_jobs
import patience
import tiny
from bulk_jobs import Colours
from limner.bulk import inputs
from limner.bulk.engine import Local
from limner.bulk.engines import Choice, Who, engine_of
from limner.bulk.policy import LANES, author
from limner.decoding import Decoding

GREEDY = Decoding(do_sample=False, max_new_tokens=6)
CORES = 4


@pytest.fixture
def cores():
    """torch has four threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def photos(tmp_path):
    bulk_jobs.photos(tmp_path / "photos", 8)
    return inputs.source(str(tmp_path / "photos"))


@dataclass(frozen=True)
class Meeting(Colours):
    """Goes on when two batches are under way, and says how many threads each has."""

    met: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))
    shares: list[int] = field(default_factory=list)

    def write(self, samples, prompt):
        self.shares.append(torch.get_num_threads())
        self.met.wait(patience.SECONDS)
        return super().write(samples, prompt)


def threads_of_a_new_thread() -> int:
    found = []
    asked = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    asked.start()
    asked.join()
    return found[0]


def test_batches_share_the_cores_and_leave_them_as_they_were(photos, cores):
    scribe = Meeting()
    groups = Local(scribe, 2, at_once=2, cores=CORES).run(photos, range(8))
    outcomes = {outcome.id: outcome.result.caption for group in groups for outcome in list(group)}
    assert outcomes == {f"{n:05d}.png": bulk_jobs.said(bulk_jobs.image(n)) for n in range(8)}
    assert scribe.shares == [CORES // 2] * 4
    assert torch.get_num_threads() == threads_of_a_new_thread() == CORES


def test_an_image_that_is_alone_has_all_cores(photos, cores):
    scribe = Meeting(met=threading.Barrier(1))
    assert [len(group) for group in Local(scribe, 8, at_once=2, cores=CORES).run(photos, range(1))] == [1]
    assert scribe.shares == [CORES]


@pytest.mark.parametrize(
    ("items", "sizes"), [(2, [1, 1]), (5, [2, 3]), (6, [3, 3]), (7, [1, 2, 2, 2]), (8, [2, 2, 2, 2])]
)
def test_batches_under_way_are_of_like_size(photos, cores, items, sizes):
    """None is larger than 3, and no core is left with a large one while others have nothing."""
    groups = Local(Colours(), 3, at_once=2, cores=CORES).run(photos, range(items))
    assert sorted(len(group) for group in groups) == sizes


def test_no_item_is_no_batch(photos, cores):
    assert list(Local(Colours(), 3, at_once=2, cores=CORES).run(photos, [])) == []


@dataclass(frozen=True)
class Endless(Colours):
    """Computes on and on from the third image."""

    begun: threading.Event = field(default_factory=threading.Event)
    never: threading.Event = field(default_factory=threading.Event)

    def write(self, samples, prompt):
        if samples[0].id == "00000.png":
            self.begun.wait(patience.SECONDS)
            return super().write(samples, prompt)
        self.begun.set()
        for _ in range(int(patience.SECONDS / 0.01)):
            self.never.wait(0.01)
        raise AssertionError("it was not stopped")


def test_what_is_computed_ends_with_the_job(photos, cores):
    with closing(Local(Endless(), 1, at_once=2, cores=CORES).run(photos, range(2))) as groups:
        assert [outcome.id for outcome in next(groups)] == ["00000.png"]
    assert not [thread for thread in threading.enumerate() if thread.name == "limner-bulk"]
    assert torch.get_num_threads() == CORES


def test_who_may_write_several_batches_at_once(tmp_path, cores):
    model = str(tiny.blip2(tmp_path / "blip2"))
    settings = {"device": "cpu", "dtype": "float32", "rewards": {}}
    assert author(model, decoding=GREEDY, **settings).lanes() == LANES
    torch.set_num_threads(2)
    assert author(model, decoding=GREEDY, **settings).lanes() == 2
    drawn = author(model, decoding=Decoding(do_sample=True), **settings)
    assert drawn.lanes() == 1, "what is drawn would depend on which batch is the faster"


@pytest.mark.parametrize("beams", [1, 2])
def test_captions_are_those_of_one_batch_after_the_other(tmp_path, cores, beams):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, sample in enumerate(tiny.samples(24)):
        sample.image.save(photos / f"{number:02d}.png")
    decoding = Decoding(do_sample=False, num_beams=beams, max_new_tokens=6, no_repeat_ngram_size=2)
    who = Who(model=str(tiny.blip2(tmp_path / "blip2")), decoding=decoding, device="cpu", batch=3)
    source = inputs.source(str(photos))

    def captions() -> dict[str, str]:
        groups = engine_of(who, Choice())({}).run(source, range(24))
        return {outcome.id: outcome.result.caption for group in groups for outcome in list(group)}

    at_once = captions()
    torch.set_num_threads(1)
    assert captions() == at_once
    assert len(set(at_once.values())) > 1
