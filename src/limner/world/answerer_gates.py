"""What the answerer must reach before it is shipped, measured on questions about validation scenes.

It is measured on the Hugging Face directory as it lies on disk, that is after rounding to fp16, and as the
reward `qa_accuracy` asks: with its default prompt, by the likeliest letter.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from limner.answering.draw import Drawn, shuffled
from limner.answering.local import LocalModel
from limner.answering.prompt import Prompt
from limner.questions import LETTERS
from limner.world import answerer
from limner.world.captions import full, noisy, terse, varied
from limner.world.gates import Gate, Numbers
from limner.world.questions import KINDS, answer, questions_of
from limner.world.scenes import scene

SCENES = 300
"""The first so many scenes of the validation split."""
GATES = (
    Gate("answerer_full_right", 0.9),
    Gate("answerer_full_right_of_worst_kind", 0.85),
    Gate("answerer_empty_above_chance", 0.02, at_least=False),
    Gate("answerer_as_the_caption_says", 0.9),
)
TELLERS: dict[str, answerer.Teller] = {
    "full": lambda told, rng: full(told),
    "empty": lambda told, rng: "",
    "terse": terse,
    "varied": varied,
    "noisy": lambda told, rng: noisy(full(told), rng, 0.15),
    "training": answerer.heard,
}
"""Captions that are measured."""


@dataclass(frozen=True)
class Asked:
    """A question, what was answered, and what the caption says."""

    drawn: Drawn
    """The question as it was asked."""
    chosen: int
    """Place of the likeliest letter; the last is "can not answer"."""
    told: int
    """Place of the option that the caption states or implies; the last where it says none."""

    @property
    def right(self) -> bool:
        """Is it what the scene shows?"""
        return LETTERS[self.chosen] in self.drawn.right


def measure(folder: Path, seed: int) -> Numbers:
    """All numbers of the answerer in folder/answerer.

    Args:
        folder: holds answerer.
        seed: the world's seed.
    """
    model = LocalModel.load(str(folder / "answerer"), device=torch.device("cpu"), dtype=torch.float32)
    asked = {name: ask(model, tell, seed=seed, scenes=SCENES) for name, tell in TELLERS.items()}
    kinds = {
        kind: share([one.right for one in asked["full"] if one.drawn.question.kind == kind]) for kind in KINDS
    }
    chance = share([1 / len(one.drawn.options) for one in asked["empty"]])
    numbers = {f"answerer_{name}_right": share([one.right for one in rows]) for name, rows in asked.items()}
    same = {name: share([one.chosen == one.told for one in rows]) for name, rows in asked.items()}
    return {
        **numbers,
        **{f"answerer_full_right_{kind}": value for kind, value in kinds.items()},
        "answerer_full_right_of_worst_kind": min(kinds.values()),
        "answerer_chance": chance,
        "answerer_empty_above_chance": numbers["answerer_empty_right"] - chance,
        "answerer_as_the_caption_says": same["training"],
        **{
            f"answerer_as_{name}_captions_say": same[name]
            for name in ("full", "empty", "terse", "varied", "noisy")
        },
    }


def ask(
    model: LocalModel,
    tell: answerer.Teller,
    *,
    seed: int,
    scenes: int,
    split: str = "validation",
) -> list[Asked]:
    """All questions of some scenes, once each, asked about captions.

    Args:
        model: the answerer.
        tell: writes the captions.
        seed: the world's seed.
        scenes: how many, the first of the split.
        split: name of the split.
    """
    prompt = Prompt()
    drawn, captions = [], []
    for index in range(scenes):
        rng = random.Random(index)
        drawn.append([shuffled(question, rng) for question in questions_of(seed, index, split)])
        captions.append(tell(scene(seed, index, split), np.random.default_rng([index, 3])))
    groups = [
        [(prompt.conversation(caption, one), len(one.options)) for one in group]
        for caption, group in zip(captions, drawn, strict=True)
    ]
    rows = []
    for caption, group, found in zip(captions, drawn, model.letters(groups), strict=True):
        for one, scores in zip(group, found, strict=True):
            if scores.logprobs is None:
                raise RuntimeError(f"the answerer cannot read {one.question.text!r}: {scores.error}")
            rows.append(Asked(one, int(scores.logprobs.argmax()), told(caption, one)))
    return rows


def told(caption: str, drawn: Drawn) -> int:
    """Place of the option that a caption states or implies, in the order in which they are shown."""
    place = answer(caption, drawn.question)
    return len(drawn.options) - 1 if place is None else drawn.options.index(drawn.question.options[place])


def share(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)
