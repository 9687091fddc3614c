import gc
import threading
import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from limner.data.base import Source
from limner.data.batches import Batches, read_ahead
from limner.data.order import epochs
from limner.data.rejects import RejectLog
from limner.data.world import Source as World
from limner.errors import Reject, UserError
from limner.types import Sample
from patience import SECONDS, until

PIXEL = Image.new("RGB", (1, 1))


@dataclass(frozen=True)
class Numbers(Source):
    """Items 0, 1, 2, ...; some are rejected, some are slow."""

    size: int
    rejected: frozenset[int] = frozenset()
    slow: frozenset[int] = frozenset()

    def ids(self):
        return [str(number) for number in range(self.size)]

    def read(self, index):
        if index in self.slow:
            time.sleep(0.005)
        if index in self.rejected:
            raise Reject(f"number {index % 2}")
        return Sample(str(index), (PIXEL,))


def ids(batches, count):
    return [[sample.id for sample in batches.next()] for _ in range(count)]


def items(draws, count):
    return [draw.item for draw in islice(draws, count)]


sizes = st.integers(1, 12)
seeds = st.integers(0, 2**40)


@st.composite
def sources(draw):
    size = draw(sizes)
    usable = draw(st.integers(0, size - 1))
    rejected = draw(st.frozensets(st.integers(0, size - 1).filter(lambda index: index != usable)))
    return Numbers(size, rejected, draw(st.frozensets(st.integers(0, size - 1), max_size=2)))


@settings(max_examples=60)
@given(source=sources(), batch=st.integers(1, 7), seed=seeds, shuffle=st.booleans(), before=st.integers(0, 6))
def test_resuming_at_any_position_goes_on_with_the_same_samples(source, batch, seed, shuffle, before):
    whole = Batches(source, batch, seed=seed, shuffle=shuffle)
    ids(whole, before)
    resumed = Batches(source, batch, seed=seed, shuffle=shuffle, position=whole.position)
    assert ids(resumed, 4) == ids(whole, 4)
    assert resumed.position == whole.position


@settings(max_examples=40)
@given(source=sources(), batch=st.integers(1, 7), seed=seeds)
def test_threads_do_not_change_the_order(source, batch, seed):
    one = ids(Batches(source, batch, seed=seed, workers=1), 5)
    assert ids(Batches(source, batch, seed=seed, workers=5), 5) == one


@settings(max_examples=40)
@given(source=sources(), seed=seeds, shuffle=st.booleans())
def test_every_usable_id_comes_once_an_epoch(source, seed, shuffle):
    batches = Batches(source, len(source) - len(source.rejected), seed=seed, shuffle=shuffle)
    expected = sorted(set(range(source.size)) - source.rejected)
    for epoch in ids(batches, 3):
        assert sorted(map(int, epoch)) == expected


@given(size=sizes, seed=seeds, position=st.integers(0, 60))
def test_epochs_are_permutations_reached_from_any_position(size, seed, position):
    order = items(epochs(size, seed=seed), 100)
    for start in range(0, 100 - size, size):
        assert sorted(order[start : start + size]) == list(range(size))
    assert items(epochs(size, seed=seed, position=position), 40) == order[position : position + 40]


