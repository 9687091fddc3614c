"""A captioner that answers batches of requests, each as soon as its own captions are there."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from limner.answering.draw import number
from limner.captioners.base import Generated, Policy
from limner.captioners.stepwise import Stepwise
from limner.errors import Reject, UserError
from limner.serve.batching import Done, Failed, Job, Piece, Written
from limner.serve.metrics import Metrics
from limner.types import Sample

log = logging.getLogger("limner.serve")
UNFINISHED = "\ufffd"
"""What the first bytes of a letter of several bytes are decoded to, until the others are there."""


class _Stop(Exception):
    """Nobody waits for what is still being written."""


class Engine:
    """Runs one captioner; called from one thread at a time."""

    def __init__(self, policy: Policy, metrics: Metrics):
        """With a loaded captioner."""
        self.policy, self.metrics = policy.eval(), metrics
        tokenizer = policy.tokenizer
        special = sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        self.seconds = 0.1
        """How long a batch took lately."""

    def plain(self, text: str) -> str:
        """A text in which nothing looks like a special token: it could end the user's turn."""
        while (plain := self._special.sub(" ", text)) != text:
            text = plain
        return text

    def run(self, jobs: Sequence[Job]) -> None:
        """Answer jobs of one kind. One that makes the model fail does not touch the others."""
        began = time.perf_counter()
        self.metrics.batch.observe(sum(job.ask.captions for job in jobs))
        try:
            self._generate(jobs)
        except _Stop:
            pass
        except (UserError, Reject) as error:
            said = str(error).replace(self.policy.settings.path, "the captioner")  # it may be a folder here
            for job in jobs:
                if not job.answered:
                    job.send(Failed(said, 400))
        except Exception:
            if len(jobs) > 1:
                log.warning("a batch of %d requests failed; each is tried alone", len(jobs))
                for job in jobs:
                    if not job.cancelled and not job.answered:
                        self.run([job])
                return
            log.exception("a request made the captioner fail")
            jobs[0].send(Failed("the captioner failed on this request", 500))
        self.seconds += 0.2 * (time.perf_counter() - began - self.seconds)

    @torch.inference_mode()
    def _generate(self, jobs: Sequence[Job]) -> None:
        """Write captions for jobs of one kind.

        Raises:
            _Stop: all have their answers, or nobody waits for one.
        """
        first = jobs[0].ask
        samples = [Sample(f"request-{place}", job.ask.media) for place, job in enumerate(jobs)]
        inputs = self.policy.encode(samples, first.prompt)
        longest = max(job.ask.decoding.max_new_tokens for job in jobs)
        watched = _Watched(jobs, self.policy, self.metrics, self.policy.prompt_positions(inputs))
        seeds = [number(job.ask.seed, k) for job in jobs for k in range(first.captions)]
        made = self.policy.generate(
            inputs, replace(first.decoding, max_new_tokens=longest), captions=first.captions,
            generator=Stepwise(seeds, watched.see),
        )  # fmt: skip
        watched.finish(made)


class _Watched:
    """The captions of a batch while they grow: each request is answered when its last one has ended."""

    def __init__(self, jobs: Sequence[Job], policy: Policy, metrics: Metrics, positions: Sequence[int]):
        self._jobs, self._policy, self._metrics, self._positions = jobs, policy, metrics, positions
        self._captions = jobs[0].ask.captions
        rows = len(jobs) * self._captions
        self._tokens: list[list[int]] = [[] for _ in range(rows)]
        self._over, self._ended, self._sent = [False] * rows, [False] * rows, [""] * rows

    def see(self, rows: list[int], tokens: list[int], ended: list[bool]) -> None:
        """One step.

        Raises:
            _Stop: nothing is left to write for anybody.
        """
        for row, token, end in zip(rows, tokens, ended, strict=True):
            if self._over[row]:
                continue
            job = self._jobs[row // self._captions]
            self._tokens[row].append(token)
            self._ended[row] = end
            self._over[row] = end or len(self._tokens[row]) == job.ask.decoding.max_new_tokens
            if job.stream and not job.cancelled:
                self._show(job, row)
        for place in range(len(self._jobs)):
            self._answer(place)
        if all(job.answered or job.cancelled for job in self._jobs):
            raise _Stop

    def finish(self, made: Generated) -> None:
        """Answer what has no answer: captions that the language model's positions cut, or nobody watched."""
        for row, (tokens, mask) in enumerate(zip(made.tokens.cpu(), made.caption_mask.cpu(), strict=True)):
            if not self._over[row]:
                longest = self._jobs[row // self._captions].ask.decoding.max_new_tokens
                whole = tokens[mask].tolist()
                self._ended[row] = bool(made.ended[row]) and len(whole) <= longest
                self._tokens[row], self._over[row] = whole[:longest], True
        for place in range(len(self._jobs)):
            self._answer(place)

    def _answer(self, place: int) -> None:
        rows = range(place * self._captions, (place + 1) * self._captions)
        job = self._jobs[place]
        if job.answered or job.cancelled or not all(self._over[row] for row in rows):
            return
        captions = tuple(Written(self._text(row), len(self._tokens[row]), self._ended[row]) for row in rows)
        if job.stream:
            for index, row in enumerate(rows):
                self._send(job, index, row, captions[index].text)
        job.send(Done(captions, self._positions[place]))
        self._metrics.captions.inc(self._captions)
        self._metrics.tokens.inc(sum(caption.tokens for caption in captions))

    def _show(self, job: Job, row: int) -> None:
        """Send what was added, but for an unfinished letter at the end."""
        text = self._text(row)
        if not text.endswith(UNFINISHED):
            self._send(job, row % self._captions, row, text)

    def _send(self, job: Job, index: int, row: int, text: str) -> None:
        """Send what is new; a text that was changed in its middle cannot be taken back, and waits."""
        sent = self._sent[row]
        if len(text) > len(sent) and text.startswith(sent):
            job.send(Piece(index, text[len(sent) :]))
            self._sent[row] = text

    def _text(self, row: int) -> str:
        return str(self._policy.tokenizer.decode(self._tokens[row], skip_special_tokens=True)).strip()
