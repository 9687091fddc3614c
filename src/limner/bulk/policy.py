"""Captions by a captioner in this process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from limner import captioners
from limner.bulk.engine import Text
from limner.captioners.base import Policy
from limner.captioners.prefixed import PrefixedPolicy
from limner.decoding import Decoding
from limner.errors import Reject
from limner.export import load_run
from limner.types import Sample

_log = logging.getLogger("limner.bulk")


def load(model: str, *, device: str, dtype: str) -> Policy:
    """A captioner: hub id, folder, `world:captioner`, or a run's folder (its best checkpoint).

    Raises:
        UserError: there is none.
    """
    if (Path(model) / "resolved.json").is_file():
        return load_run(Path(model), device=device)
    return captioners.load(model, device=device, dtype=dtype)


def author(model: str, *, device: str, dtype: str, decoding: Decoding) -> PolicyAuthor:
    """A captioner that is ready to write."""
    return PolicyAuthor(load(model, device=device, dtype=dtype), decoding)


@dataclass(frozen=True)
class PolicyAuthor:
    """A loaded captioner."""

    policy: Policy
    """The captioner."""
    decoding: Decoding
    """How captions are drawn."""

    @property
    def shaped(self) -> bool:
        """Whether it keeps the shape of images."""
        return isinstance(self.policy, PrefixedPolicy)

    def write(self, samples: Sequence[Sample], prompt: str | None) -> Sequence[Text | Reject]:
        """A batch that does not fit into the device's memory is halved until it does."""
        try:
            return [Text(text) for text in self.policy.caption(samples, self.decoding, prompt=prompt)]
        except torch.OutOfMemoryError:
            if len(samples) == 1:
                return [Reject("too little memory on the device to caption it")]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(samples) // 2
        _log.warning("%d images do not fit into the device's memory: captioned in halves", len(samples))
        return [*self.write(samples[:half], prompt), *self.write(samples[half:], prompt)]
