"""Captions by an OpenAI-compatible endpoint that is slow, talks rubbish, goes away, and is killed around."""

import json
import logging
import threading
from pathlib import Path

import openai  # noqa: F401 (here, so that forked processes need not import it)
import pytest

import bulk_jobs
from limner.bulk import endpoint, inputs
from limner.bulk.endpoint import EndpointAuthor
from limner.bulk.engine import Local
from limner.bulk.engines import Choice, Who, engine_of
from limner.bulk.job import run
from limner.caption import caption, output_of
from limner.client import Client, Endpoint
from limner.decoding import Decoding
from limner.errors import UserError
from server import ChatServer

GREEDY = Decoding(do_sample=False, max_new_tokens=8)


def answers(text="{last}", **step):
    return {"when": "", "steps": [{"answer": text, **step}]}


def through(server, given: Path, out: Path, *, batch=8, **options):
    """As the command does, with the name of each image in its prompt."""
    source = inputs.source(str(given))
    return caption(
        source, out, model=server.base_url, model_name="m", decoding=GREEDY, batch=batch,
        prompt="say {name}", **options,
    )  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    bulk_jobs.photos(tmp_path / "photos", 6)
    return tmp_path / "photos"


def test_one_request_an_image(photos, tmp_path):
    out = tmp_path / "captions.jsonl"
    with ChatServer(tmp_path / "server", [answers()]) as server:
        assert through(server, photos, out).written == 6
        (first, *rest) = server.requests()
    rows = {row["id"]: row["caption"] for row in bulk_jobs.rows(out)}
    assert rows == {f"0000{n}.png": f"say 0000{n}" for n in range(6)}
    assert len(rest) == 5
    picture, text = first["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert text["text"].startswith("say 0000")
    assert (first["temperature"], first["max_tokens"]) == (0.0, 8)


def test_a_row_may_bring_its_own_prompt_and_equal_images_asked_otherwise_are_no_twins(photos, tmp_path):
    rows = [{"id": str(n), "image": "photos/00000.png", "prompt": f"about {n % 2}"} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ChatServer(tmp_path / "server", [answers()]) as server:
        source = inputs.source(str(tmp_path / "rows.jsonl"))
        options = {"model": server.base_url, "model_name": "m", "decoding": GREEDY, "dedup": True}
        assert caption(source, tmp_path / "captions.jsonl", **options).written == 4
        assert len(server.requests()) == 2
    found = {row["id"]: row["caption"] for row in bulk_jobs.rows(tmp_path / "captions.jsonl")}
    assert found == {str(n): f"about {n % 2}" for n in range(4)}


def test_rubbish_is_named_rejected_and_asked_again_by_the_next_job(photos, tmp_path, caplog):
    out = tmp_path / "captions.jsonl"
    rubbish = {"when": "00003", "steps": [{"raw": "<html>oops</html>"}]}
    with ChatServer(tmp_path / "server", [rubbish, answers()]) as server:
        with caplog.at_level(logging.WARNING, "limner.bulk"):
            report = through(server, photos, out)
        assert (report.written, report.rejected) == (5, 1)
        (reject,) = bulk_jobs.rows(tmp_path / "rejects.jsonl")
        assert reject["id"] == "00003.png"
        assert reject["reason"].startswith("no caption: garbage: no JSON: <html>")
        assert "gives no caption of 00003.png: garbage" in caplog.text
        server.follow([answers()])
        assert through(server, photos, out).written == 1
    assert len(bulk_jobs.rows(out)) == 6
    assert bulk_jobs.rows(tmp_path / "rejects.jsonl") == []


def test_nothing_but_rubbish_ends_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "IN_VAIN", 5)
    bulk_jobs.photos(tmp_path / "photos", 12)
    with (
        ChatServer(tmp_path / "server", [answers(text="", raw="{}")]) as server,
        pytest.raises(UserError, match=r"no usable answer for any of 5 images(.|\n)*Go on with: limner"),
    ):
        through(server, tmp_path / "photos", tmp_path / "captions.jsonl", resume="limner")
    assert bulk_jobs.rows(tmp_path / "captions.jsonl") == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1"])
def test_an_address_where_nobody_ever_was_ends_the_job_soon(photos, tmp_path, monkeypatch, address):
    monkeypatch.setattr(endpoint, "FIRST_SECONDS", 0.3)
    options = {"model": address, "model_name": "m", "decoding": GREEDY, "resume": "limner caption again"}
    said = r"cannot be reached: .* Is the address right(.|\n)*Go on with: limner caption again"
    with pytest.raises(UserError, match=said):
        caption(inputs.source(str(photos)), tmp_path / "captions.jsonl", **options)


def test_a_server_that_is_still_starting_is_waited_for(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_SECONDS", 0.0)
    loading = [{"status": 503}, {"status": 503}, {"answer": "ready"}]
    with ChatServer(tmp_path / "server", [{"when": "", "steps": loading}]) as server:
        assert through(server, photos, tmp_path / "captions.jsonl", batch=1).written == 6


def test_a_job_that_ends_leaves_no_request_and_no_thread_behind(tmp_path):
    bulk_jobs.photos(tmp_path / "photos", 12)
    before = set(threading.enumerate())
    rules = [{"when": "00001", "steps": [{"status": 401}]}, answers(hang=True)]
    with ChatServer(tmp_path / "server", rules) as server:
        with pytest.raises(UserError, match="wants a key"):
            through(server, tmp_path / "photos", tmp_path / "captions.jsonl")
        asked = [json.dumps(body["messages"]) for body in server.requests()]
    assert len(asked) == len(set(asked)), "what was under way was not waited for until its time was out"
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not left & {"limner-client", "limner-bulk"}


def test_an_endpoint_that_goes_away_and_comes_back_is_waited_for(photos, tmp_path):
    with ChatServer(tmp_path / "server", [answers(delay=0.05)]) as server:
        back = server.away_for(1.0)
        assert through(server, photos, tmp_path / "captions.jsonl", batch=2).written == 6
        back.join()


def test_an_endpoint_that_stays_away_ends_the_job_and_what_is_written_stays(photos, tmp_path):
    out = tmp_path / "captions.jsonl"
    with ChatServer(tmp_path / "server", [answers()]) as server:
        through(server, photos / "00000.png", out)
        server.kill()
        asked = Client(Endpoint(base_url=server.base_url, model="m", patience_seconds=0.2, concurrency=2))
        engine = Local(EndpointAuthor(asked, GREEDY), 2, at_once=2)
        source = inputs.source(str(photos))
        output = output_of(out, source, column=None, overwrite=False, shard=1)
        with pytest.raises(UserError, match=r"Is the server running\?\n.*Go on with: limner caption"):
            run(source, output, lambda seen: engine, resume="limner caption")
    assert len(bulk_jobs.rows(out)) == 1


def test_settings_that_do_not_go_together():
    here = "http://localhost:1/v1"
    for model, who, choice, said in (
        (here, {}, {}, "--model-name is"),
        ("world:captioner", {"model_name": "m"}, {}, "--model-name is"),
        ("world:captioner", {"engine": "endpoint"}, {}, "wants an address"),
        (here, {"engine": "ray"}, {}, "wants a checkpoint"),
        ("world:captioner", {"workers": 2}, {}, "--workers are those of --engine ray"),
        ("world:captioner", {"engine": "ray", "dedup": True}, {}, "--dedup compares"),
        ("http://me:secret@localhost/v1", {"model_name": "m"}, {}, "user, password or query"),
        ("world:captioner", {}, {"candidates": 2}, "a search with 1 beams"),
        (here, {"model_name": "m"}, {"merge": here, "candidates": 2}, "--merge-name is"),
        (here, {"model_name": "m"}, {"merge": "x"}, "give --candidates 2"),
        (here, {"model_name": "m"}, {"merge_prompt": "x"}, "go with --merge"),
        (here, {"model_name": "m"}, {"merge": "x", "merge_prompt": "x", "candidates": 2}, "has to stand in"),
        (here, {"model_name": "m"}, {"rewards": {"x": 1}}, "rewards choose among candidates"),
    ):
        with pytest.raises(UserError, match=said) as raised:
            engine_of(Who(model=model, decoding=GREEDY, **who), Choice(**choice))
        assert "secret" not in str(raised.value)


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    names = bulk_jobs.photos(tmp_path / "photos", 240, broken=[5])
    out = tmp_path / "captions.jsonl"
    with ChatServer(tmp_path / "server", [answers(delay=0.02)]) as server:

        def work():
            return through(server, tmp_path / "photos", out, batch=4)

        def progress():
            return out.read_bytes().count(b"\n") if out.exists() else 0

        kills = bulk_jobs.kill_often(work, progress, times=20, total=240)
        assert kills >= 10, "too few kills met a running job"
        work()
        asked = [json.dumps(body["messages"]) for body in server.requests()]
    good = [name for n, name in enumerate(names) if n != 5]
    rows = bulk_jobs.rows(out)
    assert sorted(row["id"] for row in rows) == good
    assert all(row["caption"] == f"say {row['id'].removesuffix('.png')}" for row in rows)
    assert [row["id"] for row in bulk_jobs.rows(tmp_path / "rejects.jsonl")] == [names[5]]
    assert len(set(asked)) == len(good)
    assert len(asked) - len(good) <= kills * 4
