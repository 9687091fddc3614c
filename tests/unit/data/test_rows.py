import json
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.data.rejects import RejectLog
from limner.data.rows import GrowingRows, line_of
from limner.errors import UserError
from patience import until


def rows_in(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_are_appended_and_found_again(tmp_path):
    path = tmp_path / "new" / "folder" / "rows.jsonl"
    first = GrowingRows(path, ("id", "caption"))
    first.append([{"id": "a", "caption": "one"}, {"id": "b", "caption": "two", "image": "b.png"}])
    second = GrowingRows(path, ("id", "caption"))
    assert second.existing == [{"id": "a", "caption": "one"}, {"id": "b", "caption": "two", "image": "b.png"}]
    second.append([{"id": "c", "caption": "three"}])
    assert [row["id"] for row in rows_in(path)] == ["a", "b", "c"]


@given(cut=st.integers(0, 200))
def test_a_file_cut_anywhere_loses_at_most_the_torn_row(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [{"id": f"photo {number} é", "caption": "a dog\nand a cat"} for number in range(3)]
    content = "".join(map(line_of, rows)).encode()[:cut]
    path.write_bytes(content)
    whole = content.count(b"\n")
    again = GrowingRows(path, ("id", "caption"))
    assert again.existing == rows[:whole]
    again.append(rows[whole:])
    assert rows_in(path) == rows


@pytest.mark.parametrize(
    "content",
    [
        b"my precious diary\n",
        b"no newline at all",
        b'{"id": "a", "caption": "one"}\nmy notes\n',
        b'{"id": "a", "caption": "one"}\nmy notes',
        b'{"id": 1, "caption": "one"}\n',
        b'{"id": "a"}\n',
        b"[1]\n",
        b"\xff\xd8\xff\xe0\n\n",
    ],
)
def test_a_file_with_something_else_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "diary.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"diary\.jsonl: line \d is no row with id and caption"):
        GrowingRows(path, ("id", "caption"))
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "rows.jsonl"):
        with pytest.raises(UserError, match="cannot be written"):
            GrowingRows(path, ("id",))


def test_a_full_disk_is_the_users_to_mend(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = GrowingRows(path, ("id",))
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"rows\.jsonl: cannot be written \(No space left on device\)"):
        rows.append([{"id": "a"}])


@given(st.text())
def test_any_text_survives(text):
    line = line_of({"id": text})
    assert line.count("\n") == 1
    assert json.loads(line.encode()) == {"id": text}


@given(st.text())
def test_lone_surrogates_survive(text):
    line = line_of({"id": text + "\udce9"})
    assert json.loads(line.encode("utf-8")) == {"id": text + "\udce9"}


def test_readable_text_stays_readable():
    assert line_of({"id": "café"}) == '{"id": "café"}\n'


def test_rejects_are_counted_and_written_once(tmp_path):
    path = tmp_path / "rejects.jsonl"
    log = RejectLog(path)
    assert not path.exists()
    for id, reason in [("a", "empty file"), ("b", "truncated"), ("a", "empty file"), ("c", "empty file")]:
        log.add(id, reason)
    again = RejectLog(path)
    again.add("b", "truncated")
    again.add("d", "truncated")
    assert again.count == 4
    assert again.reasons == {"empty file": 2, "truncated": 2}
    assert [row["id"] for row in rows_in(path)] == ["a", "b", "c", "d"]


def test_mended_files_are_forgotten(tmp_path):
    log = RejectLog(tmp_path / "rejects.jsonl")
    for id in "abc":
        log.add(id, "empty file")
    log.forget({"b", "x"})
    log.add("d", "truncated")
    assert log.count == 3
    assert [row["id"] for row in rows_in(log.path)] == ["a", "c", "d"]


def test_a_killed_writer_leaves_whole_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    code = (
        "import sys; from pathlib import Path; from limner.data.rows import GrowingRows\n"
        "rows = GrowingRows(Path(sys.argv[1]), ('id',))\n"
        "for number in range(10**9): rows.append([{'id': str(number)}])"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, path])
    until(lambda: path.exists() and path.stat().st_size > 10_000)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    again = GrowingRows(path, ("id",))
    assert [row["id"] for row in again.existing] == [str(number) for number in range(len(again.existing))]
