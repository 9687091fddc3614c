"""The order in which a source's items are drawn."""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import numpy as np


class Draw(NamedTuple):
    """One item that is drawn."""

    item: int
    """Which item of the source."""
    epoch: int
    """How often it was drawn before."""


def epochs(size: int, *, seed: int, position: int = 0, shuffle: bool = True) -> Iterator[Draw]:
    """Indices 0..size-1 epoch after epoch without end, from a position on.

    Epoch e is a permutation that depends on (seed, e) alone, so any position is reached at once.
    """
    for epoch in count(position // size):
        order = np.random.default_rng([seed, epoch]).permutation(size) if shuffle else np.arange(size)
        for index in order[position % size :].tolist():
            yield Draw(index, epoch)
        position = 0
