"""What an evaluation computes, a meter for each group of measures.

A meter is given captions with their samples batch by batch and keeps what it needs of them (an embedding, a
number), never images, so that an evaluation of any size fits in memory.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from limner.answering.draw import Drawn, number, shuffled
from limner.answering.exam import Answer, Exam
from limner.errors import UserError
from limner.metrics.captions import caption_measures, diversity_measures
from limner.metrics.clip_recall import clip_recall
from limner.metrics.clip_score import PREFIX, clip_score, ref_clip_score
from limner.metrics.coco import reference_measures
from limner.metrics.facts import fact_measures, truth_of
from limner.questions import questions_of
from limner.types import Mean, Sample
from limner.world.scenes import Scene
from limner.world.truth import Fact, Truth

if TYPE_CHECKING:
    from limner.captioners.base import Policy
    from limner.vision_language import ClipModel, ItmModel

Floats = npt.NDArray[np.float64]
LOOKED_AT = 32
"""Samples without a single question after which none is expected any more."""


class Meter(Protocol):
    """One group of measures of one set of captions."""

    def add(self, captions: Sequence[str], samples: Sequence[Sample]) -> None:
        """Take in a batch."""
        ...

    def values(self) -> dict[str, Floats]:
        """(N,) values by measure, for all that was taken in; NaN is unscored."""
        ...


class CaptionMeter:
    """What the texts alone tell."""

    def __init__(self):
        """Start with nothing."""
        self.captions: list[str] = []

    def add(self, captions: Sequence[str], samples: Sequence[Sample]) -> None:
        """Take in a batch."""
        self.captions += captions

    def values(self) -> dict[str, Floats]:
        """The group "captions"."""
        return caption_measures(self.captions)


class DiversityMeter(CaptionMeter):
    """How little the texts repeat each other."""

    def values(self) -> dict[str, Floats]:
        """The group "diversity"."""
        return diversity_measures(self.captions)


class ReferenceMeter:
    """How near the texts are to their references: the groups "coco", "java" and "colour_coverage"."""

    def __init__(self, names: Sequence[str]):
        """With the measures to compute; CIDEr weighs words by the references of all that is taken in."""
        self.names = names
        self.ids: list[str] = []
        self.captions: list[str] = []
        self.references: dict[str, tuple[str, ...]] = {}

    def add(self, captions: Sequence[str], samples: Sequence[Sample]) -> None:
        """Take in a batch; a sample may come again with another caption.

        Raises:
            UserError: a sample has no references.
        """
        for sample in samples:
            if not sample.references:
                name = self.names[0]
                raise UserError(
                    f"metrics: {name}: {sample.id} comes without a reference; leave it or {name} out"
                )
            self.references[sample.id] = sample.references
        self.ids += [sample.id for sample in samples]
        self.captions += captions

    def values(self) -> dict[str, Floats]:
        """The measures, with what their corpus values are made of.

        Raises:
            UserError: CIDEr of a single image, or a missing Java.
        """
        return reference_measures(self.ids, self.captions, self.references, names=self.names)


class ClipScoreMeter:
    """How like a caption is to its image, and to its references, by CLIP."""

    def __init__(self, clip: ClipModel):
        """With a CLIP that no reward has seen."""
        self.clip = clip
        self.scores: list[Floats] = []
        self.with_references: list[Floats] = []

    def add(self, captions: Sequence[str], samples: Sequence[Sample]) -> None:
        """Take in a batch; a video's embedding is the mean over its frames."""
        frames = [len(sample.media) for sample in samples]
        each = self.clip.images([image for sample in samples for image in sample.media]).cpu()
        images = torch.stack([part.mean(0) for part in each.split(frames)])
        texts = self._texts(captions)
        references = [len(sample.references) for sample in samples]
        theirs = self._texts([text for sample in samples for text in sample.references])
        self.scores.append(clip_score(texts, images))
        self.with_references.append(ref_clip_score(texts, images, theirs.split(references)))

    def _texts(self, texts: Sequence[str]) -> torch.Tensor:
        return self.clip.texts([PREFIX + text for text in texts]).cpu() if texts else torch.zeros(0, 1)

    def values(self) -> dict[str, Floats]:
        """The group "clip_score"; "ref_clip_score" is NaN without references."""
        columns = {"clip_score": self.scores, "ref_clip_score": self.with_references}
        return {name: np.concatenate(parts) for name, parts in columns.items()}


class ClipRecallMeter:
    """Whether captions find their images."""

    def __init__(self, clip: ClipModel):
        """With a CLIP that no reward has seen."""
        self.clip = clip
        self.captions: list[torch.Tensor] = []
        self.images: list[torch.Tensor] = []

    def add(self, captions: Sequence[str], samples: Sequence[Sample]) -> None:
        """Take in a batch."""
        self.captions.append(self.clip.texts(captions).cpu())
        self.images.append(self.clip.images([sample.image for sample in samples]).cpu())

    def values(self) -> dict[str, Floats]:
        """The group "clip_recall"."""
        return clip_recall(torch.cat(self.captions), torch.cat(self.images))


class ItmMeter:
    """Whether image and caption match, to BLIP-2's image-text matching."""

    def __init__(self, itm: ItmModel):
        """With an ITM model."""
        self.itm = itm
        self.scores: list[torch.Tensor] = []

    def add(self, captions: Sequence[str], samples: Sequence[Sample]) -> None:
        """Take in a batch."""
        features = self.itm.encode([sample.image for sample in samples])
        self.scores.append(self.itm.match(features, captions))

    def values(self) -> dict[str, Floats]:
        """The group "itm"."""
        return {"itm": torch.cat(self.scores).double().cpu().numpy()}


