"""Reward for a length in bounds: R_len of CapRL++ (arXiv 2606.09393), which stops captions from growing."""

from __future__ import annotations

from dataclasses import dataclass

from limner.rewards import base
from limner.types import Part, Rollouts


@dataclass(frozen=True, kw_only=True)
class Reward(base.Reward):
    """1 up to a number of tokens, then a straight line down to 0 at a larger number."""

    weight: float = 0.2
    """Factor in the sum of all rewards; the published one."""
    full: int = 2048
    """Captions of at most this many tokens get 1."""
    zero: int = 3072
    """Captions of at least this many tokens get 0."""

    examples = (base.Example("a red car", 1.0),)

    def __post_init__(self) -> None:
        """Refuse a line that does not fall.

        Raises:
            ValueError: `zero` is not above `full`.
        """
        if not self.full < self.zero:
            raise ValueError(f"zero is {self.zero}: must be above full, which is {self.full}")

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N,) between 0 and 1; tokens are counted with the end-of-sequence token."""
        left = (self.zero - rollouts.lengths).float() / (self.zero - self.full)
        return Part(left.clamp(0.0, 1.0))
