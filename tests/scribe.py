"""A writer of captions without a model, for tests of what is around one: slow, broken or stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from limner.serve.batching import Done, Failed, Job, Piece, Written
from patience import SECONDS


class Scribe:
    """Says how many pictures it was shown, of which size and with which prompt, word by word."""

    def __init__(self, *, seconds: float = 0.0):
        """Takes so long for a batch."""
        self.seconds = seconds
        self.batches: list[int] = []
        self.go = threading.Event()
        """Nothing is written before it is set."""
        self.go.set()
        self.fails = False

    def plain(self, text: str) -> str:
        return text.replace("</s>", " ")

    def run(self, jobs: Sequence[Job]) -> None:
        self.batches.append(len(jobs))
        self.go.wait(SECONDS)
        time.sleep(self.seconds)
        for job in jobs:
            if self.fails:
                job.send(Failed("the captioner failed on this request", 500))
                continue
            ask = job.ask
            sizes = " ".join(f"{image.width}x{image.height}" for image in ask.media)
            text = f"{len(ask.media)} shown {sizes} after {ask.prompt}"
            captions = tuple(Written(text, len(text.split()), ended=True) for _ in range(ask.captions))
            if job.stream:
                for index in range(ask.captions):
                    for word in text.split(" "):
                        job.send(Piece(index, word if word == text.split(" ")[0] else f" {word}"))
            job.send(Done(captions, prompt_tokens=3))
