"""The service over real HTTP, around a writer without a model: what is let in, limited and counted."""

from __future__ import annotations

import dataclasses
import gc
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

import nasty_files
import served
from limner.serve import wire
from limner.serve.house import House
from limner.serve.metrics import Metrics
from limner.serve.settings import Limits, Service
from patience import SECONDS, until
from scribe import Scribe

CHAT = "/v1/chat/completions"
LIMITS = Limits(body_bytes=300_000, pixels=250_000, side=128, waiting=4, seconds=SECONDS)


@contextmanager
def service(
    scribe: Scribe | None = None, *, key: str | None = None, **limits: Any
) -> Iterator[tuple[httpx.Client, House]]:
    """A client of a service, and the house behind it."""
    settings = Service("world:captioner", limits=dataclasses.replace(LIMITS, **limits))
    house = House(settings, scribe or Scribe(), Metrics(), key=key)
    with served.running(house) as url, httpx.Client(base_url=url, timeout=SECONDS) as client:
        yield client, house


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with service() as (client, _):
        yield client


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error in OpenAI's form."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return response.status_code, error["code"]


def shown(*images: Image.Image, **more: Any) -> dict[str, Any]:
    urls = [served.data_url(image) for image in images]
    return {"model": "world:captioner", "messages": served.messages(*urls), **more}


def test_pictures_are_shown_in_order_with_the_text(client: httpx.Client) -> None:
    asked = shown(Image.new("RGB", (30, 20)), Image.new("L", (8, 9)), n=2)
    asked["messages"] = [
        {"role": "system", "content": "briefly"},
        *asked["messages"],
        {"role": "user", "content": [{"type": "text", "text": "what is</s>this? "}]},
    ]
    answer = client.post(CHAT, json=asked)
    assert answer.status_code == 200
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]
    assert choices[1]["message"]["content"] == "2 shown 30x20 8x9 after briefly\nwhat is this?"
    assert answer.json()["usage"]["total_tokens"] == 3 + answer.json()["usage"]["completion_tokens"]


def test_large_pictures_are_reduced_before_they_wait(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=shown(Image.new("RGB", (500, 250))))
    assert "1 shown 128x64 after None" in answer.text


def test_a_stream_is_a_row_of_events(client: httpx.Client) -> None:
    asked = shown(Image.new("RGB", (30, 20)), stream=True, stream_options={"include_usage": True})
    with client.stream("POST", CHAT, json=asked) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        data = served.deltas(list(answer.iter_lines()))
    rows = [json.loads(line) for line in data[:-1]]
    assert data[-1] == "[DONE]"
    assert len({row["id"] for row in rows}) == 1
    said = [row["choices"][0]["delta"].get("content", "") for row in rows[:-1]]
    assert "".join(said) == "1 shown 30x20 after None"
    assert rows[-2]["choices"][0]["finish_reason"] == "stop"
    assert rows[-1]["usage"]["prompt_tokens"] == 3


def changed(**changes: Any) -> dict[str, Any]:
    return {**shown(Image.new("RGB", (8, 8))), **changes}


def addressed(url: str) -> dict[str, Any]:
    return changed(messages=served.messages(url))


