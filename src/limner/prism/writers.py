"""Who writes the captions that Prism asks about: a captioner in this process, an endpoint, or a file."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from PIL import Image

from limner import checkpoint
from limner.answering.base import Asker, Conversation
from limner.captioners import load
from limner.decoding import Decoding
from limner.errors import UserError
from limner.export import load_run
from limner.types import Sample

if TYPE_CHECKING:
    from limner.captioners.base import Policy

PROMPT = "Please describe this image in detail"
"""The published request for a caption."""
DECODING = Decoding(do_sample=True, temperature=1.0, max_new_tokens=2048)
"""The published sampling."""
CAPTIONS = 4
"""The published number of captions an image."""

Written = list[str] | str
"""Captions of one image, or why there are none."""


class Writer(Protocol):
    """Writes captions."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def identity(self) -> Mapping[str, object]:
        """What decides the captions of an image: the checkpoint and how it writes. Never a key."""
        ...

    def write(self, images: Sequence[Image.Image], count: int, *, seed: int) -> list[Written]:
        """`count` captions of each image, or why there are none."""
        ...


@dataclass(frozen=True)
class PolicyWriter:
    """A captioner in this process."""

    name: str
    """As it was named."""
    policy: Policy
    """The captioner."""
    checkpoint: str
    """What tells its weights from others: step and fingerprint."""
    prompt: str | None
    """Text before a caption; the captioner's own if None."""
    decoding: Decoding
    """How captions are drawn."""

    @property
    def identity(self) -> Mapping[str, object]:
        """Name, weights, prompt and decoding."""
        said = self.policy.settings.prompt if self.prompt is None else self.prompt
        return {"model": self.name, "checkpoint": self.checkpoint, "prompt": said, **asdict(self.decoding)}

    def write(self, images: Sequence[Image.Image], count: int, *, seed: int) -> list[Written]:
        """Captions of a batch; a search gives one caption, which stands for all."""
        samples = [Sample(str(place), (image,)) for place, image in enumerate(images)]
        generator = torch.Generator(self.policy.device).manual_seed(seed)
        drawn = count if self.decoding.do_sample else 1
        inputs = self.policy.encode(samples, self.prompt)
        made = self.policy.generate(inputs, self.decoding, captions=drawn, generator=generator)
        texts = self.policy.texts(made.tokens, made.caption_mask)
        rows = [list(texts[start : start + drawn]) for start in range(0, len(texts), drawn)]
        return [row * (count // drawn) for row in rows]


@dataclass(frozen=True)
class EndpointWriter:
    """A captioner behind an OpenAI-compatible endpoint."""

    name: str
    """The model's name there."""
    asker: Asker
    """The endpoint."""
    prompt: str
    """What is asked beside the image."""
    decoding: Decoding
    """Temperature and length; the rest is the server's."""

    @property
    def identity(self) -> Mapping[str, object]:
        """The model's name, prompt, temperature and length; where it is served changes nothing."""
        limits = {"temperature": self._temperature, "max_new_tokens": self.decoding.max_new_tokens}
        return {"model": self.name, "endpoint": True, "prompt": self.prompt, **limits}

    @property
    def _temperature(self) -> float:
        return self.decoding.temperature if self.decoding.do_sample else 0.0

    def write(self, images: Sequence[Image.Image], count: int, *, seed: int) -> list[Written]:
        """One request a caption; an image without one of its captions has none, and says why."""
        shown = [self._shown(image) for image in images]
        columns: list[list[str]] = [[] for _ in images]
        errors = [""] * len(images)
        for draw in range(count):
            replies = self.asker.ask(
                shown,
                max_new_tokens=self.decoding.max_new_tokens,
                temperature=self._temperature,
                seed=seed + draw,
            )
            for place, reply in enumerate(replies):
                if reply.text is None:
                    errors[place] = reply.error
                else:
                    columns[place].append(reply.text.strip())
        return [error or column for error, column in zip(errors, columns, strict=True)]

    def _shown(self, image: Image.Image) -> Conversation:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": self.prompt}]
        return [{"role": "user", "content": parts}]


def policy_writer(
    model: str, *, prompt: str | None, decoding: Decoding, device: str = "auto", dtype: str = "float32"
) -> PolicyWriter:
    """Load a captioner: a checkpoint, a run's folder (its best checkpoint) or one of its checkpoints.

    A run is asked as it was trained; a checkpoint of a family that takes a prompt as Prism is published.

    Raises:
        UserError: there is no such captioner.
    """
    path = Path(model)
    chosen = checkpoint.named(model)
    if chosen is not None:
        run, step = chosen.parents[1], checkpoint.step_of(chosen)
        policy = load_run(run, str(step), device=device)
        return PolicyWriter(f"{run.name} at step {step}", policy, fingerprint(chosen), prompt, decoding)
    if path.is_file():
        raise UserError(
            f"{model}: give a captioner, a run's folder, an endpoint, or a .jsonl file of captions"
        )
    policy = load(model, device=device, dtype=dtype)
    if prompt is None and policy.settings.prompt:
        prompt = PROMPT  # families that are asked for a caption are asked in Prism's words
    return PolicyWriter(model, policy, fingerprint(path) if path.is_dir() else "", prompt, decoding)


def fingerprint(folder: Path) -> str:
    """What changes when a file of the folder is written anew: names, sizes and times, hashed."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    seen = [
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files
    ]
    return digest(seen)


def digest(value: object) -> str:
    """A short name of a value that JSON can hold: equal values have equal ones."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]
