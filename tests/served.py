"""A service of the miniature captioner, started for a test: in this process, or as `limner serve`."""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image

from limner.serve.house import House
from limner.serve.server import settings
from limner.world import scenes
from patience import SECONDS, free_port, until


def data_url(image: Image.Image, kind: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, format=kind)
    return encoded(file.getvalue(), f"image/{kind.lower()}")


def encoded(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(number: int = 0) -> Image.Image:
    return scenes.picture(0, number, "test")


def messages(*urls: str, text: str = "") -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    parts += [{"type": "text", "text": text}] * bool(text)
    return [{"role": "user", "content": parts}]


def body(number: int = 0, **more: Any) -> dict[str, Any]:
    return {"model": "world:captioner", "messages": messages(data_url(picture(number))), **more}


@contextmanager
def running(house: House) -> Iterator[str]:
    """The address of a real uvicorn in a thread of this process."""
    server = uvicorn.Server(settings(house, host="127.0.0.1", port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def answers(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when a server gives what is at an address; it says in the log why it does not."""

    def answered() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=SECONDS).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    until(answered, every=0.1, otherwise=log.read_text)


class Process:
    """`limner serve` in a process of its own; a context manager."""

    def __init__(self, folder: Path, *options: str, environment: dict[str, str] | None = None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        command = [sys.executable, "-m", "limner", "serve", "world:captioner", *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--device", "cpu"], stdout=log, stderr=log,
                env={**os.environ, **(environment or {})},
            )  # fmt: skip

    def wait(self) -> None:
        """Until it answers."""
        answers(self.process, f"{self.url}/health", self.log)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def __enter__(self) -> Process:
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def deltas(lines: Sequence[str]) -> list[str]:
    """The data of a stream of events."""
    return [line.removeprefix("data: ") for line in lines if line]
