"""Evaluation during a run on samples that are not trained on, and the choice of the best checkpoint."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from limner.answering.exam import Exam
from limner.answering.settings import Asking
from limner.captioners.base import Policy
from limner.checkpoint import Progress
from limner.data.usable import usable
from limner.devices import torch_dtype
from limner.errors import UserError
from limner.metrics.measures import chosen
from limner.types import Mean, Sample
from limner.vision_language import load_clip, load_itm

if TYPE_CHECKING:
    from limner.config import Recipe


class Evaluator:
    """Captions the validation samples and measures the captions; does nothing without evaluate.data."""

    def __init__(self, recipe: Recipe, policy: Policy):
        """Read the samples once."""
        self.settings, self.policy = recipe.evaluate, policy
        self.batch = recipe.update.micro_batch
        source = self.settings.data
        self.samples: list[Sample] = []
        if source is not None:
            allowed = self.settings.allow_missing
            self.samples = list(usable(source, self.settings.samples, allow_missing=allowed))
        if source is not None and not self.samples:
            raise UserError("evaluate.data: not one sample in it can be used")
        if self.settings.best and not self.samples:
            raise UserError("evaluate.best: needs evaluate.data, samples to measure it on")
        groups, device = chosen(self.settings.metrics), policy.device
        self.clip, self.itm = self.settings.clip, self.settings.itm
        if self.samples and groups.keys() & {"clip_recall", "clip_score"} and self.clip is not None:
            self.clip = load_clip(self.clip, device)
        if self.samples and "itm" in groups and self.itm is not None:
            self.itm = load_itm(self.itm, device)
        self.qa: Asking | Exam | None = self.settings.qa
        if self.samples and "qa" in groups and self.qa is not None:
            self.qa = Exam.load(self.qa, device=device, dtype=torch_dtype(recipe.run.dtype))

    def __call__(self, progress: Progress) -> dict[str, Mean]:
        """Measures of the policy now, as `evaluate/...`; notes in `progress` if it is the best so far."""
        if not self.samples:
            return {}
        from limner.evaluate import evaluate

        captions: list[str] = []
        for start in range(0, len(self.samples), self.batch):
            captions += self.policy.caption(self.samples[start : start + self.batch], self.settings.decoding)
        measured = evaluate(
            captions, self.samples, metrics=self.settings.metrics, clip=self.clip, itm=self.itm,
            qa=self.qa, captioner=self.policy,
        )  # fmt: skip
        values = {name: interval.value for name, interval in measured.summary.items()}
        best = self.settings.best
        if best is not None:
            if best not in values:
                raise UserError(
                    f"evaluate.best: {best!r} is not measured; evaluate.metrics gives {', '.join(values)}"
                )
            if values[best] > (-math.inf if progress.best is None else progress.best):
                progress.best, progress.best_step, progress.stale = values[best], progress.step, 0
            else:
                progress.stale += 1
        return {f"evaluate/{name}": Mean(value, 1.0) for name, value in values.items()}
