"""The client of an endpoint, against a real server in another process."""

import asyncio
import threading
from pathlib import Path

import pytest

from limner import client_round
from limner.answering.base import Reply
from limner.client import Client, Endpoint
from limner.errors import UserError
from patience import SECONDS
from server import ChatServer

DECODING = {"max_new_tokens": 10, "temperature": 0.6, "seed": 3}
A = {"answer": "A"}
IN_FOURS = {"together": 4, "delay": 0.1, "answer": "{inside}"}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(client_round, "FIRST_PAUSE", 0.02)


def says(text):
    return [{"role": "user", "content": text}]


def endpoint(server, **settings):
    return Endpoint(**{"base_url": server.base_url, "model": "m", "timeout_seconds": SECONDS, **settings})


def test_answers_come_in_order_with_their_tokens(tmp_path: Path):
    rules = [{"when": "slow", "steps": [{"delay": 0.3, "answer": "late"}]}, echo()]
    with ChatServer(tmp_path, rules) as server:
        client = Client(endpoint(server))
        replies = client.ask([says("slow"), *(says(f"q{i}") for i in range(20))], **DECODING)
    assert [reply.text for reply in replies] == ["late", *(f"q{i} 3 10 0.6" for i in range(20))]
    assert replies[0] == Reply("late", "", 7, 2)
    assert client.counts == {
        "asked": 21, "cached": 0, "answered": 21, "prompt_tokens": 147, "completion_tokens": 42
    }  # fmt: skip


def echo():
    return {"when": "", "steps": [{"answer": "{last} {seed} {max_tokens} {temperature}"}]}


def test_no_more_requests_at_a_time_than_allowed(tmp_path: Path):
    with ChatServer(tmp_path, [{"when": "", "steps": [IN_FOURS]}]) as server:
        client = Client(endpoint(server, concurrency=4))
        replies = client.ask([says(f"q{i}") for i in range(8)], **DECODING)
    assert max(int(reply.text) for reply in replies) == 4
    assert client.counts["answered"] == 8


def test_equal_conversations_are_asked_once(tmp_path: Path):
    with ChatServer(tmp_path, [echo()]) as server:
        replies = Client(endpoint(server)).ask([says("a"), says("b"), says("a")], **DECODING)
        assert len(server.requests()) == 2
    assert replies[0] == replies[2]


def test_nothing_asked_asks_nothing(tmp_path: Path):
    unreachable = Endpoint(base_url="http://127.0.0.1:9/v1", model="m")
    assert Client(unreachable).ask([], **DECODING) == []


def test_it_works_inside_a_running_loop_and_from_threads(tmp_path: Path):
    with ChatServer(tmp_path, [echo()]) as server:
        client = Client(endpoint(server))

        async def notebook():
            return client.ask([says("a")], **DECODING)

        assert asyncio.run(notebook())[0].text == "a 3 10 0.6"
        found = []
        threads = [threading.Thread(target=lambda i=i: found.extend(client.ask([says(f"{i}")], **DECODING)))
                   for i in range(4)]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(reply.text for reply in found) == [f"{i} 3 10 0.6" for i in range(4)]


