"""What every reward is, and roll-outs of plain text to try one on."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch

from limner.metrics.phrases import normal, word_spans
from limner.types import Part, Rollouts, Sample, Words

if TYPE_CHECKING:
    from limner.captioners.base import Policy
    from limner.data.base import Source


@dataclass(frozen=True)
class Example:
    """A caption and what a reward with its default settings must say of it; a contract test checks it."""

    caption: str
    """The caption; its words are its tokens, and an end-of-sequence token follows."""
    expected: float
    """The reward of the caption before the weight; a reward of tokens is summed."""
    tolerance: float = 0.0
    """How far off it may be."""
    ended: bool = True
    """False: the caption was cut by the length limit and has no end-of-sequence token."""
    sample: Sample | None = None
    """The sample captioned, for rewards that look at it."""


@dataclass(frozen=True, kw_only=True)
class AnyReward(abc.ABC):
    """Settings of one reward; subclass `Reward`, or `LoadedReward` where something must be loaded first."""

    weight: float = 1.0
    """Factor in the sum of all rewards."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """What roll-outs must carry beside the captions: "lm_logprobs"; "references" with every sample."""
    per: ClassVar[Literal["caption", "token"]] = "caption"
    """Whether values are (N,) or (N, T)."""
    batch: ClassVar[bool] = False
    """Whether the value of a row depends on the other rows.

    A rank has its own rows alone: such a reward asks for those of others by `limner.distributed.joined`.
    """
    examples: ClassVar[tuple[Example, ...]] = ()
    """Captions with the values that they must get."""

    @abc.abstractmethod
    def load(self, captioner: Policy, data: Source | None = None) -> Callable[[Rollouts], Part]:
        """What scores N captions; called once before a run.

        Higher is better, a penalty is negative, and what can't be scored is NaN.

        Args:
            captioner: the policy; its frozen vision tower and features may be shared.
            data: what the run trains on, for statistics of it; None outside of a run.

        Raises:
            UserError: what the settings name can't be used.
        """


@dataclass(frozen=True, kw_only=True)
class Reward(AnyReward):
    """A reward that is ready as it is. A file holds one subclass with this name."""

    def load(self, captioner: Policy, data: Source | None = None) -> Self:
        """The reward itself."""
        return self

    @abc.abstractmethod
    def __call__(self, rollouts: Rollouts) -> Part:
        """Score N captions: higher is better, a penalty is negative, NaN where a caption can't be scored."""


@dataclass(frozen=True, kw_only=True)
class LoadedReward(AnyReward):
    """A reward with a model, or with statistics: it says how to `load` what scores."""


@dataclass(frozen=True)
class NoInputs:
    """Model inputs of samples that no model looks at."""

    rows: int
    """How many."""

    def __len__(self) -> int:
        """Number of rows."""
        return self.rows

    def select(self, rows: torch.Tensor) -> Self:
        """As many as there are indices."""
        return type(self)(len(rows))

    def repeat(self, captions: int) -> Self:
        """Every row `captions` times."""
        return type(self)(self.rows * captions)

    def to(self, device: torch.device) -> Self:
        """The same."""
        return self

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """As many as all parts together."""
        return cls(sum(part.rows for part in parts))


def plain(
    captions: Sequence[str], *, ended: bool = True, samples: Sequence[Sample] | None = None
) -> Rollouts:
    """Roll-outs of written captions: every word and mark is a token, and an end-of-sequence token follows.

    To try a reward that asks no model: `Reward()(plain(["a red car"])).values`. Token ids mean nothing.

    Args:
        captions: N captions.
        ended: False leaves the end-of-sequence token out.
        samples: B samples; empty ones where None.
    """
    texts = tuple(captions)
    spans = [word_spans(text) for text in texts]
    lengths = torch.tensor([len(row) + ended for row in spans])
    caption_mask = torch.arange(int(lengths.max())) < lengths[:, None]
    if samples is None:
        samples = [Sample(id=f"text-{row}", media=()) for row in range(len(texts))]
    return Rollouts(
        samples=tuple(samples),
        inputs=NoInputs(len(samples)),
        tokens=torch.zeros(caption_mask.shape, dtype=torch.long),
        caption_mask=caption_mask,
        logprobs=torch.zeros(caption_mask.shape),
        ended=torch.full((len(texts),), ended),
        texts=texts,
        words=tuple(
            Words(
                tuple(normal(text[start:stop]) for start, stop in row), tuple((t,) for t in range(len(row)))
            )
            for text, row in zip(texts, spans, strict=True)
        ),
    )


def penalty(rollouts: Rollouts, positions: Sequence[set[int]]) -> torch.Tensor:
    """(N, T) float32, -1 at the given token positions of each row, 0 elsewhere: no token is fined twice."""
    values = torch.zeros(rollouts.caption_mask.shape)
    for row, fined in enumerate(positions):
        values[row, sorted(fined)] = -1.0
    return values


def unscored(values: torch.Tensor) -> torch.Tensor:
    """The values with NaN for whatever is no finite number."""
    return values.masked_fill(~values.isfinite(), float("nan"))
