"""Whatever is sent, by schemathesis from the service's own OpenAPI or by hand: never answered with a 500."""

from __future__ import annotations

import gc
import logging
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis import Case, GenerationMode

import nasty_files
import served
from limner.serve.app import PATHS
from limner.serve.house import House
from limner.serve.metrics import Metrics
from limner.serve.settings import Limits, Service
from patience import SECONDS
from scribe import Scribe

CHAT = "/v1/chat/completions"
EXAMPLES = 50


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    limits = Limits(body_bytes=500_000, pixels=1_000_000, video_seconds=10, seconds=SECONDS)
    with served.running(House(Service("m", limits=limits), Scribe(), Metrics())) as url:
        yield url


def refused(answer: httpx.Response) -> None:
    """An error of the asker's, in OpenAI's form."""
    assert 400 <= answer.status_code < 500, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("path", "mode"),
    [
        (CHAT, GenerationMode.NEGATIVE),
        *((path, GenerationMode.POSITIVE) for path in (*PATHS, "/v1/models/{name}")),
    ],
)
def test_requests_that_schemathesis_makes_up(url: str, path: str, mode: GenerationMode) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    operation = schemathesis.openapi.from_dict(document)[path]["POST" if path == CHAT else "GET"]
    documented = {
        int(status) for status in document["paths"][path]["post" if path == CHAT else "get"]["responses"]
    }

    @settings(
        max_examples=EXAMPLES if path == CHAT else 5,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Case) -> None:
        answer = case.call(base_url=url)
        assert answer.status_code in documented
        if answer.status_code != 200:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    one()


def malformed(folder: Path) -> list[bytes]:
    """Files that are no pictures, and a picture with bytes changed at random."""
    names = nasty_files.broken(folder)
    contents = [(folder / name).read_bytes() for name in names if (folder / name).is_file()]
    draw = random.Random(0)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        whole = nasty_files.encoded(nasty_files.photograph().resize((24, 24)), kind)
        for _ in range(8):
            scratched = bytearray(whole)
            for _ in range(3):
                scratched[draw.randrange(len(whole))] = draw.randrange(256)
            contents.append(bytes(scratched))
    return contents


def test_malformed_pictures_are_the_asker_s_fault(url: str, tmp_path: Path) -> None:
    contents = malformed(tmp_path / "broken")
    refusals = 0
    with httpx.Client(base_url=url, timeout=SECONDS) as client:
        for content in contents:
            asked = {"model": "m", "messages": served.messages(served.encoded(content, "image/png"))}
            answer = client.post(CHAT, json=asked)
            if answer.status_code != 200:  # some scratches leave a picture
                refused(answer)
                refusals += 1
    assert refusals > 20


@pytest.mark.slow
def test_many_bad_requests_take_no_memory(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "uvicorn.access")  # pytest keeps what is logged
    contents = malformed(tmp_path / "broken")
    texts = [b"", b"{", b'{"model": 1}', b"[" * 1000, b" " * 600_000]
    bodies = [
        {"model": "m", "messages": served.messages(served.encoded(content, "image/png"))}
        for content in contents
    ]

    def send(client: httpx.Client, count: int) -> None:
        for place in range(count):
            if place % 3:
                answer = client.post(CHAT, json=bodies[place % len(bodies)])
            else:
                text = texts[place // 3 % len(texts)]
                answer = client.post(CHAT, content=text, headers={"Content-Type": "application/json"})
            assert answer.status_code < 500

    with httpx.Client(base_url=url, timeout=SECONDS) as client:
        send(client, 300)
        tracemalloc.start()
        try:
            before = held()
            send(client, 600)
            after = held()
        finally:
            tracemalloc.stop()
    assert after[0] <= before[0]
    # What is kept of every request may be some hundred bytes; bodies alone would be 120 MB.
    assert after[1] - before[1] < 600 * 500


def held() -> tuple[int, int]:
    """Pictures in this process, in which the server is too, and bytes that Python keeps from now on."""
    gc.collect()
    pictures = sum(issubclass(type(each), Image.Image) for each in gc.get_objects())
    return pictures, tracemalloc.get_traced_memory()[0]
