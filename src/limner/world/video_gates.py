"""What the video captioner must reach before it is shipped, measured on the validation clips.

It is measured on the Hugging Face directory as it lies on disk, that is after rounding to fp16.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Blip2ForConditionalGeneration

from limner.data.video import Video, choose
from limner.world import models, video_models
from limner.world.clip_captions import alt_text, motions_right
from limner.world.clips import FPS, SPLITS, Clip, clip, pictures
from limner.world.gates import Gate, Numbers

FRAMES = 8
GATES = (
    Gate("video_motions_right", 0.9),
    Gate("video_alt_text_equal", 0.8),
    Gate("video_same_with_frames_reversed", 0.99),
)


@torch.no_grad()
def measure(folder: Path, seed: int) -> Numbers:
    """All numbers of the captioner in folder/video_captioner.

    Args:
        folder: holds video_captioner.
        seed: the world's seed.
    """
    model = Blip2ForConditionalGeneration.from_pretrained(folder / "video_captioner", dtype=torch.float32)
    told = [clip(seed, index, "validation") for index in range(SPLITS["validation"])]
    seen = torch.stack([features(model, clip, seed, index) for index, clip in enumerate(told)])
    said = video_models.generate(model, seen.flatten(1, 2))
    backwards = video_models.generate(model, seen.flip(1).flatten(1, 2))
    one = video_models.generate(model, seen[:, 0])
    right, stated = _motions(told, said)
    things = sum(len(clip.actors) for clip in told)
    return {
        "video_motions_right": right / max(1, stated),
        "video_motions_told": stated / things,
        "video_alt_text_equal": _share(said, [alt_text(clip) for clip in told]),
        "video_same_with_frames_reversed": _share(said, backwards),
        "video_motions_told_of_one_frame": _motions(told, one)[1] / things,
    }


def features(model: Blip2ForConditionalGeneration, told: Clip, seed: int, index: int) -> torch.Tensor:
    """(FRAMES, 37, WIDTH) of a clip's frames, uniformly sampled."""
    numbers = choose(Video(Path(), frames=FRAMES), [n / FPS for n in range(told.frames)], id="")
    images = models.pixels(pictures(seed, index, "validation", numbers))
    return models.image_features(model.vision_model, images)


def _motions(told: Sequence[Clip], said: Sequence[str]) -> tuple[int, int]:
    """Motions that are right, and that are told."""
    counts = [motions_right(clip, caption) for clip, caption in zip(told, said, strict=True)]
    return sum(right for right, _ in counts), sum(stated for _, stated in counts)


def _share(one: Sequence[str], other: Sequence[str]) -> float:
    """Share of equal captions."""
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)