def test_epochs_and_seeds_differ():
    order = items(epochs(50, seed=0), 100)
    assert order[:50] != order[50:]
    assert order[:50] != items(epochs(50, seed=1), 50)
    assert items(epochs(3, seed=0, shuffle=False), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_batches_are_full_and_rejects_are_recorded_once(tmp_path):
    log = RejectLog(tmp_path / "rejects.jsonl")
    source = Numbers(10, rejected=frozenset({1, 2, 3}))
    batches = Batches(source, 4, seed=3, rejects=log)
    taken = ids(batches, 7)
    assert all(len(batch) == 4 for batch in taken)
    assert batches.position == 40
    assert Counter(id for batch in taken for id in batch) == {str(n): 4 for n in (0, 4, 5, 6, 7, 8, 9)}
    assert log.count == 3
    assert log.reasons == {"number 1": 2, "number 0": 1}


def test_rejects_of_a_resumed_run_are_those_of_a_run_never_stopped(tmp_path):
    source = Numbers(30, rejected=frozenset(range(0, 30, 3)))
    whole = Batches(source, 4, seed=3, rejects=RejectLog(tmp_path / "whole.jsonl"))
    ids(whole, 8)
    first = Batches(source, 4, seed=3, rejects=RejectLog(tmp_path / "resumed.jsonl"))
    ids(first, 2)
    saved = first.position
    ids(first, 3)  # done after the checkpoint, lost in the kill
    first.close()
    second = Batches(source, 4, seed=3, position=saved, rejects=RejectLog(tmp_path / "resumed.jsonl"))
    ids(second, 6)
    assert (tmp_path / "resumed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("position", [0, 3])
def test_an_epoch_without_anything_usable_is_an_error(position):
    batches = Batches(Numbers(5, rejected=frozenset(range(5))), 2, seed=0, position=position)
    with pytest.raises(UserError, match="not one of the 5 items can be used: 3 x number 0; 2 x number 1"):
        batches.next()
    assert batches.position in (5, 10)


def test_samples_without_a_reference_can_be_refused(tmp_path):
    log = RejectLog(tmp_path / "rejects.jsonl")
    with pytest.raises(UserError, match=r"used: 3 x no reference caption; data\.captions names"):
        Batches(Numbers(3), 2, seed=0, references=True, rejects=log).next()
    assert log.count == 3
    source = World(split="validation", count=3)
    assert len(Batches(source, 3, seed=0, references=True).next()) == 3
    assert source.references(1) == source.read(1).references


def test_an_empty_source_is_an_error():
    with pytest.raises(UserError, match="nothing to caption"):
        Batches(Numbers(0), 2, seed=0)


def test_the_next_batch_is_read_while_this_one_is_used():
    read = []

    @dataclass(frozen=True)
    class Recorded(Numbers):
        def read(self, index):
            read.append(index)
            return super().read(index)

    batches = Batches(Recorded(100), 5, seed=0, shuffle=False)
    batches.next()
    until(lambda: len(read) >= 10)
    assert sorted(read) == list(range(10))


def test_mistakes_in_a_source_are_not_hidden():
    @dataclass(frozen=True)
    class Wrong(Numbers):
        def read(self, index):
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        Batches(Wrong(3), 2, seed=0).next()


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("limner-data")]


@pytest.mark.parametrize("how", ["close", "forget"])
def test_threads_end_without_reading_what_is_not_wanted(how):
    gc.collect()
    before = set(threads())
    read, go = [], threading.Event()

    @dataclass(frozen=True)
    class Held(Numbers):
        def read(self, index):
            read.append(index)
            if index:
                go.wait(SECONDS)
            return super().read(index)

    items = read_ahead(Held(100), range(100), workers=2, ahead=50)
    next(items)
    assert set(threads()) > before
    if how == "close":
        items.close()
    else:
        del items
        gc.collect()
    go.set()
    until(lambda: before >= set(threads()))
    assert len(read) <= 3, "the first, and what each of two threads was at"


def test_closed_batches_stop_reading():
    batches = Batches(Numbers(10), 2, seed=0)
    batches.next()
    batches.close()
    with pytest.raises(StopIteration):
        batches.next()


def test_reading_ahead_covers_the_given_indices_in_their_order():
    source = Numbers(20, rejected=frozenset({4}), slow=frozenset({0, 7}))
    items = list(read_ahead(source, [7, 0, 4, 19, 0], workers=3, ahead=2))
    assert [item.id for item in items] == ["7", "0", "4", "19", "0"]
    assert [type(item.result) for item in items] == [Sample, Sample, Reject, Sample, Sample]


def test_scenes_of_the_world_come_in_batches():
    taken = ids(Batches(World(split="validation", count=6), 6, seed=1), 2)
    assert sorted(taken[0]) == sorted(taken[1]) == [f"validation-{index:06d}" for index in range(6)]
    assert taken[0] != taken[1]
