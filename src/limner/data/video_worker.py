"""A process that decodes videos for another: it answers each request on its standard input.

It runs apart so that a decoder that crashes, hangs or takes all memory costs one video and not a run, and
it imports no torch. It ends when its standard input does.

A request and the head of an answer are pickled, after their length in 8 bytes; the pixels of an answer's
images follow as they are.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from dataclasses import dataclass
from typing import IO

from limner.data.video import Video, decode
from limner.errors import Reject, UserError

READY = b"limner"
"""What a process says when it is ready."""
LENGTH = 8
"""Bytes of the length before a message."""


@dataclass(frozen=True)
class Request:
    """A video that is wanted."""

    video: Video
    id: str
    epoch: int


@dataclass(frozen=True)
class Answer:
    """What became of it."""

    sizes: tuple[tuple[int, int], ...] = ()
    """Width and height of the images that follow, 3 bytes a pixel."""
    order: tuple[int, ...] = ()
    """Which of them is each frame: repeated frames are sent once."""
    rejected: str = ""
    """Why the video cannot be used."""
    mistaken: str = ""
    """What the user has to mend."""
    defect: str = ""
    """The traceback of anything else."""


def send(file: IO[bytes], message: Request | Answer, *images: bytes) -> None:
    """Write a message and what follows it."""
    content = pickle.dumps(message)
    file.write(len(content).to_bytes(LENGTH, "little") + content)
    for image in images:
        file.write(image)
    file.flush()


def receive(file: IO[bytes]) -> object:
    """Read a message.

    Raises:
        EOFError: the other side is gone.
    """
    head = file.read(LENGTH)
    length = int.from_bytes(head, "little")
    content = file.read(length) if len(head) == LENGTH else b""
    if len(content) < length or len(head) < LENGTH:
        raise EOFError
    return pickle.loads(content)


def answer(request: Request) -> tuple[Answer, list[bytes]]:
    """Decode a video, whatever happens."""
    try:
        decoded = decode(request.video, id=request.id, epoch=request.epoch)
    except Reject as reject:
        return Answer(rejected=reject.reason), []
    except UserError as error:
        return Answer(mistaken=str(error)), []
    except Exception:
        return Answer(defect=traceback.format_exc()), []
    places = sorted(set(decoded.places))
    images = dict(zip(decoded.places, decoded.images, strict=True))
    order = tuple(places.index(place) for place in decoded.places)
    return Answer(tuple(images[place].size for place in places), order), [
        images[place].tobytes() for place in places
    ]


def main() -> None:
    """Answer until there is nobody to answer."""
    requests = sys.stdin.buffer
    # What a library prints would be taken for an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    answers.write(READY)
    answers.flush()
    try:
        while True:
            request = receive(requests)
            assert isinstance(request, Request)
            message, images = answer(request)
            send(answers, message, *images)
    except (EOFError, BrokenPipeError):
        os._exit(0)  # what is left in a buffer has nobody to go to
