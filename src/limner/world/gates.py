"""What the world's models must reach before they are shipped, measured on the validation split.

Everything is measured on the Hugging Face directories as they lie on disk, that is after rounding to fp16.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval, CLIPModel

from limner.world import clip, itm, models
from limner.world.captions import corrupt, false_relation, full, invent
from limner.world.scenes import Scene
from limner.world.tokenizer import framed, tokenizer
from limner.world.training import pictures
from limner.world.truth import Kind, Truth, check

SAMPLES = 5
"""Captions sampled a scene."""
_DETAILED = 0.6
"""A caption that covers more of its scene than this is detailed."""
_CHUNK = 250


@dataclass(frozen=True)
class Gate:
    """A number that must lie on one side of a limit."""

    name: str
    """Key of the measured numbers."""
    limit: float
    """The worst value that passes."""
    at_least: bool = True
    """Must the number be at least the limit, or at most?"""

    def passes(self, value: float) -> bool:
        """Is the value good enough? NaN is not."""
        return value >= self.limit if self.at_least else value <= self.limit


GATES = (
    Gate("clip_recall_at_1_of_full_captions", 0.90),
    Gate("itm_true_above_one_wrong_word", 0.85),
    Gate("itm_true_above_false_relation", 0.85),
    Gate("itm_true_above_invented_thing", 0.85),
    Gate("itm_true_above_invented_thing_alone", 0.85),
    Gate("itm_ladder_smallest_rise", 0.01),
    Gate("sampled_share_true", 0.97),
    Gate("sampled_detailed_share_true", 0.97),
    Gate("beam_words", 5.0, at_least=False),
    Gate("beam_coverage", 0.40, at_least=False),
)
Numbers = dict[str, float]


@torch.no_grad()
def measure(folder: Path, seed: int) -> Numbers:
    """All numbers of a built world.

    Args:
        folder: holds captioner, captioner_varied, itm and clip.
        seed: the world's seed.
    """
    scenes, images = pictures(seed, "validation")
    numbers = _clip_numbers(folder, scenes, images)
    numbers |= _itm_numbers(folder, scenes, images)
    numbers |= _captioner_numbers(folder, scenes, images)
    unseen, unseen_images = pictures(seed, "unseen")
    for split, told, shown in (("validation", scenes, images), ("unseen", unseen, unseen_images)):
        captions = generate(folder / "captioner_varied", shown)
        truths = _truths(told, captions)
        numbers |= {f"varied_greedy_{split}_{key}": value for key, value in _shares(truths).items()}
    return numbers


def _clip_numbers(folder: Path, scenes: Sequence[Scene], images: torch.Tensor) -> Numbers:
    numbers = {}
    captions = [full(scene) for scene in scenes]
    for name in ("clip", "clip_reward"):
        if not (folder / name).exists():
            continue
        model = CLIPModel.from_pretrained(folder / name, dtype=torch.float32).eval()
        similar = clip.similarities(model, captions, images)
        rank = (similar > similar.diag()[:, None]).sum(1)
        numbers[f"{name}_recall_at_1_of_full_captions"] = (rank == 0).float().mean().item()
    return numbers


def _itm_numbers(folder: Path, scenes: Sequence[Scene], images: torch.Tensor) -> Numbers:
    rng = np.random.default_rng(0)
    score = matcher_scores(folder / "itm", images)
    true = [full(scene, rng) for scene in scenes]
    truth_logits = score(range(len(scenes)), true)
    wrong = [corrupt(caption, rng, scene) for scene, caption in zip(scenes, true, strict=True)]
    higher = truth_logits > score(range(len(scenes)), wrong)
    numbers = {"itm_true_above_one_wrong_word": higher.float().mean().item()}
    kinds = [_wrong_kind(scene, caption) for scene, caption in zip(scenes, wrong, strict=True)]
    for kind in ("shape", "colour", "background", "relation"):
        chosen = torch.tensor([one == kind for one in kinds])
        numbers[f"itm_true_above_one_wrong_{kind}"] = higher[chosen].float().mean().item()
    false = [false_relation(scene, caption, rng) for scene, caption in zip(scenes, true, strict=True)]
    rows = [row for row, caption in enumerate(false) if caption is not None]
    lower = score(rows, [caption for caption in false if caption is not None])
    numbers["itm_true_above_false_relation"] = (truth_logits[rows] > lower).float().mean().item()
    more = score(range(len(scenes)), [invent(*pair, rng) for pair in zip(scenes, true, strict=True)])
    alone = torch.tensor([len(scene.things) == 1 for scene in scenes])
    numbers["itm_true_above_invented_thing"] = (truth_logits > more).float().mean().item()
    numbers["itm_true_above_invented_thing_alone"] = (truth_logits > more)[alone].float().mean().item()
    numbers["itm_logit_invented_thing"] = more.mean().item()
    numbers["itm_logit_false_relation"] = lower.mean().item()
    numbers["itm_logit_one_wrong_word"] = score(range(len(scenes)), wrong).mean().item()
    numbers["itm_logit_other_image"] = score(range(len(scenes)), true[1:] + true[:1]).mean().item()
    return numbers | _ladder_numbers(score, scenes)


def _wrong_kind(scene: Scene, caption: str) -> Kind:
    """Kind of the exchanged word: a wrong shape makes all that is said of it false, and counts as shape."""
    false: set[Kind] = {fact.kind for fact in check(scene, caption).stated if not fact.true}
    return "shape" if "shape" in false else false.pop()


def _ladder_numbers(score: Callable[..., torch.Tensor], scenes: Sequence[Scene]) -> Numbers:
    """Mean match logits of the ladder, over scenes with three things, where every rung adds a fact."""
    rows = [row for row, scene in enumerate(scenes) if len(scene.things) == 3]
    rungs = zip(*(itm.ladder(scenes[row]) for row in rows), strict=True)
    logits = torch.stack([score(rows, rung) for rung in rungs])
    rises = logits.diff(dim=0)
    names = ("1", "1_background", "2", "2_background", "all")
    means = {f"itm_ladder_{name}": mean.item() for name, mean in zip(names, logits.mean(1), strict=True)}
    return means | {
        "itm_ladder_smallest_rise": rises.mean(1).min().item(),
        "itm_ladder_share_of_rises": (rises > 0).float().mean().item(),
    }


def matcher_scores(folder: Path, images: torch.Tensor) -> Callable[..., torch.Tensor]:
    """A function (rows, captions) -> match logits of the pictures `rows` with the captions."""
    model = Blip2ForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
    features = models.image_features(model.vision_model, images)

    @torch.no_grad()
    def score(rows: Sequence[int], captions: Sequence[str]) -> torch.Tensor:
        shown, tokens = features[list(rows)].split(_CHUNK), framed(captions).split(_CHUNK)
        parts = [models.match(model, *part)[0][:, 1] for part in zip(shown, tokens, strict=True)]
        return torch.cat(parts)

    return score


@torch.no_grad()
def generate(folder: Path, images: torch.Tensor, **settings: object) -> list[str]:
    """Captions of a captioner on disk by transformers' generate; greedy without settings."""
    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    decode = tokenizer("captioner").batch_decode
    torch.manual_seed(0)
    limits = {"max_new_tokens": models.LONGEST_CAPTION, "do_sample": False, **settings}
    parts = [model.generate(pixel_values=part, **limits) for part in images.split(_CHUNK)]
    return [caption for part in parts for caption in decode(part, skip_special_tokens=True)]


