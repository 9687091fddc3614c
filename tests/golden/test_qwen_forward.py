"""Qwen-VL against transformers alone: prompts, patches and positions are put together here by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer, Qwen2VLImageProcessorPil

import tiny_vl
from limner import captioners
from limner.captioners.base import Policy
from limner.decoding import Decoding
from limner.types import Sample
from limner.world import scenes

BUILDS = [tiny_vl.qwen2_vl, tiny_vl.qwen2_5_vl, tiny_vl.qwen3_vl, tiny_vl.qwen3_vl_moe]
SIZES = ((48, 48), (60, 24), (24, 36))
PROMPT = "a red"
CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # float32 sums in another order


def pictures() -> list[tuple[Image.Image, ...]]:
    """Samples of one picture and of two, no two of one shape."""
    drawn = [scenes.picture(0, i, "validation").resize(size) for i, size in enumerate(SIZES)]
    return [(drawn[0],), (drawn[1],), (drawn[2], drawn[0])]


@pytest.fixture(scope="module", params=BUILDS, ids=lambda build: build.__name__)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    build: Callable[[Path], Path] = request.param
    return build(tmp_path_factory.mktemp(build.__name__))


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return captioners.load(str(folder), device="cpu", prompt=PROMPT)


def by_hand(folder: Path, images: tuple[Image.Image, ...]) -> dict[str, torch.Tensor]:
    """The inputs of one sample: every picture has a token for each 2 x 2 patches."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    patches = Qwen2VLImageProcessorPil.from_pretrained(folder)(list(images), return_tensors="pt")
    grids = torch.as_tensor(patches["image_grid_thw"])
    text = "user: "
    for grid in grids:
        text += f"<|vision_start|>{'<|image_pad|>' * int(grid.prod() // 4)}<|vision_end|>"
    ids = torch.tensor(tokenizer(f"{text}{PROMPT}assistant: ")["input_ids"])[None]
    return {
        "input_ids": ids,
        "pixel_values": torch.as_tensor(patches["pixel_values"]),
        "image_grid_thw": grids,
        "mm_token_type_ids": (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int(),
    }


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_equal_those_of_generate(folder: Path, policy: Policy, beams: int) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    how = {"do_sample": False, "num_beams": beams, "min_new_tokens": 3, "max_new_tokens": 12}
    samples = [Sample(str(i), images) for i, images in enumerate(pictures())]
    made = policy.generate(policy.encode(samples), Decoding(**how))
    never = [model.config.image_token_id, model.config.video_token_id]
    for row, sample in enumerate(samples):
        given = by_hand(folder, sample.media)
        whole = model.generate(**given, **how, suppress_tokens=never)[0]
        expected = whole[given["input_ids"].shape[1] :]
        found = made.tokens[row][made.caption_mask[row]]
        assert found.tolist() == expected[: len(found)].tolist()
        assert len(expected) == len(found)


def test_logprobs_equal_those_of_forward(folder: Path, policy: Policy) -> None:
    """Three captions of each sample, in one batch here, in a row each by transformers' forward."""
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    samples = [Sample(str(i), images) for i, images in enumerate(pictures())]
    lengths = torch.tensor([5, 2, 7, 1, 6, 3, 4, 7, 2])
    tokens = torch.randint(4, 300, (9, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(7) < lengths[:, None]
    found = policy.logprobs(policy.encode(samples), tokens, mask)
    for row in range(9):
        given = by_hand(folder, samples[row // 3].media)
        caption = tokens[row, : lengths[row]][None]
        length = given["input_ids"].shape[1]
        given["input_ids"] = torch.cat([given["input_ids"], caption], 1)
        kinds = torch.zeros_like(caption, dtype=torch.int32)
        given["mm_token_type_ids"] = torch.cat([given["mm_token_type_ids"], kinds], 1)
        with torch.no_grad():
            logits = model(**given).logits[0, length - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, caption[0][:, None])[:, 0]
        torch.testing.assert_close(found[row, : lengths[row]], expected, **CLOSE)
        assert not found[row, lengths[row] :].any()
