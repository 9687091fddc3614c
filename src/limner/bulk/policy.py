"""Captions by a captioner in this process."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from limner.bulk.choose import Draft
from limner.bulk.engine import Text
from limner.bulk.judge import PolicyJudge
from limner.captioners.base import Policy
from limner.captioners.prefixed import PrefixedPolicy
from limner.decoding import Decoding
from limner.devices import keep_freed_memory
from limner.errors import Reject
from limner.export import load_captioner
from limner.rewards.base import AnyReward
from limner.types import Sample

LANES = 4
"""Batches that are written at the same time on a CPU at most: each keeps its activations."""
Made = TypeVar("Made")
_log = logging.getLogger("limner.bulk")


def author(
    model: str, *, device: str, dtype: str, decoding: Decoding, rewards: Mapping[str, AnyReward]
) -> PolicyAuthor:
    """A captioner that is ready to write."""
    policy = load_captioner(model, device=device, dtype=dtype)
    if policy.device.type == "cpu":
        keep_freed_memory()
    return PolicyAuthor(policy, decoding, PolicyJudge.load(rewards, policy) if rewards else None)


@dataclass
class PolicyAuthor:
    """A loaded captioner."""

    policy: Policy
    """The captioner."""
    decoding: Decoding
    """How captions are drawn."""
    judge: PolicyJudge | None = None
    """What says how good a candidate is; its mean log-probability if None."""
    most: float = math.inf
    """What fits into the device's memory at once, once a batch did not: pixels where images keep their shape,
    else pictures."""

    @property
    def shaped(self) -> bool:
        """Whether it keeps the shape of images."""
        return isinstance(self.policy, PrefixedPolicy)

    @property
    def mixes(self) -> bool:
        """Those that read a chat take a prompt a sample."""
        return self.shaped

    def lanes(self) -> int:
        """Batches that it had better write at the same time, each on its share of the cores; 1: one by one.

        Cores share out batches better than each operation of one batch. What is drawn comes from one stream
        of random numbers, so that it stays one by one; so do captioners that keep something between passes.
        """
        if self.policy.device.type != "cpu" or self.shaped or self.decoding.do_sample:
            return 1
        self.policy.tokenizer("")  # what the tokenizer's file says of padding is undone here, not in threads
        return min(torch.get_num_threads(), LANES)

    def tokens(self) -> tuple[int, int]:
        """Nothing is paid for."""
        return 0, 0

    def write(self, samples: Sequence[Sample], prompt: str | None) -> Sequence[Text | Reject]:
        """One caption each."""

        def made(part: Sequence[Sample]) -> Sequence[Text]:
            return [Text(text) for text in self.policy.caption(part, self.decoding, prompt=prompt)]

        return self._that_fits(samples, made)

    def drafts(
        self, samples: Sequence[Sample], prompt: str | None, *, count: int, seed: int
    ) -> Sequence[Sequence[Draft] | Reject]:
        """Candidates with their scores."""

        def made(part: Sequence[Sample]) -> Sequence[Sequence[Draft]]:
            return self._drafts(part, prompt, count, seed)

        return self._that_fits(samples, made)

    def _drafts(
        self, samples: Sequence[Sample], prompt: str | None, count: int, seed: int
    ) -> Sequence[Sequence[Draft]]:
        generator = torch.Generator(self.policy.device).manual_seed(seed)
        inputs = self.policy.encode(samples, prompt)
        made = self.policy.generate(inputs, self.decoding, captions=count, generator=generator)
        if self.judge is not None:
            rollouts = self.policy.rollouts(samples, inputs, made)
            texts, scores = rollouts.texts, self.judge(rollouts)
        else:
            texts = self.policy.texts(made.tokens, made.caption_mask)
            scores = (made.logprobs.sum(1) / made.caption_mask.sum(1)).tolist()
        rows = [Draft(text, score) for text, score in zip(texts, scores, strict=True)]
        return [rows[start : start + count] for start in range(0, len(rows), count)]

    def _that_fits(
        self, samples: Sequence[Sample], made: Callable[[Sequence[Sample]], Sequence[Made]]
    ) -> Sequence[Made | Reject]:
        """A batch that does not fit into the device's memory is halved until it does; so are later ones."""
        size = self._size(samples)
        if len(samples) == 1 or size <= self.most:
            try:
                return made(samples)
            except torch.OutOfMemoryError:
                if len(samples) == 1:
                    return [Reject("too little memory on the device to caption it")]
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.most = size / 2
            _log.warning("%d images do not fit into the device's memory: captioned in halves", len(samples))
        half = len(samples) // 2
        return [*self._that_fits(samples[:half], made), *self._that_fits(samples[half:], made)]

    def _size(self, samples: Sequence[Sample]) -> int:
        images = [image for sample in samples for image in sample.media]
        return sum(image.width * image.height for image in images) if self.shaped else len(images)
