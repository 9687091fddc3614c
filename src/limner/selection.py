"""Evaluation during a run on samples that are not trained on, and the choice of the best checkpoint."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import closing
from itertools import islice
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
        """Read all samples once, so that what cannot be used is said before the run; none are kept."""
        self.settings, self.policy = recipe.evaluate, policy
        self.batch = recipe.update.micro_batch
        self.measures = self.settings.data is not None
        if self.measures and not sum(1 for _ in self._samples()):
            raise UserError("evaluate.data: not one sample in it can be used")
        if self.settings.best and not self.measures:
            raise UserError("evaluate.best: needs evaluate.data, samples to measure it on")
        groups, device = chosen(self.settings.metrics), policy.device
        self.clip, self.itm = self.settings.clip, self.settings.itm
        if self.measures and groups.keys() & {"clip_recall", "clip_score"} and self.clip is not None:
            self.clip = load_clip(self.clip, device)
        if self.measures and "itm" in groups and self.itm is not None:
            self.itm = load_itm(self.itm, device)
        self.qa: Asking | Exam | None = self.settings.qa
        if self.measures and "qa" in groups and self.qa is not None:
            self.qa = Exam.load(self.qa, device=device, dtype=torch_dtype(recipe.run.dtype))

    def __call__(self, progress: Progress) -> dict[str, Mean]:
        """Measures of the policy now, as `evaluate/...`; notes in `progress` if it is the best so far."""
        if not self.measures:
            return {}
        from limner.evaluate import Gauge

        gauge = Gauge(
            self.settings.metrics, clip=self.clip, itm=self.itm, qa=self.qa, captioner=self.policy,
            device=str(self.policy.device),
        )  # fmt: skip
        with closing(self._samples()) as samples:
            while batch := list(islice(samples, self.batch)):
                gauge.add(self.policy.caption(batch, self.settings.decoding), batch)
        measured = gauge.result()
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

    def _samples(self) -> Generator[Sample]:
        """The samples, read anew: the frames of a whole validation set would take gigabytes."""
        settings = self.settings
        if settings.data is not None:
            yield from usable(settings.data, settings.samples, allow_missing=settings.allow_missing)