def _captioner_numbers(folder: Path, scenes: Sequence[Scene], images: torch.Tensor) -> Numbers:
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 6, "num_return_sequences": SAMPLES}
    captions = generate(folder / "captioner", images, **sampling)
    truths = _truths([scene for scene in scenes for _ in range(SAMPLES)], captions)
    detailed = [truth for truth in truths if truth.coverage > _DETAILED]
    numbers = {f"sampled_{key}": value for key, value in _shares(truths).items()}
    numbers |= {f"sampled_detailed_{key}": value for key, value in _shares(detailed).items()}
    numbers["sampled_share_detailed"] = len(detailed) / len(truths)
    for name, settings in (("greedy", {}), ("beam", {"num_beams": 5, "length_penalty": 1.0})):
        captions = generate(folder / "captioner", images, **settings)
        shares = _shares(_truths(scenes, captions))
        numbers |= {f"{name}_{key}": value for key, value in shares.items()}
        numbers[f"{name}_words"] = sum(len(caption.split()) for caption in captions) / len(captions)
        numbers[f"{name}_distinct"] = len(set(captions))
    return numbers


def _truths(scenes: Sequence[Scene], captions: Sequence[str]) -> list[Truth]:
    return [check(scene, caption) for scene, caption in zip(scenes, captions, strict=True)]


def _shares(truths: Sequence[Truth]) -> Numbers:
    """Share of stated facts and relations that are true, and mean coverage; NaN where nothing is stated."""
    stated = sum(len(truth.stated) for truth in truths)
    true = sum(fact.true for truth in truths for fact in truth.stated)
    related = sum(truth.relations_stated for truth in truths)
    related_true = sum(truth.relations_true for truth in truths)
    return {
        "share_true": true / stated if stated else float("nan"),
        "relations_true": related_true / related if related else float("nan"),
        "coverage": sum(truth.coverage for truth in truths) / len(truths) if truths else float("nan"),
    }


def missed(numbers: Numbers, gates: Sequence[Gate] = GATES) -> list[Gate]:
    """Gates that the numbers do not pass."""
    return [gate for gate in gates if not gate.passes(numbers[gate.name])]


def store(numbers: Numbers, file: Path, *, seed: int, gates: Sequence[Gate] = GATES) -> None:
    """Write the numbers with the limits of the gates beside the weights."""
    rounded = {key: None if value != value else round(value, 4) for key, value in numbers.items()}
    limits = {gate.name: {"at_least" if gate.at_least else "at_most": gate.limit} for gate in gates}
    file.write_text(json.dumps({"seed": seed, "gates": limits, "measured": rounded}, indent=1) + "\n")


def table(
    numbers: Numbers,
    gates: Sequence[Gate] = GATES,
    title: str = "The world's models on 1,000 validation scenes",
) -> Table:
    """The numbers to print, gates first."""
    result = Table("number", "value", "gate", "", title=title)
    named = {gate.name: gate for gate in gates}
    for name in (*named, *(name for name in numbers if name not in named)):
        gate, value = named.get(name), numbers[name]
        limit = f"{'>=' if gate.at_least else '<='} {gate.limit:g}" if gate else ""
        verdict = "" if gate is None else "passed" if gate.passes(value) else "MISSED"
        result.add_row(name, f"{value:.3f}", limit, verdict)
    return result
