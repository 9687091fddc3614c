"""How well a caption fits its image, with all it says: sim of VLRM (arXiv 2404.01911, section 3.4).

The "match" logit of BLIP-2's image-text matching head before the softmax, averaged over the queries. Every
true detail raises it, which is what makes captions richer. (Section 2.2 of the paper writes a softmax;
section 3.4 says logit, and limner follows it.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge

from limner.rewards import base
from limner.types import Part, Rollouts
from limner.vision_language import ItmModel, load_itm, same_encoder

if TYPE_CHECKING:
    from limner.captioners.base import Policy
    from limner.data.base import Source


@dataclass(frozen=True, kw_only=True)
class Reward(base.LoadedReward):
    """Image-text matching: the match logit of a BLIP-2 ITM model for the caption and its image."""

    path: str
    """A checkpoint of transformers' Blip2ForImageTextRetrieval: hub id, folder, or `world:itm`."""
    micro_batch: Annotated[int, Ge(1)] = 128
    """Captions in one pass."""

    def load(self, captioner: Policy, data: Source | None = None) -> Callable[[Rollouts], Part]:
        """Load the model, in the number format of the captioner's frozen weights.

        Where both towers are equal, weight by weight, memory holds one and the captioner's features are used.

        Raises:
            UserError: the checkpoint can't be loaded.
        """
        vision = captioner.vision
        model = load_itm(self.path, captioner.device, dtype=captioner.dtype)
        if vision is None or not same_encoder(
            (model.vision, model.image_processor), (vision, captioner.processor)
        ):
            return Matching(model, None, self.micro_batch)
        model.vision = vision
        return Matching(model, captioner, self.micro_batch)


@dataclass(frozen=True)
class Matching:
    """A loaded ITM model that scores roll-outs."""

    model: ItmModel
    """The model."""
    shared: Policy | None
    """The captioner whose image features serve the model too; None where the model encodes images itself."""
    micro_batch: int
    """Captions in one pass."""

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N,) match logits; an image is encoded once for all its captions, empty captions are scored too."""
        if self.shared is not None:
            features = self.shared.features(rollouts.inputs)
            scores = self.model.match(features, rollouts.texts, micro_batch=self.micro_batch)
        else:
            scores = torch.cat(list(self._own(rollouts)))
        return Part(base.unscored(scores))

    def _own(self, rollouts: Rollouts) -> Iterator[torch.Tensor]:
        """Scores by features of the model's own tower, a few images at a time: memory holds no more.

        Of a video that tower sees the first frame alone; the captioner's tower, where it is shared, sees all.
        """
        captions = rollouts.captions
        step = max(1, self.micro_batch // captions)
        for start in range(0, len(rollouts.samples), step):
            images = [sample.image for sample in rollouts.samples[start : start + step]]
            texts = rollouts.texts[start * captions : (start + step) * captions]
            yield self.model.match(self.model.encode(images), texts, micro_batch=self.micro_batch)
