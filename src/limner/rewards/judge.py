"""A grade by a model behind an OpenAI-compatible endpoint, after a rubric.

Judges are hacked: CapRL (arXiv 2509.22647) reports captions that grow too short, or that praise themselves.
Use it beside rewards that can be checked and `self_praise`, and read the captions. Equal captions of one
image get one grade.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Ge
from PIL import Image

from limner.answering.base import Conversation, Reply
from limner.client import Client, Endpoint
from limner.errors import UserError
from limner.rewards import base
from limner.types import Mean, Part, Rollouts, Sample

if TYPE_CHECKING:
    from limner.captioners.base import Policy
    from limner.data.base import Source

_PLACES = re.compile(r"\{(caption|references|max)\}")
_AGAIN_AT = 0.7
"""Temperature at which an unreadable grade is asked for again: the same would come again at 0."""
_QUALITY = 92
"""Of the JPEG files that are sent."""


@dataclass(frozen=True, kw_only=True)
class Reward(base.LoadedReward):
    """A grade from 0 to 1 that a model at an endpoint gives the caption after a rubric."""

    endpoint: Endpoint
    """The judge."""
    rubric: str | None = None
    """Text file of what is asked, with {caption}, and where wanted {max} and {references}; null takes
    limner's own, which is about the image."""
    max_score: Annotated[int, Ge(1)] = 10
    """The best grade; the reward is the grade divided by it."""
    see_image: bool = True
    """Whether the judge is shown the image. One that is not, nor references, can only believe the caption."""
    images: Annotated[int, Ge(1)] = 8
    """Of a video at most so many frames, evenly spaced."""
    max_side: Annotated[int, Ge(16)] = 1024
    """Images are shown with their longer side reduced to so many pixels."""
    temperature: Annotated[float, Ge(0)] = 0.0
    """Of the judge."""
    max_new_tokens: Annotated[int, Ge(1)] = 256
    """The longest answer."""
    tries: Annotated[int, Ge(1)] = 3
    """How often a grade is asked for that cannot be read."""
    json_schema: bool = True
    """Whether the endpoint is told to hold the model to the form of the answer; false for one that cannot."""
    seed: int = 0
    """Of the endpoint's sampling."""

    def load(self, captioner: Policy, data: Source | None = None) -> Callable[[Rollouts], Part]:
        """Read the rubric, find the key.

        Raises:
            UserError: the rubric cannot be read or lacks {caption}, or the endpoint has no key.
        """
        return Judge(self, rubric_of(self.rubric), Client(self.endpoint))


def rubric_of(path: str | None) -> str:
    """The text of a rubric.

    Raises:
        UserError: it cannot be read, or has {caption} not once.
    """
    if path is None:
        file = resources.files("limner.rewards").joinpath("rubrics", "default.txt")
        return file.read_text(encoding="utf-8")
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"judge: rubric: {path}: cannot be read ({error})") from error
    if _PLACES.findall(text).count("caption") != 1:
        raise UserError(f"judge: rubric: {path}: must hold {{caption}} once, where the caption goes")
    return text


@dataclass(frozen=True)
class Grade:
    """What the judge said of one caption."""

    value: float = float("nan")
    """From 0 to 1; NaN where there is no grade."""
    score: float | None = None
    """As it was given."""
    reason: str = ""
    """The judge's sentence."""
    error: str = ""
    """Why there is no grade."""
    tokens: int = 0
    """Tokens read and written for it."""

    def shown(self) -> dict[str, object]:
        """For the report."""
        return (
            {"score": self.score, "reason": self.reason} if self.score is not None else {"error": self.error}
        )


