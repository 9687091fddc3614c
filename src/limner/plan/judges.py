"""Rewards and measures without weights: what they hold, and what they do with captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Blip2ForImageTextRetrieval, CLIPModel

from limner.answering.packed import Packed
from limner.answering.settings import Asking
from limner.captioners.base import Policy
from limner.config import Recipe
from limner.devices import torch_dtype
from limner.metrics.measures import chosen
from limner.plan.models import TOKEN, Pictures, Texts, configuration, empty
from limner.rewards import base, clip_contrast, itm, qa_accuracy
from limner.types import Rollouts
from limner.vision_language import ClipModel, ItmModel

PROMPT, QUESTION = 30, 60
"""Tokens of the answerer's instruction, and of a question with its options."""
Score = Callable[[Rollouts], object]


class Judges:
    """The models of a recipe beside the captioner."""

    def __init__(self, recipe: Recipe, policy: Policy[Any]):
        """Build them; what is one model for two uses is built once."""
        self.recipe, self.policy = recipe, policy
        self.models: dict[str, Any] = {}
        """By what they are for."""
        self.unknown: list[str] = []
        """Rewards of which nobody here knows what they load."""
        dtype = policy.dtype
        self.rewards: dict[str, Score] = {}
        self._answerers: dict[tuple[str | None, torch.dtype, int], Packed] = {}
        for name, reward in recipe.rewards.items():
            score = self._reward(name, reward, dtype)
            if score is not None:
                self.rewards[name] = score
        self.measures = self._measures(torch_dtype(recipe.run.dtype))

    def reads_features(self, score: Score) -> bool:
        """Whether a reward reads what the captioner's own tower made of the images."""
        return isinstance(score, itm.Matching) and score.shared is not None

    def enough(self, name: str, captions: int, tokens: int) -> int:
        """With how many captions of a step a reward does all that more of them would repeat."""
        reward = self.recipe.rewards[name]
        if isinstance(reward, itm.Reward):
            return min(captions, reward.micro_batch)
        if isinstance(reward, qa_accuracy.Reward):
            return min(captions, -(-reward.max_tokens // (tokens + PROMPT)))
        return captions

    def _reward(self, name: str, reward: Any, dtype: torch.dtype) -> Score | None:
        where = f"reward {name}"
        if isinstance(reward, itm.Reward):
            matcher: Any = itm_model(reward.path, dtype)
            tower: Any = self.policy.vision
            shared = tower is not None and matcher.vision.config.to_dict() == tower.config.to_dict()
            if shared:  # what the weights would tell is not known: towers of one shape count as one
                matcher.vision = tower
            self.models[where] = matcher.model
            return itm.Matching(matcher, self.policy if shared else None, reward.micro_batch)
        if isinstance(reward, clip_contrast.Reward):
            clip = clip_model(reward.path, dtype)
            self.models[where] = clip.model
            return clip_contrast.Contrast(clip)
        if isinstance(reward, qa_accuracy.Reward):
            if reward.path is None:
                return None
            return self._asked(where, reward, dtype, questions=reward.questions)
        if isinstance(reward, base.LoadedReward) and type(reward).__module__ not in LOADS_NO_MODEL:
            self.unknown.append(name)
        return None

    def _asked(self, where: str, asking: Asking, dtype: torch.dtype, *, questions: int) -> Score:
        assert asking.path is not None
        key = asking.path, dtype, asking.max_tokens
        if key not in self._answerers:
            model = empty(AutoModelForCausalLM, configuration(asking.path), dtype).requires_grad_(False)
            self.models[where] = model
            self._answerers[key] = Packed(model, max_tokens=asking.max_tokens)
        packed = self._answerers[key]

        def score(rollouts: Rollouts) -> None:
            length = int(rollouts.lengths.max())
            caption = [TOKEN] * (length + PROMPT)
            groups = [
                [[row, *caption, question, *[TOKEN] * QUESTION] for question in range(questions)]
                for row in range(len(rollouts.tokens))
            ]
            vocabulary = packed.model.config.get_text_config().vocab_size
            packed.logprobs(groups, [letter % vocabulary for letter in range(5)])

        return score

    def _measures(self, dtype: torch.dtype) -> dict[str, Score]:
        """Models that measure captions during the run; CLIP and matching ones are loaded in float32."""
        settings, out = self.recipe.evaluate, dict[str, Score]()
        if settings.data is None:
            return out
        groups = chosen(settings.metrics)
        if settings.clip is not None and groups.keys() & {"clip_recall", "clip_score"}:
            clip = clip_model(settings.clip, torch.float32)
            self.models["measure clip"] = clip.model
            out["clip"] = clip_contrast.Contrast(clip)
        if settings.itm is not None and "itm" in groups:
            matcher = itm_model(settings.itm, torch.float32)
            self.models["measure itm"] = matcher.model
            out["itm"] = itm.Matching(matcher, None, 128)
        if settings.qa is not None and settings.qa.path is not None and "qa" in groups:
            out["qa"] = self._asked("measure qa", settings.qa, dtype, questions=1)
        return out


LOADS_NO_MODEL = ("limner.rewards.cider", "limner.rewards.judge")
"""Modules of rewards that load statistics, or ask an endpoint."""


def itm_model(path: str, dtype: torch.dtype) -> ItmModel:
    """An image-text matching model of a checkpoint's size."""
    config: Any = configuration(path)
    model = empty(Blip2ForImageTextRetrieval, config, dtype)
    pictures: Any = Pictures(config.vision_config.image_size)
    texts: Any = Texts(special=2)
    return ItmModel(model, texts, image_processor=pictures)


def clip_model(path: str, dtype: torch.dtype) -> ClipModel:
    """A CLIP of a checkpoint's size."""
    config: Any = configuration(path)
    pictures: Any = Pictures(config.vision_config.image_size)
    texts: Any = Texts(special=2)
    return ClipModel(empty(CLIPModel, config, dtype), texts, image_processor=pictures)


def bytes_of(models: Mapping[str, Any], counted: set[int]) -> dict[str, int]:
    """Bytes of the models' weights, each storage once; `counted` are those that are counted elsewhere."""
    out: dict[str, int] = {}
    for name, model in models.items():
        total = 0
        for tensor in (*model.parameters(), *model.buffers()):
            storage = tensor.untyped_storage()
            if storage._cdata not in counted:
                counted.add(storage._cdata)
                total += storage.nbytes()
        out[name] = total
    return out