FAILURES = {
    "refusal": [{"refusal": "I cannot help with that."}],
    "refusal by a filter": [{"answer": "no", "finish_reason": "content_filter"}],
    "garbage": [{"raw": "<html>not JSON"}],
    "garbage of JSON": [{"raw": "[1, 2]"}],
    "garbage without choices": [{"raw": '{"error": {"message": "overloaded"}}'}],
    "empty": [{"raw": '{"choices": []}'}],
    "empty text": [{"answer": " "}],
    "empty content": [{"answer": None}],
    "server": [{"status": 500}],
    "time-out": [{"hang": True}],
    "bad request": [{"status": 400}],
    "bad request of its size": [{"status": 413}],
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_conversation_without_an_answer_touches_no_other(tmp_path: Path, name: str):
    kind = name.split(" of ")[0].split(" by ")[0].split(" without ")[0]
    kind = {"empty text": "empty", "empty content": "empty"}.get(kind, kind)
    # the last good answer comes after the first failure: it shows that the endpoint itself is well
    rules = [{"when": "bad", "steps": FAILURES[name]}, {"when": "", "steps": [{"delay": 0.4, "answer": "A"}]}]
    with ChatServer(tmp_path, rules) as server:
        settings = {"timeout_seconds": 1.5} if kind == "time-out" else {}
        client = Client(endpoint(server, tries=3, concurrency=2, patience_seconds=20.0, **settings))
        asking = [says("bad"), *(says(f"g{'o' * i}d") for i in range(5))]
        replies = client.ask(asking, **DECODING)
        asked = [row for row in server.requests() if "bad" in row["messages"][-1]["content"]]
    assert [reply.text for reply in replies] == [None, *"AAAAA"]
    assert replies[0].error.startswith(kind)
    assert client.counts["failed"] == client.counts[f"failed/{kind}"] == 1
    if "bad request" in kind:
        assert len(asked) == 1
    else:  # failures before the first answer of others are not held against it
        assert 3 <= len(asked) <= 200
        assert client.counts["retries"] >= len(asked) - 1
    if kind in ("refusal", "garbage", "empty"):
        assert [row["seed"] for row in asked] == [3, 4, 5]


@pytest.mark.parametrize(
    "first",
    [
        {"status": 500},
        {"status": 503},
        {"drop": True},
        {"raw": "half a {"},
        {"refusal": "no"},
        {"hang": True},
    ],
    ids=str,
)
def test_what_fails_once_is_asked_again(tmp_path: Path, first: dict):
    with ChatServer(tmp_path, [{"when": "", "steps": [first, A]}]) as server:
        client = Client(endpoint(server, timeout_seconds=1.0 if "hang" in first else SECONDS))
        assert client.ask([says("q")], **DECODING)[0].text == "A"
    # where time is short, a busy machine may let it pass again
    assert client.counts["retries"] == 1 or ("hang" in first and client.counts["retries"] > 1)
    assert client.counts["failed"] == 0


def test_retry_after_is_honoured(tmp_path: Path, monkeypatch):
    pauses, pause = [], client_round.Round._pause
    monkeypatch.setattr(client_round.Round, "_pause", lambda *told: pauses.append(pause(*told)) or pauses[-1])
    busy = {"status": 429, "headers": {"Retry-After": "1"}}
    with ChatServer(tmp_path, [{"when": "", "steps": [busy, A]}]) as server:
        assert Client(endpoint(server)).ask([says("q")], **DECODING)[0].text == "A"
    assert pauses == [1.0]


def test_a_setting_that_every_conversation_is_refused_for_stops_the_run(tmp_path: Path):
    with ChatServer(tmp_path, [{"when": "", "steps": [{"status": 400}]}]) as server:
        client = Client(endpoint(server))
        assert client.ask([says("q")], **DECODING)[0].error == "bad request: HTTP 400: this is a 400"
        with pytest.raises(UserError, match="refuses every one of 4 conversations: bad request: HTTP 400"):
            client.ask([says(f"q{i}") for i in range(4)], **DECODING)


def test_an_unknown_model_stops_the_run_at_once(tmp_path: Path):
    with ChatServer(tmp_path) as server:
        client = Client(endpoint(server, model="nobody"))
        with pytest.raises(UserError, match=r"has no model 'nobody'.*/v1/models"):
            client.ask([says(f"q{i}") for i in range(9)], **DECODING)


def test_an_answer_may_come_in_parts_and_a_schema_is_sent(tmp_path: Path):
    parts = '{"choices": [{"message": {"content": [{"type": "text", "text": "A"}]}}]}'
    schema = {"type": "object", "properties": {"score": {"type": "number"}}}
    with ChatServer(tmp_path, [{"when": "", "steps": [{"raw": parts}]}]) as server:
        client = Client(endpoint(server, extra={"top_k": 1}))
        assert client.ask([says("q")], **DECODING, schema=schema)[0] == Reply("A")
        (sent,) = server.requests()
    assert sent["response_format"]["json_schema"]["schema"] == schema
    assert sent["top_k"] == 1


@pytest.mark.parametrize("step", [
    {"raw": "<html>you sent sk-hunter2"}, {"raw": '["sk-hunter2"]'}, {"refusal": "I know sk-hunter2"},
    {"status": 400, "raw": '{"error": {"message": "not with sk-hunter2"}}'},
])  # fmt: skip
def test_a_server_that_repeats_the_key_is_not_quoted_with_it(tmp_path: Path, monkeypatch, step: dict):
    monkeypatch.setenv("SOME_KEY", "sk-hunter2")
    rules = [{"when": "bad", "steps": [step]}, {"when": "", "steps": [{"answer": "A"}]}]
    with ChatServer(tmp_path, rules, key="sk-hunter2") as server:
        client = Client(endpoint(server, key_env="SOME_KEY", tries=1))
        replies = client.ask([says("bad"), says("good")], **DECODING)
    assert [reply.text for reply in replies] == [None, "A"]
    assert "hunter2" not in replies[0].error
    assert "***" in replies[0].error


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_url": "localhost:8000"}, "must be like http://"),
        ({"base_url": "http://me:hunter2@host/v1"}, "key_env"),
        ({"base_url": "http://host/v1?key=hunter2"}, "key_env"),
        ({"key_env": "sk-hunter2"}, "never the key itself"),
        ({"key_env": "hf_hunter2"}, "never the key itself"),
        ({"extra": {"api_key": "hunter2"}}, "extra holds 'api_key'.*key_env"),
        ({"extra": {"a": [{"Authorization": "Bearer hunter2"}]}}, "extra holds 'Authorization'"),
    ],
)
def test_addresses_and_names_of_keys_are_checked(settings: dict, said: str):
    with pytest.raises(ValueError, match=said) as caught:
        Endpoint(**{"base_url": "http://host/v1", "model": "m", **settings})
    assert "hunter2" not in str(caught.value)
