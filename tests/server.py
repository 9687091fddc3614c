"""A real OpenAI-compatible chat server, in a process of its own, that misbehaves as a test wants.

`ChatServer(rules)` starts it; a rule is a mapping:

    when:   text that the last message must hold ("" holds in all); the first rule that holds answers
    steps:  what is done at the first, second, ... request that the rule answers; the last one stays

and a step is a mapping with any of `together` (waits until so many requests are waiting so), `delay`
(seconds), `hang` (does not answer as long as the process lives), `status`, `headers`, `drop` (closes the
connection), `raw` (the body as it is), `refusal`, `finish_reason` and `answer`: a text, in which {seed},
{max_tokens}, {temperature} and {last} stand for what was asked, {inside} for how many requests are under way,
{number} for a number from 0 to 10 and {letter} for one of A to D that depend on the conversation. Without
rules everything is answered "A".
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from zlib import crc32

from patience import SECONDS, free_port, listening

Rule = Mapping[str, Any]
EVERYTHING: Sequence[Rule] = ({"when": "", "steps": [{"answer": "A"}]},)


class ChatServer:
    """The process; a context manager. `base_url` stays the same when it is killed and started again."""

    def __init__(self, folder: Path, rules: Sequence[Rule] = EVERYTHING, *, key: str | None = None):
        """Start it.

        Args:
            folder: for its files, made if there is none.
            rules: what it does.
            key: the only key it takes; None takes any.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._rules, self._log, self._key = folder / "rules.json", folder / "requests.jsonl", key
        self.follow(rules)
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.start()

    def follow(self, rules: Sequence[Rule]) -> None:
        """Other rules from now on."""
        beside = self._rules.with_suffix(".new")
        beside.write_text(json.dumps(list(rules)))
        beside.replace(self._rules)

    def start(self) -> None:
        command = [sys.executable, "-S", __file__, str(self.port), str(self._rules), str(self._log)]
        environment = {"SERVER_KEY": self._key or ""}
        self._process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        listening(self.port, self._process)

    def kill(self) -> None:
        """As the kernel does, in the middle of whatever it is at."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def away_for(self, seconds: float, *, then: Sequence[Rule] | None = None) -> threading.Timer:
        """Kill it now, and start it again after a while, with other rules; join what comes back."""
        self.kill()
        if then is not None:
            self.follow(then)
        timer = threading.Timer(seconds, self.start)
        timer.start()
        return timer

    def requests(self) -> list[dict[str, Any]]:
        """The bodies of the requests so far."""
        text = self._log.read_text() if self._log.exists() else ""
        return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]  # the last may come yet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    rules: Path
    used: Counter[str]
    log: Path
    lock = threading.Lock()
    inside = 0
    together: dict[int, threading.Barrier]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        wanted = os.environ["SERVER_KEY"]
        with self.lock, self.log.open("a") as file:
            file.write(json.dumps(body) + "\n")
        if wanted and self.headers["Authorization"] != f"Bearer {wanted}":
            said = f"Incorrect API key provided: {self.headers['Authorization']}"
            self.send(401, json.dumps({"error": {"message": said}}))
        elif body["model"] == "nobody":
            self.send(404, json.dumps({"error": {"message": "The model `nobody` does not exist."}}))
        else:
            with self.lock:
                Handler.inside += 1
            self.follow(self.step(_last(body)), body)

    def step(self, last: str) -> Mapping[str, Any]:
        """What is to be done now."""
        with self.lock:
            rules = json.loads(self.rules.read_text())
            rule = next(rule for rule in rules if rule["when"] in last)
            name = json.dumps(rule)
            self.used[name] += 1
            return rule["steps"][min(self.used[name], len(rule["steps"])) - 1]

    def follow(self, step: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        if "together" in step:
            with self.lock:
                barrier = self.together.setdefault(step["together"], threading.Barrier(step["together"]))
            barrier.wait(SECONDS)
        time.sleep(step.get("delay", 0))
        while step.get("hang"):
            time.sleep(SECONDS)
        with self.lock:
            inside, Handler.inside = Handler.inside, Handler.inside - 1
        if step.get("drop"):
            self.close_connection = True
            return
        status = step.get("status", 200)
        if "raw" in step or status != 200:
            said = step.get("raw", json.dumps({"error": {"message": f"this is a {status}"}}))
            self.send(status, said, step.get("headers", {}))
            return
        names = {name: body[name] for name in ("seed", "max_tokens", "temperature")}
        answer = step.get("answer")
        drawn = crc32(json.dumps(body["messages"]).encode())
        names |= {"last": _last(body), "number": drawn % 11, "letter": "ABCD"[drawn % 4], "inside": inside}
        text = answer if answer is None else answer.format(**names)
        message = {"role": "assistant", "content": text, "refusal": step.get("refusal")}
        choice = {"index": 0, "message": message, "finish_reason": step.get("finish_reason", "stop")}
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
        self.send(200, json.dumps({"id": "1", "choices": [choice], "usage": usage}))

    def send(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        content = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def _last(body: Mapping[str, Any]) -> str:
    """The text of the last message."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


if __name__ == "__main__":
    Handler.rules, Handler.log, Handler.used = Path(sys.argv[2]), Path(sys.argv[3]), Counter()
    Handler.together = {}
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
