"""CLIPScore and RefCLIPScore (Hessel et al., EMNLP 2021, arXiv 2104.08718), from embeddings.

    CLIPScore(caption, image)     2.5 * max(cos(caption, image), 0)
    RefCLIPScore                  harmonic mean of CLIPScore and max(cos(caption, its nearest reference), 0)

Captions and references are embedded behind the prompt that the authors use (`PREFIX`). Theirs is ViT-B/32 of
OpenAI; numbers of another CLIP are on another scale.

What the paper does not say: an embedding without direction (zero, NaN) leaves a caption unscored; one whose
CLIPScore and nearest reference are both 0 has RefCLIPScore 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]

PREFIX = "A photo depicts "
SCALE = 2.5


def clip_score(captions: torch.Tensor, images: torch.Tensor) -> Floats:
    """CLIPScore of N captions, 0 to 2.5.

    Args:
        captions: (N, D) text embeddings, of any length.
        images: (N, D) image embeddings.

    Returns:
        (N,); NaN where an embedding has no direction.

    Raises:
        ValueError: the shapes differ.
    """
    if captions.shape != images.shape:
        raise ValueError(f"captions {tuple(captions.shape)} and images {tuple(images.shape)} differ")
    return SCALE * np.maximum((_unit(captions) * _unit(images)).sum(1), 0.0)


def ref_clip_score(
    captions: torch.Tensor, images: torch.Tensor, references: Sequence[torch.Tensor]
) -> Floats:
    """RefCLIPScore of N captions.

    Args:
        captions: (N, D) text embeddings.
        images: (N, D) image embeddings.
        references: N times (R_i, D) text embeddings.

    Returns:
        (N,); NaN where there is no reference or an embedding has no direction.

    Raises:
        ValueError: the shapes differ.
    """
    if len(references) != len(captions):
        raise ValueError(f"references of {len(references)} images and {len(captions)} captions")
    scores = clip_score(captions, images)
    nearest = np.array(
        [
            np.maximum((_unit(theirs) @ mine).max(), 0.0) if len(theirs) else np.nan
            for mine, theirs in zip(_unit(captions), references, strict=True)
        ],
        dtype=np.float64,
    )
    both = scores + nearest
    return np.divide(2 * scores * nearest, both, out=np.where(np.isnan(both), np.nan, 0.0), where=both > 0)


def _unit(vectors: torch.Tensor) -> Floats:
    """(N, D) float64 vectors of length 1; NaN where there is no direction."""
    values = vectors.detach().cpu().double().numpy()
    # The largest entry goes first, so that squares of huge or tiny entries neither overflow nor vanish.
    largest = np.abs(values).max(1, keepdims=True, initial=0.0)
    usable = np.isfinite(largest) & (largest > 0)
    values = np.divide(values, largest, out=np.full(values.shape, np.nan), where=usable)
    return values / np.sqrt((values * values).sum(1, keepdims=True))