@dataclass(frozen=True)
class Judge:
    """A judge that can be asked."""

    settings: Reward
    """How to ask."""
    rubric: str
    """What to ask."""
    client: Client
    """Whom to ask."""

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N,) grades from 0 to 1; NaN where there is none. The details hold the judge's reasons."""
        shown = [self._images(sample) for sample in rollouts.samples]
        asked: dict[int, Conversation] = {}
        grades: dict[int, Grade] = {}
        for row, text in enumerate(rollouts.texts):
            sample = rollouts.sample(row)
            if "{references}" in self.rubric and not sample.references:
                grades[row] = Grade(error="the rubric wants references, and the sample has none")
            else:
                asked[row] = self._conversation(text, sample, shown[row // rollouts.captions])
        grades |= self._grades(asked)
        ordered = [grades[row] for row in range(len(rollouts.texts))]
        values = torch.tensor([grade.value for grade in ordered])
        metrics = {
            "answered": Mean.of((~values.isnan()).float()),
            "tokens": Mean.of([float(grade.tokens) for grade in ordered]),
        }
        return Part(values, tuple(grade.shown() for grade in ordered), metrics)

    def _grades(self, asked: Mapping[int, Conversation]) -> dict[int, Grade]:
        """By row; what cannot be read is asked for again."""
        settings, grades, left = self.settings, dict[int, Grade](), list(asked)
        for attempt in range(settings.tries):
            temperature = settings.temperature if attempt == 0 else max(settings.temperature, _AGAIN_AT)
            replies = self.client.ask(
                [asked[row] for row in left],
                max_new_tokens=settings.max_new_tokens, temperature=temperature, seed=settings.seed + attempt,
                schema=_schema(settings.max_score) if settings.json_schema else None,
            )  # fmt: skip
            for row, reply in zip(left, replies, strict=True):
                grades[row] = _grade(reply, settings.max_score, grades.get(row, Grade()).tokens)
            # whoever gave no answer at all was asked again by the client
            left = [
                row for row, reply in zip(left, replies, strict=True)
                if reply.text is not None and grades[row].score is None
            ]  # fmt: skip
            if not left:
                break
        return grades

    def _conversation(self, caption: str, sample: Sample, images: Sequence[str]) -> Conversation:
        """One message: the images, then the rubric."""
        most, references = str(self.settings.max_score), "\n".join(sample.references)
        parts = {"caption": caption, "max": most, "references": references}
        text = _PLACES.sub(lambda match: parts[match[1]], self.rubric)
        if not images:
            return [{"role": "user", "content": text}]
        content = [{"type": "image_url", "image_url": {"url": url}} for url in images]
        return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]

    def _images(self, sample: Sample) -> list[str]:
        """Data URLs of what the judge is shown of a sample."""
        if not self.settings.see_image:
            return []
        count, most = len(sample.media), self.settings.images
        chosen = range(count) if count <= most else [place * count // most for place in range(most)]
        return [_data_url(sample.media[place], self.settings.max_side) for place in chosen]


def _data_url(image: Image.Image, max_side: int) -> str:
    """An image as the text of a JPEG file."""
    if max(image.size) > max_side:
        image = image.copy()
        image.thumbnail((max_side, max_side))
    file = io.BytesIO()
    image.convert("RGB").save(file, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _schema(most: int) -> dict[str, Any]:
    """The form of an answer. The reason comes first, so that the grade follows from it."""
    return {
        "type": "object",
        "properties": {
            "reason": {"type": "string"},
            "score": {"type": "number", "minimum": 0, "maximum": most},
        },
        "required": ["reason", "score"],
        "additionalProperties": False,
    }


def _grade(reply: Reply, most: int, tokens: int) -> Grade:
    """The grade in a reply.

    Args:
        reply: the judge's.
        most: the best grade.
        tokens: what earlier tries have cost.
    """
    tokens += reply.prompt_tokens + reply.completion_tokens
    if reply.text is None:
        return Grade(error=reply.error, tokens=tokens)
    for found in _objects(reply.text):
        score = found.get("score")
        if isinstance(score, str):
            score = _number(score)
        if isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= most:
            return Grade(score / most, score, str(found.get("reason", "")), tokens=tokens)
    return Grade(error=f"no grade from 0 to {most} in {reply.text[:80]!r}", tokens=tokens)


def _objects(text: str) -> list[dict[str, Any]]:
    """Every JSON object in a text, whatever stands around it."""
    found: list[dict[str, Any]] = []
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            found += [value] if isinstance(value, dict) else []
        start = text.find("{", end)
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text.partition("/")[0])
    except ValueError:
        return None
    return value if math.isfinite(value) else None