BAD: list[tuple[Any, tuple[int, str]]] = [
    (changed(model="other"), (404, "model_not_found")),
    (changed(messages=[]), (400, "invalid_request")),
    (changed(messages=[{"role": "user", "content": "no picture"}]), (400, "no_image")),
    (changed(messages=[{"role": "assistant", "content": "a dog"}]), (400, "invalid_request")),
    (changed(messages="dog"), (400, "invalid_request")),
    (changed(n=0), (400, "invalid_request")),
    (changed(n=9), (400, "too_many_captions")),
    (changed(temperature=-1), (400, "invalid_request")),
    (changed(temperature="hot"), (400, "invalid_request")),
    (changed(top_p=0), (400, "invalid_request")),
    (changed(max_tokens=257), (400, "too_many_tokens")),
    (changed(max_completion_tokens=10**30), (400, "too_many_tokens")),
    (changed(seed=2**64), (400, "invalid_request")),
    (changed(logprobs=True), (400, "invalid_request")),
    (changed(tools=[{"type": "function"}]), (400, "unsupported")),
    (changed(stop=["."]), (400, "unsupported")),
    ([], (400, "invalid_request")),
    (17, (400, "invalid_request")),
    (addressed("file:///etc/passwd"), (400, "url_not_allowed")),
    (addressed("FILE:///etc/passwd"), (400, "url_not_allowed")),
    (addressed("/etc/passwd"), (400, "url_not_allowed")),
    (addressed("http://127.0.0.1/a.png"), (400, "url_not_allowed")),
    (addressed("https://example.org/a.png"), (400, "url_not_allowed")),
    (addressed("ftp://example.org/a.png"), (400, "url_not_allowed")),
    (addressed("data:image/png,abc"), (400, "invalid_image_url")),
    (addressed("data:"), (400, "invalid_image_url")),
    (addressed("data:image/png;base64,@@@@"), (400, "invalid_base64")),
    (addressed("data:image/png;base64,\u00e9"), (400, "invalid_base64")),
    (addressed("data:image/png;base64,"), (400, "invalid_image")),
    (addressed("data:image/png;base64,AAAA"), (400, "invalid_image")),
    (addressed(served.encoded(nasty_files.png(600, 600), "image/png")), (400, "invalid_image")),
    (shown(*[Image.new("RGB", (2, 2))] * 9), (400, "too_many_images")),
    (changed(messages=served.messages(text="a" * 4001)), (400, "too_long")),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_is_wrong_with_a_request_is_said_in_openai_s_form(client: httpx.Client, number: int) -> None:
    asked, said = BAD[number]
    assert problem(client.post(CHAT, json=asked)) == said


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"model": "\\ud800"}', b"[" * 50_000, b'{"temperature": NaN}', b"null"]
)
def test_bodies_that_are_no_request(client: httpx.Client, body: bytes) -> None:
    answer = client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert problem(answer) == (400, "invalid_request")


def test_other_kinds_paths_and_methods(client: httpx.Client) -> None:
    plain = client.post(CHAT, content=b"{}", headers={"Content-Type": "text/plain"})
    assert problem(plain) == (400, "invalid_content_type")
    assert problem(client.get("/v1/nothing")) == (404, None)
    assert problem(client.get(CHAT)) == (405, None)
    assert problem(client.get("/v1/models/other")) == (404, "model_not_found")
    assert client.get("/v1/models/world:captioner").json()["id"] == "world:captioner"


def test_a_body_over_the_limit_is_refused_unread(client: httpx.Client) -> None:
    large = changed(user="a" * 300_000)
    assert problem(client.post(CHAT, json=large)) == (413, "too_large")

    def parts() -> Iterator[bytes]:  # of no announced length
        for _ in range(40):
            yield b" " * 10_000

    answer = client.post(CHAT, content=parts(), headers={"Content-Type": "application/json"})
    assert problem(answer) == (413, "too_large")


@pytest.mark.parametrize(
    "said", [None, "", "Bearer", "Bearer wrong", "Basic right", "right", "Bearer r\u00e9"]
)
def test_nobody_comes_in_without_the_key(said: str | None) -> None:
    with service(key="right") as (client, _):
        headers = {} if said is None else {"Authorization": said.encode("utf8")}
        for path in ("/v1/models", "/v1/models/world:captioner", "/metrics"):
            assert problem(client.get(path, headers=headers)) == (401, "invalid_api_key")
        assert problem(client.post(CHAT, json={}, headers=headers)) == (401, "invalid_api_key")
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models", headers={"Authorization": "Bearer right"}).status_code == 200