class LanguageModelMeter:
    """How likely the text is to the captioner's language model, which sees no image."""

    def __init__(self, captioner: Policy):
        """With the captioner whose language model and tokenizer are used."""
        self.captioner = captioner
        model: Any = captioner.language_model
        end = model.generation_config.eos_token_id
        self.end = int(end[0] if isinstance(end, list) else end)
        # The beginning of sequence and the end take two places.
        self.longest = int(model.config.max_position_embeddings) - 2
        self.scores: list[torch.Tensor] = []

    def add(self, captions: Sequence[str], samples: Sequence[Sample]) -> None:
        """Take in a batch; texts longer than the model reads are cut."""
        tokenizer: Any = self.captioner.tokenizer
        texts = tokenizer(list(captions), add_special_tokens=False)["input_ids"]
        rows = [torch.tensor([*ids[: self.longest], self.end]) for ids in texts]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.end)
        lengths = torch.tensor([len(row) for row in rows])
        caption_mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        device = self.captioner.device
        logprobs = self.captioner.lm_logprobs(tokens.to(device), caption_mask.to(device)).double().cpu()
        self.scores.append((logprobs * caption_mask).sum(1) / lengths)

    def values(self) -> dict[str, Floats]:
        """The group "language_model"."""
        return {"lm_logprob": torch.cat(self.scores).numpy()}


class FactMeter:
    """How true and complete captions of the miniature world are."""

    def __init__(self):
        """Start with nothing."""
        self.truths: list[Truth] = []

    def add(self, captions: Sequence[str], samples: Sequence[Sample]) -> None:
        """Take in a batch.

        Raises:
            UserError: a sample shows no scene of the miniature world.
        """
        for caption, sample in zip(captions, samples, strict=True):
            scene = sample.extra.get("scene")
            if not isinstance(scene, Scene):
                raise UserError(
                    f"metrics: facts: nothing is known of what {sample.id} shows; "
                    "facts are measured on the miniature world only"
                )
            self.truths.append(truth_of(caption, scene))

    def values(self) -> dict[str, Floats]:
        """The group "facts"."""
        return fact_measures(self.truths)

    def facts(self) -> list[tuple[dict[str, object], ...]]:
        """The claims of each caption, as `limner.evaluation.Row` holds them."""
        return [tuple(_claim(fact) for fact in truth.stated) for truth in self.truths]


class QaMeter:
    """How many of its image's questions a language model answers from a caption alone."""

    def __init__(self, exam: Exam):
        """With the answerer, and how it is asked."""
        self.exam = exam
        self.asked: list[tuple[Drawn, ...]] = []
        self.answers: list[list[Answer]] = []

    def add(self, captions: Sequence[str], samples: Sequence[Sample]) -> None:
        """Ask all questions of a batch's samples once, the options in an order of the sample's own.

        Raises:
            UserError: none of the first samples has questions.
        """
        asked = [self._shuffled(sample) for sample in samples]
        self.asked += asked
        self._have_questions(least=LOOKED_AT)
        seed = number(self.exam.settings.seed) % 2**31
        self.answers += self.exam.answers(captions, asked, seed=seed)

    def values(self) -> dict[str, Floats]:
        """The group "qa"; what was not answered is left out of the accuracy, and counted.

        Raises:
            UserError: not one sample has questions.
        """
        self._have_questions(least=1)
        columns: dict[str, list[float]] = {"qa_accuracy": [], "qa_cannot_answer": [], "qa_answered": []}
        for drawn, answers in zip(self.asked, self.answers, strict=True):
            said = [(answer, each) for answer, each in zip(answers, drawn, strict=True) if answer.letter]
            columns["qa_accuracy"].append(Mean.of([answer.right for answer, _ in said]).value)
            cannot = [float(answer.letter == each.cannot) for answer, each in said if each.cannot]
            columns["qa_cannot_answer"].append(Mean.of(cannot).value)
            columns["qa_answered"].append(Mean(float(len(said)), float(len(drawn))).value)
        return {name: np.array(values, dtype=np.float64) for name, values in columns.items()}

    def questions(self) -> list[tuple[dict[str, object], ...]]:
        """What was asked of each caption and answered, as `limner.evaluation.Row` holds it."""
        return [
            tuple(answer.shown(each) for answer, each in zip(answers, drawn, strict=True))
            for drawn, answers in zip(self.asked, self.answers, strict=True)
        ]

    def _shuffled(self, sample: Sample) -> tuple[Drawn, ...]:
        settings = self.exam.settings
        return tuple(
            shuffled(question, random.Random(number(settings.seed, sample.id, place)), settings.cannot_answer)
            for place, question in enumerate(questions_of(sample))
        )

    def _have_questions(self, *, least: int) -> None:
        if len(self.asked) >= least and not any(self.asked):
            raise UserError(
                f"metrics: qa: not one of {len(self.asked)} samples has questions; "
                "`limner data questions` writes some"
            )


def _claim(fact: Fact) -> dict[str, object]:
    return {"start": fact.words[0], "end": fact.words[1], "true": fact.true, "kind": fact.kind}
