"""An endpoint that is away: restarted in the middle of a run, or gone for good."""

import asyncio
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from limner import client, client_round
from limner.client import Client, Endpoint
from limner.errors import UserError
from limner.questions import Question
from limner.rewards import judge, qa_accuracy
from limner.rewards.base import plain
from limner.types import Sample
from patience import SECONDS, until
from server import ChatServer

HANGS = [{"when": "", "steps": [{"hang": True}]}]
DECODING = {"max_new_tokens": 10, "temperature": 0.0, "seed": 0}
AWAY_SECONDS = 2.0
"""Stands for the 30 s of a server that loads its model: the client knows no length but its patience."""


def questions(count):
    return [[{"role": "user", "content": f"q{i}"}] for i in range(count)]


def test_a_server_that_is_killed_and_started_again_costs_time_and_no_answer(tmp_path: Path, caplog):
    echo = {"answer": "{last}"}
    with ChatServer(tmp_path, [{"when": "", "steps": [*[echo] * 20, {"hang": True}]}]) as server:
        where = Endpoint(base_url=server.base_url, model="m", concurrency=8, patience_seconds=SECONDS)
        client, replies = Client(where), []
        asking = threading.Thread(target=lambda: replies.extend(client.ask(questions(80), **DECODING)))
        asking.start()
        until(lambda: len(server.requests()) == 28)  # 20 that were answered, 8 that are under way
        restart = server.away_for(AWAY_SECONDS, then=[{"when": "", "steps": [echo]}])
        asking.join()
        restart.join()
    assert [reply.text for reply in replies] == [f"q{i}" for i in range(80)]
    assert client.counts["failed"] == 0
    assert client.counts["retries"] >= 8
    said = [record.getMessage() for record in caplog.records if record.name == "limner.client"]
    assert "does not answer" in said[0]
    assert "answers again" in said[1]
    assert len(said) == 2, "an outage is told of once, not once a request"


def test_an_endpoint_that_stays_away_stops_the_run_with_one_message(monkeypatch):
    monkeypatch.setattr(client_round, "FIRST_PAUSE", 0.02)
    client = Client(
        Endpoint(base_url="http://127.0.0.1:9/v1", model="m", patience_seconds=0.5, concurrency=2)
    )
    with pytest.raises(UserError, match=r"answered nothing for 0.5 s \(patience_seconds\): connection: "):
        client.ask(questions(20), **DECODING)
    assert client.counts["failed/connection"] == 20
    # After pauses of 0.01 s and more, each twice the last, half a second has passed at the seventh try: so
    # often each of the two that are asked first is asked again, and the others not at all.
    assert client.counts["retries"] <= 2 * 7, "the patience is one for all conversations"


@pytest.mark.parametrize("asker", [judge.Reward, qa_accuracy.Reward])
def test_a_mistyped_address_stops_a_run_at_its_first_question(monkeypatch, asker):
    """Not after the patience that a server gets which was there: its death costs time."""
    monkeypatch.setattr(client, "FIRST_SECONDS", 0.3)
    captioner = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32)
    score = asker(endpoint=Endpoint(base_url="http://127.0.0.1:9/v1", model="m")).load(captioner)
    question = Question("what colour is the car", ("red", "blue"), 0)
    samples = [Sample("a", (Image.new("RGB", (8, 8)),), extra={"questions": (question,)})]
    with pytest.raises(UserError, match=r"127.0.0.1:9/v1 cannot be reached: .* Is the address right\?"):
        score(plain(["a red car"], samples=samples))


def test_answers_before_it_went_for_good_are_kept(tmp_path: Path):
    rules = [{"when": "q1", "steps": [{"status": 503}]}, {"when": "", "steps": [{"answer": "A"}]}]
    with ChatServer(tmp_path, rules) as server:
        client = Client(Endpoint(base_url=server.base_url, model="m", patience_seconds=0.5, concurrency=1))
        replies = client.ask(questions(2), **DECODING)
    assert [reply.text for reply in replies] == ["A", None]
    assert replies[1].error == "server: HTTP 503: this is a 503"


def test_an_interrupt_ends_the_requests_under_way(tmp_path: Path):
    before = set(threading.enumerate())
    with ChatServer(tmp_path, HANGS) as server:
        client = Client(Endpoint(base_url=server.base_url, model="m", timeout_seconds=SECONDS))

        def interrupt() -> None:
            until(lambda: len(server.requests()) == 4)
            os.kill(os.getpid(), signal.SIGINT)

        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            client.ask(questions(4), **DECODING)
        interrupting.join()
        assert client.counts["retries"] == 0, "ended, not waited for"
    assert not [each for each in set(threading.enumerate()) - before if each.name == "limner-client"]


def test_another_thread_ends_the_requests_under_way(tmp_path: Path):
    raised: list[BaseException] = []
    with ChatServer(tmp_path, HANGS) as server:
        client = Client(Endpoint(base_url=server.base_url, model="m", timeout_seconds=10 * SECONDS))

        def ask() -> None:
            try:
                client.ask(questions(4), **DECODING)
            except BaseException as error:
                raised.append(error)

        asking = threading.Thread(target=ask)
        client_round.end(asking)  # asks nothing yet
        asking.start()
        until(lambda: len(server.requests()) == 4)
        client_round.end(asking)
        asking.join(SECONDS)
        assert not asking.is_alive()
    assert isinstance(raised[0], asyncio.CancelledError)