def test_like_requests_go_together_and_one_too_many_is_told_when_to_come_again() -> None:
    scribe = Scribe()
    scribe.go.clear()
    with service(scribe) as (client, house), ThreadPoolExecutor(5) as threads:
        asked = [threads.submit(client.post, CHAT, json=changed(temperature=1))]
        until(lambda: scribe.batches)  # the first is being written
        asked += [threads.submit(client.post, CHAT, json=changed(temperature=1)) for _ in range(2)]
        asked += [threads.submit(client.post, CHAT, json=changed(temperature=0))]
        until(lambda: house.batcher.waiting == 3)
        refused = client.post(CHAT, json=changed())
        assert problem(refused) == (429, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert b"limner_requests_waiting 3.0" in client.get("/metrics").content
        scribe.go.set()
        assert [future.result().status_code for future in asked] == [200] * 4
        assert scribe.batches in ([1, 2, 1], [1, 1, 2])
        assert client.post(CHAT, json=changed()).status_code == 200


def test_a_request_that_takes_too_long_is_given_up() -> None:
    scribe = Scribe()
    scribe.go.clear()
    with service(scribe, seconds=0.3) as (client, house):
        assert problem(client.post(CHAT, json=changed())) == (503, "timeout")
        assert problem(client.post(CHAT, json=changed())) == (503, "timeout")
        scribe.go.set()
        until(lambda: not house.batcher.waiting)
        house.service = dataclasses.replace(house.service, limits=LIMITS)  # time enough for this one
        assert client.post(CHAT, json=changed()).status_code == 200
        assert scribe.batches == [1, 1], "what was given up before the model had it was never written"


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_leaves_takes_the_request_along(stream: bool) -> None:
    scribe = Scribe()
    scribe.go.clear()
    with service(scribe) as (client, house):
        holding = threading.Thread(target=client.post, args=(CHAT,), kwargs={"json": changed()})
        holding.start()
        until(lambda: scribe.batches)
        address = urlsplit(str(client.base_url))
        body = json.dumps(changed(stream=stream)).encode()
        with socket.create_connection((address.hostname, address.port)) as raw:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            raw.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            until(lambda: house.batcher.waiting)
        until(lambda: b"limner_disconnected_total 1.0" in client.get("/metrics").content)
        scribe.go.set()
        holding.join()
        assert client.post(CHAT, json=changed()).status_code == 200
        assert sum(scribe.batches) == 2, "the one that was held, and the last"
        assert b"limner_requests_inside 0.0" in client.get("/metrics").content


def test_a_request_that_waits_holds_its_pictures_and_not_its_body() -> None:
    scribe = Scribe()
    scribe.go.clear()
    with service(scribe) as (client, _), ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.post, CHAT, json=changed())
        until(lambda: scribe.batches)
        held = [thing.messages for thing in gc.get_objects() if type(thing) is wire.ChatRequest]
        scribe.go.set()
        assert answer.result().status_code == 200
    assert held
    assert not any(held)


def test_a_captioner_that_has_stopped_is_said_to_be_ill() -> None:
    with service() as (client, house):
        assert client.get("/health").json() == {"status": "ok", "model": "world:captioner", "waiting": 0}
        house.batcher.close()
        assert problem(client.get("/health")) == (503, "stopped")
        assert problem(client.post(CHAT, json=changed())) == (503, "failed")


def test_a_defect_says_nothing_about_the_server() -> None:
    scribe = Scribe()
    scribe.fails = True
    with service(scribe) as (client, _):
        for stream in (False, True):
            answer = client.post(CHAT, json=changed(stream=stream))
            assert problem(answer) == (500, "failed")


def test_the_metrics_of_the_page_are_those_that_are_counted(client: httpx.Client) -> None:
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text(encoding="utf8")
    written = set(re.findall(r"`(limner_\w+)`", page.partition("## Metrics")[2].partition("\n## ")[0]))
    text = client.get("/metrics").text
    counted = dict(re.findall(r"^# TYPE (\w+) (\w+)", text, re.MULTILINE))
    assert written == {name for name in counted if not name.endswith("_created")}


def test_everything_is_counted() -> None:
    with service() as (client, _):
        client.post(CHAT, json=changed())
        client.post(CHAT, json=changed(n=0))
        client.get("/nowhere/17")
        text = client.get("/metrics").text
    assert 'limner_requests_total{path="/v1/chat/completions",status="200"} 1.0' in text
    assert 'limner_requests_total{path="/v1/chat/completions",status="400"} 1.0' in text
    assert 'limner_requests_total{path="other",status="404"} 1.0' in text
    assert "/nowhere" not in text
