"""Videos are decoded in processes that may die, and that end when they are not wanted."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import nasty_videos
from limner.data import video_pool
from limner.data.base import VideoSource
from limner.data.batches import Batches, read_ahead
from limner.data.rejects import RejectLog
from limner.data.video import Video, load
from limner.data.video_pool import Decoders
from limner.errors import Reject, UserError
from limner.types import Sample
from nasty_videos import numbers
from patience import SECONDS, until

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return nasty_videos.video(tmp_path_factory.mktemp("pool") / "a.mp4", 60)


@dataclass(frozen=True, kw_only=True)
class Same(VideoSource):
    """One video under many ids."""

    size: int = 6

    def ids(self):
        return [f"video {index}" for index in range(self.size)]

    def read(self, index):
        return self.video(self.ids()[index], Path(self.path), ("a caption",))


def processes():
    """The ids of this process's living children."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    rows = [row.split() for row in listed.stdout.splitlines()]
    return {int(pid) for pid, state in rows if not state.startswith("Z")}


def decoders_of(items):
    return items.gi_frame.f_locals["decoders"]


def pids(decoders):
    with decoders._lock:
        return [each._process.pid for each in (*decoders._idle, *decoders._busy)]


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_video_can_be_sent_and_opens_nothing(file):
    source = Same(path=str(file), frames=4)
    sample = source.read(0)
    assert sample.media == ()
    assert pickle.loads(pickle.dumps(sample.video)) == sample.video
    assert sample.video == Video(file, frames=4)
    assert Same(path="nowhere.mp4").read(0).video == Video(Path("nowhere.mp4"))


def test_frames_from_processes_are_those_of_this_process(file):
    source = Same(path=str(file), frames=8, sampling="headtail")
    items = list(read_ahead(source, [3, 1, 2, 2, 5], workers=2, ahead=3))
    assert [item.id for item in items] == ["video 3", "video 1", "video 2", "video 2", "video 5"]
    for item, index in zip(items, [3, 1, 2, 2, 5], strict=True):
        here = load(source.read(index))
        assert isinstance(item.result, Sample)
        assert item.result.references == ("a caption",)
        for a, b in zip(item.result.media, here.media, strict=True):
            assert np.array_equal(np.asarray(a), np.asarray(b))
    assert [(sample.id, len(sample.media)) for sample in source] == [(id, 8) for id in source.ids()]


def test_a_resumed_run_draws_the_same_frames_and_each_epoch_others(file):
    source = Same(path=str(file), frames=4, sampling="headtail", size=5)

    def drawn(batches, count):
        return [[(sample.id, numbers(sample.media)) for sample in batches.next()] for _ in range(count)]

    whole = Batches(source, 2, seed=0, workers=1)
    taken = drawn(whole, 6)
    resumed = Batches(source, 2, seed=0, position=6, workers=1)
    assert drawn(resumed, 3) == taken[3:]
    flat = [pair for batch in taken for pair in batch]
    assert len({tuple(places) for _, places in flat}) > 9
    whole.close()
    resumed.close()


def test_repeated_frames_are_sent_once(tmp_path):
    path = nasty_videos.video(tmp_path / "a.mp4", 2)
    sample = next(iter(Same(path=str(path), frames=5, size=1)))
    assert numbers(sample.media) == [0, 1, 1, 1, 1]
    assert sample.media[1] is sample.media[4]


def test_no_process_is_started_without_a_video(tmp_path, monkeypatch):
    def refuse():
        raise AssertionError("started")

    monkeypatch.setattr(video_pool, "_Process", refuse)
    from limner.data.world import Source as World

    assert len(list(World(split="validation", count=3))) == 3


def test_a_process_that_is_killed_costs_its_video_and_no_other(file):
    decoders = Decoders()
    source = Same(path=str(file), frames=2)
    assert numbers(decoders.load(source.read(0)).media) == [0, 30]
    (busy,) = pids(decoders)

    def kill():
        until(lambda: decoders._busy)
        os.kill(busy, signal.SIGKILL)

    os.kill(busy, signal.SIGSTOP)  # so that it cannot be done before it is killed
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(Reject, match=r"the decoder died of it .*SIGKILL"):
        decoders.load(source.read(1))
    killer.join()
    assert numbers(decoders.load(source.read(1)).media) == [0, 30]
    (idle,) = pids(decoders)
    assert idle != busy
    os.kill(idle, signal.SIGKILL)  # while it has nothing to do: no video is to blame
    until(lambda: not decoders._idle[0].alive)
    assert numbers(decoders.load(source.read(2)).media) == [0, 30]
    decoders.close()


def worker_that(does: str) -> str:
    """The program of a process that does something before it decodes a video."""
    return (
        f"import os, signal, sys, time; sys.path.append({str(ROOT / 'src')!r})\n"
        "from limner.data import video_worker as worker\n"
        "decode = worker.decode\n"
        f"def changed(video, id, epoch):\n{does}"
        "    return decode(video, id=id, epoch=epoch)\n"
        "worker.decode = changed; worker.main()"
    )


