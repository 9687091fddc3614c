"""Small jobs for the tests of bulk captioning, and a captioner that says what colour an image is."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import random
import signal
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet
from PIL import Image

from forks import finished, forked
from limner.bulk.engine import Text
from limner.errors import Reject
from limner.types import Sample
from patience import until


@dataclass(frozen=True)
class Colours:
    """Names the colour of the first pixel: quick, and wrong captions show."""

    log: Path | None = None
    """Where the ids of every batch are written, one line a batch."""
    seconds: float = 0.0
    """How long a batch takes."""
    shaped: bool = False
    mixes: bool = False

    def tokens(self) -> tuple[int, int]:
        return 0, 0

    def write(self, samples: Sequence[Sample], prompt: str | None) -> list[Text | Reject]:
        if self.log is not None:
            line = json.dumps([sample.id for sample in samples]) + "\n"
            handle = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, line.encode())
            os.close(handle)
        time.sleep(self.seconds)
        return [Text(said(sample.image, prompt)) for sample in samples]


def said(image: Image.Image, prompt: str | None = None) -> str:
    """What `Colours` writes."""
    red, green, blue = image.getpixel((0, 0))
    return f"{prompt or ''}a picture of {red} {green} {blue}"


def image(number: int) -> Image.Image:
    """Each another colour."""
    return Image.new("RGB", (4 + number % 3, 4), (number % 256, number // 256, 7))


def photos(folder: Path, count: int, *, broken: Sequence[int] = ()) -> list[str]:
    """A folder of images, some of them broken; gives their names."""
    folder.mkdir(parents=True)
    names = [f"{number:05d}.png" for number in range(count)]
    for number, name in enumerate(names):
        if number in broken:
            (folder / name).write_bytes(b"\x89PNG\r\n\x1a\nno image")
        else:
            image(number).save(folder / name)
    return names


def content(number: int) -> bytes:
    file = io.BytesIO()
    image(number).save(file, "PNG")
    return file.getvalue()


def rows(path: Path) -> list[dict]:
    """The rows of a JSONL, CSV or parquet file; every line must be whole."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def samples(folder: Path) -> list[dict]:
    """The samples of all shards of a folder, in order, with their image's bytes under "file"."""
    found: dict[str, dict] = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                data = tar.extractfile(member).read()
                assert len(data) == member.size
                sample = found.setdefault(f"{shard.name}/{key}", {})
                assert suffix not in sample
                sample[suffix] = data
    return [
        {**json.loads(one["json"]), "text": one["txt"].decode(), "file": one["png"]} for one in found.values()
    ]


def kill_often(work: Callable[[], object], progress: Callable[[], int], *, times: int, total: int) -> int:
    """Kill `times` runs of a job at random moments, spread over its length, while it is not done.

    Args:
        work: the job; it goes on where it was stopped.
        progress: how many items are done.
        times: how many kills.
        total: how many items there are.

    Returns:
        How many runs were killed.
    """
    draw = random.Random(0)
    for kill in range(times):
        enough = progress() + draw.randrange(1 + (total - progress()) // (2 * (times - kill)))
        later = draw.uniform(0, 0.03)
        if finished(forked(work, dies=functools.partial(_reached, progress, enough, later))):
            return kill
    return times


def _reached(progress: Callable[[], int], enough: int, later: float) -> None:
    """Return a little after so many items are done."""
    until(lambda: progress() >= enough, every=0.003)
    time.sleep(later)


@dataclass(frozen=True)
class Deadly(Colours):
    """Kills its process: once at the first batch with an image of its name, always at a poisonous one."""

    once: str = ""
    always: str = ""
    marks: Path = Path()
    """Folder that remembers what happened once."""

    def write(self, samples: Sequence[Sample], prompt: str | None) -> list[Text | Reject]:
        ids = {sample.id for sample in samples}
        if self.always in ids or (self.once in ids and not (self.marks / "died").exists()):
            (self.marks / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(samples, prompt)


def make(kind: type[Colours], **settings: object) -> Colours:
    """An author, in whatever process."""
    return kind(**settings)
