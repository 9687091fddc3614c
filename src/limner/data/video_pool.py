"""Processes that decode videos, one for each thread that asks, started when the first video comes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from PIL import Image

from limner.data import video_cache
from limner.data.video_worker import READY, Answer, Request, receive, send
from limner.errors import Reject, UserError
from limner.types import Sample

MAX_SECONDS = 300.0
"""A video that takes longer to decode is given up: its decoder hangs."""
_ROOT = str(Path(__file__).parents[2])
_START = f"import sys; sys.path.append({_ROOT!r}); from limner.data.video_worker import main; main()"


class _Process:
    """One process. It shares nothing with this one: no lock, no thread, no memory, no interrupt."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, process_group=0,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        self.ready = False

    def ask(self, request: Request, *, seconds: float) -> tuple[Image.Image, ...]:
        """The frames of a video.

        Raises:
            Reject: it cannot be used.
            UserError: the frame cache cannot be written.
            EOFError: the process died of it, or was ended because it took too long.
        """
        ending = threading.Timer(seconds, self._process.kill)
        ending.daemon = True
        ending.start()
        try:
            if not self.ready:
                self.ready = self._answers.read(len(READY)) == READY
            send(self._requests, request)
            answer = receive(self._answers)
            assert isinstance(answer, Answer)
            images = [self._image(*size) for size in answer.sizes]
        except OSError as error:  # a pipe without another end
            raise EOFError from error
        finally:
            ending.cancel()
        if answer.defect:
            raise RuntimeError(f"a video decoder failed on {request.video.path}:\n{answer.defect}")
        if answer.mistaken:
            raise UserError(answer.mistaken)
        if answer.rejected:
            raise Reject(answer.rejected)
        return tuple(images[place] for place in answer.order)

    def _image(self, width: int, height: int) -> Image.Image:
        pixels = self._answers.read(width * height * 3)
        if len(pixels) < width * height * 3:
            raise EOFError
        return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it now; whoever waits for it gets an EOFError."""
        self._process.kill()

    def end(self) -> str:
        """Wait for its end and say what it died of. Nobody may be using it."""
        self._process.kill()
        self._answers.close()
        with contextlib.suppress(OSError):  # what was not sent yet
            self._requests.close()
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class Decoders:
    """Decodes videos in processes; may be asked from several threads, and starts one process for each."""

    def __init__(self, *, max_seconds: float = MAX_SECONDS):
        """Start nothing yet."""
        self._seconds = max_seconds
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._closed = False

    def load(self, sample: Sample, *, epoch: int = 0) -> Sample:
        """As `limner.data.video.load`, in a process of its own.

        Raises:
            Reject: the video cannot be used; it made the decoder crash; or the pool is closed.
            UserError: the frame cache cannot be written.
        """
        if sample.video is None or sample.media:
            return sample
        cached = video_cache.read(sample.video)
        if cached is not None:
            return dataclasses.replace(sample, media=cached.images)
        images = self._decode(Request(sample.video, sample.id, epoch))
        return dataclasses.replace(sample, media=images)

    def _decode(self, request: Request) -> tuple[Image.Image, ...]:
        process = self._take()
        dead = True
        try:
            images = process.ask(request, seconds=self._seconds)
            dead = False
            return images
        except (Reject, UserError):
            dead = False
            raise
        except EOFError:
            started = process.ready
        finally:
            died_of = self._put_back(process, dead=dead)
        if self._closed:
            raise Reject("not decoded: reading was stopped")
        if not started:
            raise RuntimeError(
                f"no process that decodes videos can be started ({died_of}): see its message above"
            )
        raise Reject(f"the decoder died of it or took more than {self._seconds:g} s ({died_of})")

    def _take(self) -> _Process:
        with self._lock:
            if self._closed:
                raise Reject("not decoded: reading was stopped")
            while self._idle:
                process = self._idle.pop()
                if process.alive:
                    break
                process.end()  # ended by someone else, while it had nothing to do
            else:
                process = _Process()
            self._busy.add(process)
            return process

    def _put_back(self, process: _Process, *, dead: bool) -> str:
        """Keep a process for the next video; end one that died, or that comes back after closing."""
        with self._lock:
            self._busy.discard(process)
            if not dead and not self._closed:
                self._idle.append(process)
                return ""
        return process.end()

    def close(self) -> None:
        """End all processes now; videos that are being decoded are rejected."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for process in self._busy:
                process.kill()
        for process in idle:
            process.end()
