import os

import pytest

from limner.live import tail as tails
from limner.live.tail import MARK, Tail


def everything(tail):
    """What one look after another gives, until there is no more."""
    renewed, lines = tail.look()
    while tail.more:
        again, more = tail.look()
        renewed, lines = renewed or again, lines + more
    return renewed, b"".join(lines).decode().split()


def test_what_was_added_is_read_once(tmp_path):
    path = tmp_path / "file"
    tail = Tail(path)
    assert everything(tail) == (False, [])
    path.write_text("a\nb\n")
    assert everything(tail) == (False, ["a", "b"])
    with path.open("a") as file:
        for text in ("c\n", "d\n"):
            file.write(text)
            file.flush()
            assert everything(tail) == (False, [text.strip()])
    assert everything(tail) == (False, [])


def test_a_torn_line_is_waited_for(tmp_path):
    path = tmp_path / "file"
    path.write_text("whole\nto")
    tail = Tail(path)
    assert everything(tail) == (False, ["whole"])
    assert everything(tail) == (False, [])
    with path.open("a") as file:
        file.write("rn\n")
    assert everything(tail) == (False, ["torn"])


def test_reading_costs_what_was_added_however_long_the_file_is(tmp_path):
    path = tmp_path / "file"
    row = "x" * 999 + "\n"
    path.write_text(row * 3000)
    tail = Tail(path)
    assert len(everything(tail)[1]) == 3000
    start = tail.bytes_read
    assert start <= path.stat().st_size + 3 * MARK
    for _ in range(20):
        with path.open("a") as file:
            file.write(row)
        assert len(everything(tail)[1]) == 1
    assert tail.bytes_read - start == 20 * (len(row) + MARK)


def test_a_file_that_did_not_change_is_not_opened(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("a\n")
    tail = Tail(path)
    everything(tail)
    monkeypatch.setattr(type(path), "open", None)
    assert tail.look() == (False, [])


def test_a_long_file_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(tails, "CHUNK", 10)
    path = tmp_path / "file"
    path.write_text("".join(f"{n}\n" for n in range(100)) + "torn")
    tail = Tail(path)
    assert len(tail.look()[1]) < 10
    assert tail.more
    assert everything(tail)[1][-1] == "99"
    assert not tail.more


def replaced(path, text):
    beside = path.with_name("beside")
    beside.write_text(text)
    os.replace(beside, path)


def written_over(path, text):
    path.write_text(text)


@pytest.mark.parametrize("change", [replaced, written_over])
@pytest.mark.parametrize("text", ["a\nb\nx\n", "a\nb\nx\ny\nz\n", "a\n", "", "a\nb\n"])
def test_a_file_that_was_written_anew_is_read_anew(tmp_path, change, text):
    path = tmp_path / "file"
    path.write_text("a\nb\nc\n")
    tail = Tail(path)
    everything(tail)
    change(path, text)
    os.utime(path, ns=(1, 1))  # a change within one tick of the clock is one too
    assert everything(tail) == (True, text.split())


def test_a_file_that_vanished_and_came_back_is_read_anew(tmp_path):
    path = tmp_path / "file"
    path.write_text("a\n")
    tail = Tail(path)
    everything(tail)
    path.unlink()
    assert everything(tail) == (True, [])
    assert everything(tail) == (False, [])
    path.write_text("b\n")
    assert everything(tail) == (False, ["b"])
