"""What batching across requests brings: 16 clients at the same time against one request after another.

`python benchmarks/serve_batching.py [--clients 16] [--requests 160] [--turns 3]`. One `limner serve` of the
miniature captioner; greedy captions of the same pictures, sent over HTTP from this process. The two ways are
measured in turns, so that other work on the machine touches both; the ratio of the medians is what to quote.
The answers of both ways are compared.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from limner.world import scenes

MODEL = "world:captioner"


def body(number: int) -> bytes:
    """A request for the caption of one picture."""
    file = io.BytesIO()
    scenes.picture(0, number, "test").save(file, format="PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    asked = {"model": MODEL, "messages": [{"role": "user", "content": content}], "temperature": 0}
    return json.dumps(asked).encode()


def caption(connection: http.client.HTTPConnection, content: bytes) -> str:
    """Ask for it, on a connection that stays open as those of OpenAI's clients do."""
    connection.request("POST", "/v1/chat/completions", content, {"Content-Type": "application/json"})
    with connection.getresponse() as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def started(port: int, threads: int, wait_ms: float) -> subprocess.Popen[bytes]:
    """A server that answers."""
    command = [sys.executable, "-m", "limner", "serve", MODEL, "--port", str(port), "--device", "cpu"]
    command += ["--max-wait-ms", str(wait_ms)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return process
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit("the server did not start")


def measure(port: int, bodies: list[bytes], clients: int) -> tuple[float, list[str]]:
    """Requests a second, and the captions."""
    mine = threading.local()

    def connect() -> None:
        mine.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    began = time.perf_counter()
    with ThreadPoolExecutor(clients, initializer=connect) as pool:
        captions = list(pool.map(lambda content: caption(mine.connection, content), bodies))
    return len(bodies) / (time.perf_counter() - began), captions


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of the server's torch")
    parser.add_argument("--wait-ms", type=float, default=20.0, help="of the server: its --max-wait-ms")
    given = parser.parse_args()
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    bodies = [body(number) for number in range(given.requests)]
    process = started(port, given.threads, given.wait_ms)
    try:
        measure(port, bodies[: given.clients], given.clients)  # warms both ways up
        rates: dict[int, list[float]] = {1: [], given.clients: []}
        for _ in range(given.turns):
            found = {}
            for clients in rates:
                rate, found[clients] = measure(port, bodies, clients)
                rates[clients].append(rate)
            if found[1] != found[given.clients]:
                raise SystemExit("the two ways gave different captions")
    finally:
        process.terminate()
        process.wait()
    medians = {clients: statistics.median(values) for clients, values in rates.items()}
    for clients, values in rates.items():
        listed = ", ".join(f"{value:.1f}" for value in values)
        print(f"{clients:>3} clients: {medians[clients]:7.1f} requests/s (median of {listed})")
    print(f"ratio {medians[given.clients] / medians[1]:.2f}")


if __name__ == "__main__":
    main()
