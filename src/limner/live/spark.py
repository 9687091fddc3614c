"""Numbers as a line of text."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
BARS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-~=+*#"
"""For terminals that know no more than ASCII."""


def spark(values: Floats, width: int, *, bars: str = BARS) -> str:
    """Values in order as a line of bars, the lowest low, the highest full; a flat line is low.

    Args:
        values: (S,) floats; what is not finite is passed over.
        width: most characters; more values than these are averaged.
        bars: a character a height, the lowest first.

    Returns:
        Up to `width` characters.
    """
    seen = values[np.isfinite(values)]
    if width <= 0 or not len(seen):
        return ""
    means = np.array([part.mean() for part in np.array_split(seen, min(width, len(seen)))])
    heights = (means - means.min()) / (np.ptp(means) or 1.0) * len(bars)
    return "".join(bars[min(int(height), len(bars) - 1)] for height in heights)


def ends(values: Floats, most: int = 10) -> tuple[float, float]:
    """Means of the first and of the last values: of a third of them each, and of at most so many.

    Args:
        values: (S,) floats; what is not finite is passed over.
        most: values in a mean.

    Returns:
        The two means; NaN of nothing.
    """
    seen = values[np.isfinite(values)]
    if not len(seen):
        return math.nan, math.nan
    count = max(1, min(most, len(seen) // 3))
    return float(seen[:count].mean()), float(seen[-count:].mean())
