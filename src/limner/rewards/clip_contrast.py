"""How well CLIP tells a caption's image from the others: Phi of VLRM-RS (arXiv 2404.01911, equation 5).

S_ij = cos(image_i, text_j) over the N rows of the whole batch, on all ranks,
D = diag(softmax(S, 0) * softmax(S, 1)),
Phi = (D - mean D) / std D. There is no temperature in the formula, and none here.

With G captions an image, row n pairs text n with its own image, so an image stands in G rows. The standard
deviation is that of the batch itself (divided by N); where it is 0, as with one row, so is Phi.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from limner import distributed
from limner.rewards import base
from limner.types import Part, Rollouts
from limner.vision_language import ClipModel, load_clip

if TYPE_CHECKING:
    from limner.captioners.base import Policy
    from limner.data.base import Source


@dataclass(frozen=True, kw_only=True)
class Reward(base.LoadedReward):
    """Contrast over the batch: how well CLIP matches the caption to its image and to no other (VLRM-RS)."""

    weight: float = 0.3
    """Factor in the sum of all rewards; the published one."""
    path: str
    """A CLIP checkpoint: hub id, folder, or `world:clip_reward`. Not the one that measures the result."""

    batch = True

    def load(self, captioner: Policy, data: Source | None = None) -> Callable[[Rollouts], Part]:
        """Load the CLIP, in the number format of the captioner's frozen weights.

        Raises:
            UserError: the checkpoint can't be loaded.
        """
        return Contrast(load_clip(self.path, captioner.device, dtype=captioner.dtype))


@dataclass(frozen=True)
class Contrast:
    """A loaded CLIP that scores roll-outs."""

    clip: ClipModel
    """The model."""

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N,) Phi; NaN for rows whose vectors are not finite, which the other rows then do without."""
        images = self.clip.images([sample.image for sample in rollouts.samples])
        images = images.repeat_interleave(rollouts.captions, 0)
        texts = self.clip.texts(rollouts.texts)
        phi = contrast(distributed.joined(images), distributed.joined(texts))
        return Part(distributed.own(phi).cpu())


def contrast(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Phi of N pairs of unit vectors.

    Args:
        images: (N, D), row n the image of text n.
        texts: (N, D).

    Returns:
        (N,) float32 with mean 0 and standard deviation 1 over the rows that are finite; NaN elsewhere.
    """
    scored = images.isfinite().all(1) & texts.isfinite().all(1)
    # Doubles: D is near 1 / N^2 and its differences are smaller still.
    similar = (images[scored] @ texts[scored].T).double()
    log_d = 2 * similar.diagonal() - similar.logsumexp(0) - similar.logsumexp(1)
    d = log_d.exp()
    centred = d - d.mean()
    spread = centred.square().mean().sqrt()
    phi = torch.full((len(texts),), float("nan"), device=texts.device)
    phi[scored] = (centred / spread if spread > 0 else torch.zeros_like(d)).float()
    return phi
