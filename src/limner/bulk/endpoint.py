"""Captions by a model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import base64
import io
import logging
import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from limner.answering.base import Conversation, Reply
from limner.bulk.choose import Draft
from limner.bulk.engine import ASKED, Text
from limner.bulk.judge import TextJudge
from limner.client import FIRST_SECONDS, Client, Endpoint
from limner.decoding import Decoding
from limner.errors import Reject, UserError
from limner.types import Sample

PROMPT = "Please describe this image in detail."
"""What is asked where nothing else is said."""
AT_ONCE = 4
"""Batches under way at a time: while the slowest answer of one is waited for, the others go on."""
IN_VAIN = 50
"""So many images without one usable answer at the beginning end the job: something is set wrong."""
_NAMED = 3
"""Failures of one kind that are named in the log; the others stand in the rejects."""
_log = logging.getLogger("limner.bulk")


def client(address: str, *, model: str, key_env: str | None, requests: int, decoding: Decoding) -> Client:
    """The endpoint, asked by `AT_ONCE` batches together.

    Raises:
        UserError: it cannot be asked so.
    """
    extra = {} if decoding.top_p == 1 else {"top_p": decoding.top_p}
    try:
        endpoint = Endpoint(
            base_url=address, model=model, key_env=key_env, extra=extra,
            concurrency=max(1, requests // AT_ONCE),
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"--model: {error}") from error
    return Client(endpoint, first_seconds=FIRST_SECONDS)


@dataclass
class EndpointAuthor:
    """A captioner somewhere else. What has no usable answer is rejected, and tried again by the next job."""

    client: Client
    """The endpoint."""
    decoding: Decoding
    """Temperature, top_p and length; a search is greedy there."""
    failures: Counter[str] = field(default_factory=Counter[str])
    """How many images have no answer, by kind."""
    answered: int = 0
    """How many have one."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Batches are written by several threads."""
    judge: TextJudge | None = None
    """What says how good a candidate is; nothing does if None."""

    @property
    def shaped(self) -> bool:
        """The endpoint makes batches of its own."""
        return False

    @property
    def mixes(self) -> bool:
        """Each image has a request of its own."""
        return True

    def tokens(self) -> tuple[int, int]:
        """(read, written) tokens of all answers so far."""
        return self.client.counts["prompt_tokens"], self.client.counts["completion_tokens"]

    def write(self, samples: Sequence[Sample], prompt: str | None) -> Sequence[Text | Reject]:
        """One request an image.

        Raises:
            UserError: the endpoint is away for too long, wants another key, or answers nothing usable.
        """
        replies = self.ask(samples, prompt)
        return [
            Reject(f"no caption: {reply.error}") if reply.text is None else Text(reply.text.strip())
            for reply in replies
        ]

    def drafts(
        self, samples: Sequence[Sample], prompt: str | None, *, count: int, seed: int
    ) -> Sequence[Sequence[Draft] | Reject]:
        """One request a candidate; an image without one of its candidates has none, and says why."""
        rows = [self.ask(samples, prompt, seed=seed + draw) for draw in range(count)]
        return [self._drafts(sample, [row[place] for row in rows]) for place, sample in enumerate(samples)]

    def _drafts(self, sample: Sample, replies: Sequence[Reply]) -> Sequence[Draft] | Reject:
        texts = [reply.text.strip() for reply in replies if reply.text is not None]
        if len(texts) < len(replies):
            error = next(reply.error for reply in replies if reply.text is None)
            return Reject(f"no caption: {error}")
        if self.judge is None:
            return [Draft(text, math.nan) for text in texts]
        with self.lock:
            scores = self.judge([sample], texts)
        return [Draft(text, score) for text, score in zip(texts, scores, strict=True)]

    def ask(self, samples: Sequence[Sample], prompt: str | None, *, seed: int = 0) -> Sequence[Reply]:
        """The endpoint's replies."""
        replies = self.client.ask(
            [shown(sample, str(prompt or sample.extra.get(ASKED) or PROMPT)) for sample in samples],
            max_new_tokens=self.decoding.max_new_tokens,
            temperature=self.decoding.temperature if self.decoding.do_sample else 0.0,
            seed=seed,
        )
        with self.lock:
            for sample, reply in zip(samples, replies, strict=True):
                self._count(sample, reply)
        return replies

    def _count(self, sample: Sample, reply: Reply) -> None:
        if reply.text is not None:
            self.answered += 1
            return
        kind = reply.error.partition(":")[0]
        self.failures[kind] += 1
        address = self.client.endpoint.base_url
        if self.failures[kind] <= _NAMED:
            _log.warning("%s gives no caption of %s: %s", address, sample.id, reply.error)
        if not self.answered and self.failures.total() >= IN_VAIN:
            raise UserError(
                f"{address}: no usable answer for any of {IN_VAIN} images: {reply.error}. Is it a model "
                "that sees images?"
            )


def shown(sample: Sample, prompt: str) -> Conversation:
    """A request with all pictures of a sample, and the prompt behind them."""
    urls = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in sample.media]
    return [{"role": "user", "content": [*urls, {"type": "text", "text": prompt}]}]


def data_url(image: Image.Image) -> str:
    """The picture as JPEG, or as PNG where it is so small that every pixel counts."""
    buffer = io.BytesIO()
    kind = "PNG" if max(image.size) < 256 else "JPEG"
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
