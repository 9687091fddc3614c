"""The miniature world: scenes with known facts, captions of them, and small models of the real classes.

It makes limner run, and be tested, anywhere and without a download. docs/world.md describes it.
"""

from pathlib import Path

MODELS = ("captioner", "itm", "clip", "clip_reward", "video_captioner", "answerer")
"""Names of the shipped models."""


def weights(name: str) -> Path:
    """Folder of a shipped model, a Hugging Face directory.

    Args:
        name: "captioner" (BLIP-2, says little), "itm" (BLIP-2 image-text matching, the reward), "clip"
            (for evaluation only), "clip_reward" (a second CLIP, a reward), "video_captioner" (BLIP-2 with
            an encoder-decoder, tells clips as alt text does) or "answerer" (a language model that answers
            questions from captions).

    Raises:
        ValueError: unknown name.
    """
    if name not in MODELS:
        raise ValueError(f"the miniature world has no model {name!r}; its models are {', '.join(MODELS)}")
    return Path(__file__).parent / "weights" / name
