"""CLIP recall: is a caption good enough to find its own image among all the others?

VLRM (arXiv 2404.01911, section 2) after IC3: the captions of a set are queries, its images the gallery.

Images that are exactly as similar to a caption as its own image are ordered without favour: what is returned
is the exact expectation over a random order among them. With g images above and k tied (the own image among
them) the rank is uniform on g+1 .. g+k, so that E[rank <= K] = min(max(K - g, 0), k) / k and
E[1 / rank] = (H(g+k) - H(g)) / k with the harmonic numbers H. A model that gives every image the same vector
thus scores K/n, not 1 and not 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

TIED = 1e-12
"""Cosines closer than this are equal: far below what one bit of a float32 embedding changes, and above the
rounding of float64 products, which differs from column to column."""
_CELLS = 1 << 22
"""Similarities held at once: 32 MB, however large the set is."""

Floats = npt.NDArray[np.float64]


def clip_recall(
    captions: torch.Tensor, images: torch.Tensor, *, at: Sequence[int] = (1, 5, 10)
) -> dict[str, Floats]:
    """Reciprocal rank and recall of every caption; their means over captions are MRR and R@K.

    Exact, in float64 on the CPU; memory does not grow with the square of the set.

    Args:
        captions: (N, D) embeddings of captions, of any length; caption n belongs to image n.
        images: (N, D) embeddings of images, of any length.
        at: the K of each R@K.

    Returns:
        "clip_recall_mrr" and "clip_recall_r{K}" -> (N,) values in 0..1, higher is better. NaN where the
        caption or its image has no direction (a zero vector, NaN, infinity); such images are not in the
        gallery of the others.

    Raises:
        ValueError: the shapes differ or are not (N, D).
    """
    if captions.ndim != 2 or captions.shape != images.shape:
        raise ValueError(
            f"captions {tuple(captions.shape)} and images {tuple(images.shape)} are not both (N, D)"
        )
    queries, query_mask = _directions(captions)
    gallery, gallery_mask = _directions(images)
    usable = torch.nonzero(query_mask & gallery_mask).squeeze(1)
    gallery_columns = torch.cumsum(gallery_mask, 0) - 1
    above, tied = _places(queries[usable], gallery[gallery_mask], gallery_columns[usable])
    measures = {"clip_recall_mrr": _expected_reciprocal(above, tied)}
    for k in at:
        measures[f"clip_recall_r{k}"] = np.clip(k - above, 0, tied) / tied
    rows = usable.numpy()
    return {name: _spread(values, rows, len(captions)) for name, values in measures.items()}


def _directions(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, D) float64 unit vectors and the (N,) mask of those that have a direction."""
    vectors = vectors.detach().cpu().double()
    # The largest entry goes first, so that squares of huge or tiny entries neither overflow nor vanish.
    largest = vectors.abs().amax(1, keepdim=True) if vectors.shape[1] else vectors.sum(1, keepdim=True)
    mask = (largest.isfinite() & (largest > 0)).squeeze(1)
    vectors = vectors / largest
    return vectors / vectors.square().sum(1, keepdim=True).sqrt(), mask


def _places(queries: torch.Tensor, gallery: torch.Tensor, own: torch.Tensor) -> tuple[Floats, Floats]:
    """For each query how many images are more similar than its own, and how many as similar, itself too."""
    above, tied = np.empty(len(queries)), np.empty(len(queries))
    step = max(1, _CELLS // max(1, len(gallery)))
    for start in range(0, len(queries), step):
        chunk = slice(start, start + step)
        similarity = queries[chunk] @ gallery.T
        difference = similarity - similarity.gather(1, own[chunk, None])
        above[chunk] = (difference > TIED).sum(1).numpy()
        tied[chunk] = (difference.abs() <= TIED).sum(1).numpy()
    return above, tied


def _expected_reciprocal(above: Floats, tied: Floats) -> Floats:
    """E[1 / rank] of ranks uniform on above + 1 .. above + tied."""
    ranks = int((above + tied).max(initial=0))
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, ranks + 1))])
    return (harmonic[(above + tied).astype(int)] - harmonic[above.astype(int)]) / tied


def _spread(values: Floats, rows: npt.NDArray[np.int64], length: int) -> Floats:
    spread = np.full(length, np.nan)
    spread[rows] = values
    return spread
