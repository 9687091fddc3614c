"""What flows through a run: Sample -> Rollouts -> Scores -> Targets, and the means that are logged.

Dimension letters: B samples, G captions a sample, N = B*G rows (row n belongs to sample n // G), T caption
tokens, V vocabulary, D features. Tensors are padded on the right; a mask is named for what True selects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from PIL import Image

from limner.data.video import Video


@dataclass(frozen=True)
class Sample:
    """One image or video to caption, with what is known about it."""

    id: str
    """Stable name of the sample within its source: a relative path, a row id."""
    media: tuple[Image.Image, ...]
    """What the captioner sees: one RGB image, or the frames of a video in order of time. Empty for a video
    that has not been decoded yet."""
    references: tuple[str, ...] = ()
    """Captions written by people, where the source has them. Never shown to the policy."""
    extra: Mapping[str, object] = field(default_factory=dict[str, object])
    """Anything else a reward or measure may ask for by name: questions, the scene of the miniature world."""
    video: Video | None = None
    """The video whose frames `media` holds, or will hold once `limner.data.video.load` has decoded it."""

    @property
    def image(self) -> Image.Image:
        """The first image."""
        return self.media[0]


class ModelInputs(Protocol):
    """What one captioner family computed from B samples; opaque to everything but that family."""

    def __len__(self) -> int:
        """Number of rows, B or N."""
        ...

    def select(self, rows: torch.Tensor) -> Self:
        """The given rows (int64 indices), in the given order."""
        ...

    def repeat(self, captions: int) -> Self:
        """Every row `captions` times in a row: B rows become N = B*G."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        ...

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of the parts, in order."""
        ...


@dataclass(frozen=True)
class Words:
    """Where a caption's words lie among its tokens; made once a roll-out, for every word-level reward."""

    words: tuple[str, ...]
    """Lower-cased words in order of appearance, punctuation marks apart."""
    tokens: tuple[tuple[int, ...], ...]
    """For each word the caption-token positions (0..T-1) that hold any of its characters."""


@dataclass(frozen=True)
class Rollouts:
    """N captions of B samples: generated (token ids are never made again from text), or written by people."""

    samples: tuple[Sample, ...]
    """The B samples."""
    inputs: ModelInputs
    """The captioner's inputs of the B samples."""
    tokens: torch.Tensor
    """(N, T) int64 generated ids, the end-of-sequence token included; padding after it."""
    caption_mask: torch.Tensor
    """(N, T) bool, True on generated tokens including the end-of-sequence token."""
    logprobs: torch.Tensor
    """(N, T) float32 log-probabilities under the policy that generated them; 0 on padding.

    They are those before temperature and top-k. NaN where people wrote the caption.
    """
    ended: torch.Tensor
    """(N,) bool, True where the last token is the end-of-sequence token (False: cut by the length limit)."""
    texts: tuple[str, ...]
    """N decoded captions, special tokens left out, stripped."""
    words: tuple[Words, ...]
    """N maps from words to tokens."""
    lm_logprobs: torch.Tensor | None = None
    """(N, T) log-probabilities of the language model without the image; where "lm_logprobs" is needed."""
    reference_logprobs: torch.Tensor | None = None
    """(N, T) log-probabilities under the policy as the run started; where "reference_logprobs" is needed."""
    values: torch.Tensor | None = None
    """(N, T) value of the state in which token t was chosen; where something needs "values"."""
    greedy: Rollouts | None = None
    """The greedy caption of each sample, B rows; where "greedy" is needed."""
    step: int = 0
    """Step of the run in which they were made: a reward that draws at random draws by it and the sample."""

    @property
    def captions(self) -> int:
        """G, captions a sample."""
        return len(self.tokens) // len(self.samples)

    @property
    def lengths(self) -> torch.Tensor:
        """(N,) int64 tokens a caption, the end-of-sequence token included."""
        return self.caption_mask.sum(1)

    def sample(self, row: int) -> Sample:
        """The sample of a row."""
        return self.samples[row // self.captions]

    def replace(self, **changes: Any) -> Rollouts:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Part:
    """What one reward says of N captions, before its weight."""

    values: torch.Tensor
    """(N,) a caption, or (N, T) a token (0 where a token earns nothing); higher is better.

    NaN where it could not be scored.
    """
    details: tuple[Mapping[str, object], ...] = ()
    """N explanations for people (which phrase, which word), or none."""
    metrics: Mapping[str, Mean] = field(default_factory=dict[str, "Mean"])
    """What else is logged of it, as `reward/NAME/KEY`."""


@dataclass(frozen=True)
class Scores:
    """The rewards of N captions, weighted and summed."""

    parts: Mapping[str, Part]
    """Every reward by its name in the recipe, before its weight."""
    rewards: torch.Tensor
    """(N, T) weighted sum; a reward of the whole caption stands on its last token.

    0 on padding and on unscored captions.
    """
    scored: torch.Tensor
    """(N,) bool, False where any part was NaN or the caption has no token.

    Such a caption takes no part in means, baselines or the loss.
    """
    greedy: torch.Tensor | None = None
    """(B,) the whole reward of each sample's greedy caption, NaN where unscored; where "greedy" is needed."""
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """Wall time of each reward."""

    @property
    def totals(self) -> torch.Tensor:
        """(N,) the whole reward of each caption; NaN where unscored."""
        return self.rewards.sum(1).masked_fill(~self.scored, float("nan"))


@dataclass(frozen=True)
class Targets:
    """What the objective pushes towards."""

    advantages: torch.Tensor
    """(N, T) float32, constant (no gradient); 0 where target_mask is False."""
    target_mask: torch.Tensor
    """(N, T) bool, True on the tokens that take part in the loss: generated tokens of scored captions."""
    returns: torch.Tensor | None = None
    """(N, T) what the value function is trained on, where there is one."""
    weights: torch.Tensor | None = None
    """(N, T) share of each token in the loss, where these are rows of a larger batch; None: the objective's
    over these rows."""


@dataclass(frozen=True)
class Mean:
    """A mean that travels as (sum, count), so that it stays exact over micro-batches and ranks."""

    sum: float = 0.0
    count: float = 0.0

    @classmethod
    def of(cls, values: torch.Tensor | Sequence[float]) -> Mean:
        """Of all values that are not NaN."""
        values = torch.as_tensor(values, dtype=torch.float64)
        kept = values[~values.isnan()]
        return cls(float(kept.sum()), float(kept.numel()))

    def __add__(self, other: Mean) -> Mean:
        """The mean over both."""
        return Mean(self.sum + other.sum, self.count + other.count)

    @property
    def value(self) -> float:
        """The mean; NaN of nothing."""
        return self.sum / self.count if self.count else float("nan")
