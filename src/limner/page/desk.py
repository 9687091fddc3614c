"""From what somebody puts on the page to looks: files are opened, decoding checked, the captioner asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from PIL import Image

from limner.data import media, video
from limner.data.named import source
from limner.data.usable import usable
from limner.decoding import Decoding
from limner.errors import Reject, UserError
from limner.page.results import Studied
from limner.page.show import Look, Trouble, address
from limner.page.studio import Study
from limner.serve.batching import Job
from limner.serve.house import House, late
from limner.serve.problems import Problem, refused
from limner.serve.wire import GREEDY_BELOW
from limner.types import Sample

GALLERY = 12
"""Pictures to choose from."""
MOST_BEAMS = 8
"""Beams that may be asked for."""
_VIDEOS = frozenset(video.SUFFIXES) - frozenset(media.SUFFIXES)


@dataclass(frozen=True)
class Wanted:
    """How captions are to be written, as the sliders say."""

    temperature: float = 0.0
    """0 takes the likeliest token at every step."""
    top_p: float = 1.0
    """Draws among the fewest tokens that hold this much probability."""
    max_tokens: int = 60
    """The longest caption."""
    beams: int = 1
    """Above 1 it is a search, and nothing is drawn."""
    captions: int = 1
    """How many each captioner writes."""
    seed: int = 0
    """Of the draws."""
    prompt: str = ""
    """Text before the caption; the captioner's own where empty."""


@dataclass(frozen=True)
class Subject:
    """Something to look at."""

    name: str
    """What it is called."""
    images: tuple[Image.Image, ...]
    """A picture, or frames in order of time."""
    references: tuple[str, ...] = ()
    """What people say of it."""
    extra: Mapping[str, object] = field(default_factory=dict[str, object])
    """What else a reward may ask for."""


class Desk:
    """Where looks are asked for; everything goes through the service's house, its limits and its queue."""

    def __init__(self, house: House, gallery: Sequence[Subject]):
        """With what can be chosen from."""
        self.house, self.gallery = house, gallery

    async def files(self, paths: Sequence[str], wanted: Wanted) -> tuple[list[Look], list[Trouble]]:
        """Look at uploaded files. One that cannot be used does not touch the others."""
        limit = self.house.service.limits.images
        if len(paths) > limit:
            return [], [Trouble("", f"At most {limit} files at a time; there are {len(paths)}.")]
        loop = asyncio.get_running_loop()
        opening = (loop.run_in_executor(None, self._opened, Path(path)) for path in paths)
        opened = await asyncio.gather(*opening)
        looks, troubles = await self.looks([each for each in opened if isinstance(each, Subject)], wanted)
        return looks, [*(each for each in opened if isinstance(each, Trouble)), *troubles]

    async def looks(self, subjects: Sequence[Subject], wanted: Wanted) -> tuple[list[Look], list[Trouble]]:
        """Look at pictures; those of one size of batch go through the captioners together."""
        try:
            study = self._study(wanted)
        except Problem as problem:
            return [], [Trouble("", _sentence(problem.message))]
        found = await asyncio.gather(*(self._look(subject, study) for subject in subjects))
        looks = [each for each in found if isinstance(each, Look)]
        return looks, [each for each in found if isinstance(each, Trouble)]

    async def _look(self, subject: Subject, study: Study) -> Look | Trouble:
        try:
            leave = self.house.enter()
        except Problem as problem:
            return Trouble(subject.name, _sentence(problem.message))
        ask = replace(study, media=subject.images, references=subject.references, extra=subject.extra)
        try:
            async with asyncio.timeout(self.house.service.limits.seconds):
                done = await self.house.first(Job(ask))
        except TimeoutError:
            return Trouble(subject.name, _sentence(late(self.house.service).message))
        except Problem as problem:
            return Trouble(subject.name, _sentence(problem.message))
        finally:
            leave()
        assert isinstance(done, Studied), "a look is answered as one"
        return Look(subject.name, *address(subject.images), len(subject.images), done.sides)

    def _opened(self, path: Path) -> Subject | Trouble:
        """An uploaded file within the service's limits."""
        limit = self.house.service.limits.body_bytes
        try:
            if path.stat().st_size > limit:
                raise Reject(f"more than {limit:,} bytes")
            images = self.house.opener.opened(path.read_bytes(), video=path.suffix.lower() in _VIDEOS)
        except (Reject, OSError) as error:
            return Trouble(path.name, f"cannot be used: {error}.")
        return Subject(path.name, tuple(images))

    def _study(self, wanted: Wanted) -> Study:
        """A look without its picture.

        Raises:
            Problem: more is wanted than the limits allow.
        """
        limits = self.house.service.limits
        if wanted.max_tokens > limits.tokens:
            raise refused(f"at most {limits.tokens} tokens")
        if wanted.captions > limits.captions:
            raise refused(f"at most {limits.captions} captions")
        if len(wanted.prompt) > limits.prompt_characters:
            raise refused(f"a prompt of at most {limits.prompt_characters} characters")
        if wanted.beams > MOST_BEAMS:
            raise refused(f"at most {MOST_BEAMS} beams")
        greedy = wanted.beams > 1 or wanted.temperature < GREEDY_BELOW
        if greedy and wanted.captions > wanted.beams:
            raise refused(
                f"{wanted.captions} different captions need a temperature above 0, or as many beams"
            )
        try:
            decoding = Decoding(
                do_sample=not greedy,
                temperature=1.0 if greedy else wanted.temperature,
                top_p=1.0 if greedy else wanted.top_p,
                num_beams=wanted.beams,
                max_new_tokens=wanted.max_tokens,
            )
        except ValueError as error:
            raise refused(str(error)) from None
        prompt = self.house.prompt(wanted.prompt)
        return Study((), prompt, decoding, wanted.captions, 0 if greedy else wanted.seed)


def gallery(data: str) -> tuple[Subject, ...]:
    """The first pictures or videos of a data source that can be used.

    Raises:
        UserError: there is no such source, or nothing in it can be used.
    """
    found = tuple(_subjects(islice(usable(source(data), GALLERY, allow_missing=True), GALLERY)))
    if not found:
        raise UserError(f"--gallery {data}: nothing in it can be used")
    return found


def _subjects(samples: Iterator[Sample]) -> Iterator[Subject]:
    for sample in samples:
        yield Subject(sample.id, sample.media, sample.references, sample.extra)


def _sentence(message: str) -> str:
    return f"{message[:1].upper()}{message[1:].rstrip('.')}."