def test_a_crash_is_a_reject_and_the_run_goes_on(file, tmp_path, monkeypatch):
    """A decoder that crashes on one file, as FFmpeg has done: here it is made to."""
    crash = (
        "    if id == 'video 2': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if id == 'video 4': raise ZeroDivisionError\n"
    )
    monkeypatch.setattr(video_pool, "_START", worker_that(crash))
    log = RejectLog(tmp_path / "rejects.jsonl")
    batches = Batches(
        Same(path=str(file), frames=2, size=4), 3, seed=0, shuffle=False, rejects=log, workers=1
    )
    assert [sample.id for sample in batches.next()] == ["video 0", "video 1", "video 3"]
    assert log.count == 1
    assert "SIGSEGV" in next(iter(log.reasons))
    batches.close()
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(read_ahead(Same(path=str(file)), [4], workers=1, ahead=1))


def test_a_decoder_that_hangs_is_given_up(file, monkeypatch):
    decoders, source = Decoders(max_seconds=0.3), Same(path=str(file), frames=2)
    monkeypatch.setattr(video_pool, "_START", f"import time; time.sleep({10 * SECONDS})")
    with pytest.raises(RuntimeError, match="no process that decodes videos can be started"):
        decoders.load(source.read(0))
    hangs = f"    if id == 'video 1': time.sleep({10 * SECONDS})\n"
    monkeypatch.setattr(video_pool, "_START", worker_that(hangs))
    decoders._seconds = SECONDS  # starting takes as long as it takes
    decoders.load(source.read(0))
    decoders._seconds = 0.3
    with pytest.raises(Reject, match=r"took more than 0.3 s \(SIGKILL\)"):
        decoders.load(source.read(1))
    decoders.close()


def test_a_cache_that_cannot_be_written_is_said_so(file, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"data.frame_cache: .*cache cannot be written"):
        list(read_ahead(Same(path=str(file), frame_cache=str(tmp_path / "cache")), [0], workers=1, ahead=1))


@pytest.mark.parametrize("how", ["close", "forget", "exhaust"])
def test_processes_end_with_the_reading(file, how):
    items = read_ahead(Same(path=str(file), frames=2), range(4), workers=1, ahead=2)
    next(items)
    started = pids(decoders_of(items))
    assert len(started) == 1
    assert set(started) <= processes()
    if how == "close":
        items.close()
    elif how == "forget":
        del items
        gc.collect()
    else:
        list(items)
    until(lambda: all(map(gone, started)))


def test_closing_does_not_wait_for_a_video(file):
    decoders = Decoders(max_seconds=10 * SECONDS)
    source = Same(path=str(file), frames=2)
    decoders.load(source.read(0))
    (pid,) = pids(decoders)
    os.kill(pid, signal.SIGSTOP)
    refused = []

    def ask():
        try:
            decoders.load(source.read(1))
        except Reject as reject:
            refused.append(reject.reason)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: decoders._busy)
    decoders.close()
    asking.join(SECONDS)
    assert refused == ["not decoded: reading was stopped"]
    until(lambda: gone(pid))
    with pytest.raises(Reject, match="stopped"):
        decoders.load(source.read(1))


def test_ctrl_c_ends_a_script_and_its_processes(file, tmp_path):
    """Without an `if __name__ == "__main__"` in the script, which other ways of starting processes need."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "from limner.data.batches import Batches\n"
        "from limner.data.videos import Source\n"
        "batches = Batches(Source(path=sys.argv[1], frames=2), 2, seed=0, workers=1)\n"
        "samples = batches.next()\n"
        "for each in batches._items.gi_frame.f_locals['decoders']._idle: print(each._process.pid)\n"
        "print('ready', flush=True)\n"
        "while True: batches.next()\n"
    )
    running = subprocess.Popen(
        [sys.executable, str(script), str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert running.stdout is not None
    started = [int(line) for line in iter(running.stdout.readline, "ready\n")]
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=SECONDS)
    assert running.returncode not in (0, None)
    assert errors.count("Traceback") == 1, errors
    assert "KeyboardInterrupt" in errors
    until(lambda: all(map(gone, started)))


def test_processes_end_when_their_pipe_does(file):
    """As it does when the run is killed."""
    decoders = Decoders()
    decoders.load(Same(path=str(file), frames=2).read(0))
    (pid,) = pids(decoders)
    decoders._idle[0]._requests.close()
    until(lambda: not decoders._idle[0].alive)
    assert decoders._idle[0].end() == "exit code 0"
    assert gone(pid)


def test_a_process_that_decodes_imports_no_torch():
    code = (
        "import sys; import limner.data.video_worker, limner.data.video_stream, limner.data.video_cache; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_at_most_so_many_samples_are_held(file):
    """However slowly they are taken, no more is decoded than `ahead`."""
    opened = []

    @dataclass(frozen=True, kw_only=True)
    class Counted(Same):
        def read(self, index):
            opened.append(index)
            return super().read(index)

    items = read_ahead(Counted(path=str(file), frames=2, size=50), range(50), workers=1, ahead=3)
    next(items)
    until(lambda: len(opened) >= 4)
    time.sleep(0.2)  # for one too many
    assert len(opened) == 4
    items.close()
