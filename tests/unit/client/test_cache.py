"""Answers kept on disk: found again, never wrong, and a damaged file is a miss."""

import sqlite3
from pathlib import Path

import pytest

from limner import client_cache
from limner.answering.base import Reply
from limner.client import Client, Endpoint
from limner.client_cache import NAME, Cache, key_of
from limner.errors import UserError
from server import ChatServer

DECODING = {"max_new_tokens": 10, "temperature": 0.6, "seed": 3}
RULES = [{"when": "", "steps": [{"answer": "{last} {seed} {max_tokens} {temperature}"}]}]


def says(text):
    return [{"role": "user", "content": text}]


def test_a_second_client_asks_nothing(tmp_path: Path):
    with ChatServer(tmp_path / "server", RULES) as server:
        where = Endpoint(base_url=server.base_url, model="m", cache=str(tmp_path / "cache"))
        first = Client(where).ask([says("a"), says("b")], **DECODING)
    again = Client(where)  # the server is gone
    assert again.ask([says("b"), says("a")], **DECODING) == first[::-1]
    assert again.counts == {"asked": 2, "cached": 2, "answered": 2}


def test_whatever_decides_an_answer_is_part_of_its_name(tmp_path: Path):
    with ChatServer(tmp_path / "server", RULES) as server:
        settings = {"base_url": server.base_url, "model": "m", "cache": str(tmp_path / "cache")}
        for changed in ({}, {"max_new_tokens": 11}, {"temperature": 0.5}, {"seed": 4}, {"schema": {}}):
            Client(Endpoint(**settings)).ask([says("a")], **{**DECODING, **changed})
        Client(Endpoint(**{**settings, "model": "n"})).ask([says("a")], **DECODING)
        Client(Endpoint(**{**settings, "extra": {"top_k": 1}})).ask([says("a")], **DECODING)
        assert len(server.requests()) == 7
    assert key_of("http://a/v1", {}) != key_of("http://b/v1", {})


def test_a_failure_is_not_kept(tmp_path: Path):
    rules = [{"when": "", "steps": [{"status": 400}, {"answer": "A"}]}]
    with ChatServer(tmp_path / "server", rules) as server:
        client = Client(Endpoint(base_url=server.base_url, model="m", cache=str(tmp_path / "cache")))
        assert [client.ask([says("a")], **DECODING)[0].text for _ in range(3)] == [None, "A", "A"]
        assert len(server.requests()) == 2


def damaged_files(path: Path):
    whole = path.read_bytes()
    yield whole[: len(whole) // 2]
    yield b"torn"
    yield whole[:4096] + bytes(len(whole) - 4096)
    yield bytes(value ^ 0xFF for value in whole)


def test_a_damaged_file_is_a_miss_and_is_begun_anew(tmp_path: Path):
    keys = [f"key {i}" for i in range(300)]
    for place in range(4):
        cache = Cache(tmp_path / str(place))
        for key in keys:
            cache.put(key, Reply(f"the answer to {key}"))
        cache.flush()
        assert len(cache.get(keys)) == 300
        damage = list(damaged_files(cache.path))[place]
        cache.path.write_bytes(damage)
        cache = Cache(tmp_path / str(place))
        found = cache.get(keys)
        assert all(reply.text == f"the answer to {key}" for key, reply in found.items())
        assert len(found) < 300
        cache.put("new", Reply("kept"))
        cache.flush()
        assert Cache(tmp_path / str(place)).get(["new"]) == {"new": Reply("kept")}
        assert cache.path.with_name(NAME + ".damaged").read_bytes() == damage


def test_a_damaged_row_is_a_miss(tmp_path: Path):
    cache = Cache(tmp_path)
    cache.put("a", Reply("A"))
    cache.put("b", Reply("B"))
    cache.flush()
    file = sqlite3.connect(cache.path)
    file.execute("""UPDATE answers SET reply = '["C", 0, 0]' WHERE key = 'a'""")
    file.commit()
    file.close()
    assert cache.get(["a", "b"]) == {"b": Reply("B")}


def test_a_locked_file_costs_answers_and_not_the_run(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(client_cache, "LOCK_SECONDS", 0.05)
    cache = Cache(tmp_path)
    other = sqlite3.connect(cache.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    cache.put("a", Reply("A"))
    cache.flush()
    assert cache.get(["a"]) == {}
    other.close()
    assert "locked" in caplog.text
    cache.put("a", Reply("A"))
    cache.flush()
    assert cache.get(["a"]) == {"a": Reply("A")}


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to"):
        Cache(tmp_path / "file" / "below")
