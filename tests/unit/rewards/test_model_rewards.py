"""Rewards that hold a model: what they share, and the contrast over a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
import tiny_judges
from limner import captioners
from limner.captioners.base import Policy
from limner.rewards import clip_contrast, itm
from limner.rewards.base import plain
from limner.types import Rollouts
from limner.vision_language import load_clip, load_itm


@pytest.fixture(scope="module")
def captioner_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.blip2(tmp_path_factory.mktemp("captioner"))


@pytest.fixture
def policy(captioner_folder: Path) -> Policy:
    return captioners.load(str(captioner_folder), device="cpu")


def rollouts_of(policy: Policy, captions: int = 1) -> Rollouts:
    samples = tiny.samples(4)
    texts = tiny_judges.captions(4 * captions)
    rollouts = plain(texts, samples=samples)
    return rollouts.replace(inputs=policy.encode(samples))


@pytest.fixture
def vision_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of every pass through a BLIP-2 vision tower."""
    from transformers import Blip2VisionModel

    seen: list[int] = []
    forward = Blip2VisionModel.forward

    def counted(self, pixel_values, **options):
        seen.append(len(pixel_values))
        return forward(self, pixel_values, **options)

    monkeypatch.setattr(Blip2VisionModel, "forward", counted)
    return seen


def test_an_equal_vision_tower_is_shared(
    policy: Policy, captioner_folder: Path, tmp_path: Path, vision_passes: list[int]
) -> None:
    folder = str(tiny_judges.itm(tmp_path / "itm", captioner=captioner_folder))
    policy.vision.config.projection_dim = 512  # older files hold settings that mean nothing
    loaded = itm.Reward(path=folder).load(policy)
    assert isinstance(loaded, itm.Matching)
    own = {p.data_ptr() for p in loaded.model.vision.parameters()}
    assert own == {p.data_ptr() for p in policy.vision.parameters()}, "one copy in memory"
    rollouts = rollouts_of(policy, captions=3)
    assert vision_passes == [4]
    values = loaded(rollouts).values
    assert vision_passes == [4], "the captioner's features serve"
    alone = load_itm(folder)
    expected = alone.match(alone.encode([s.image for s in rollouts.samples]), rollouts.texts)
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
    assert values.std() > 0.01


@pytest.mark.parametrize("difference", ["weight", "preprocessing", "shape"])
def test_another_vision_tower_is_not(
    difference: str, policy: Policy, captioner_folder: Path, tmp_path: Path, vision_passes: list[int]
) -> None:
    folder = tiny_judges.itm(tmp_path / "itm", captioner=captioner_folder)
    if difference == "weight":
        with torch.no_grad():
            policy.vision.post_layernorm.bias[0] += 0.01
    elif difference == "preprocessing":
        settings = folder / "preprocessor_config.json"
        settings.write_text(settings.read_text().replace("0.5", "0.4"))
    else:
        policy.vision.config.layer_norm_eps = 1e-3
    loaded = itm.Reward(path=str(folder), micro_batch=6).load(policy)
    rollouts = rollouts_of(policy, captions=2)
    values = loaded(rollouts).values
    assert vision_passes == [4, 3, 1], "its own tower, once an image, no more than six captions at a time"
    alone = load_itm(str(folder))
    expected = alone.match(alone.encode([s.image for s in rollouts.samples]), rollouts.texts)
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


def test_an_itm_reward_leaves_the_captioner_as_it_was(
    policy: Policy, captioner_folder: Path, tmp_path: Path
) -> None:
    before = {name: p.requires_grad for name, p in policy.model.named_parameters()}
    itm.Reward(path=str(tiny_judges.itm(tmp_path / "itm", captioner=captioner_folder))).load(policy)
    assert {name: p.requires_grad for name, p in policy.model.named_parameters()} == before
    assert not policy.vision.training


def phi(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Equation 5 as it is written."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts)]
    s = unit[0] @ unit[1].T
    over_images = np.exp(s) / np.exp(s).sum(0, keepdims=True)
    over_texts = np.exp(s) / np.exp(s).sum(1, keepdims=True)
    d = np.diag(over_images * over_texts)
    return (d - d.mean()) / d.std()


@pytest.mark.parametrize("rows", [2, 7, 500])
def test_contrast_equals_the_formula(rows: int) -> None:
    random = np.random.default_rng(rows)
    images, texts = random.normal(size=(2, rows, 16))
    texts += images
    unit = [torch.nn.functional.normalize(torch.tensor(x), dim=1).float() for x in (images, texts)]
    found = clip_contrast.contrast(*unit)
    np.testing.assert_allclose(found.numpy(), phi(images, texts), rtol=1e-3, atol=1e-3)


def test_contrast_of_roll_outs_pairs_each_caption_with_its_image(policy: Policy, tmp_path: Path) -> None:
    folder = str(tiny_judges.clip(tmp_path / "clip"))
    rollouts = rollouts_of(policy, captions=2)
    found = clip_contrast.Reward(path=folder).load(policy)(rollouts).values
    clip = load_clip(folder)
    images = clip.images([sample.image for sample in rollouts.samples])[[0, 0, 1, 1, 2, 2, 3, 3]]
    expected = phi(images.double().numpy(), clip.texts(rollouts.texts).double().numpy())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)
    assert clip_contrast.Reward(path=folder).weight == 0.3


def test_contrast_leaves_out_what_is_not_a_number() -> None:
    vectors = torch.nn.functional.normalize(
        torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)), dim=2
    )
    images, texts = vectors[0], vectors[1].clone()
    texts[4, 3] = float("nan")
    found = clip_contrast.contrast(images, texts)
    others = [0, 1, 2, 3, 5]
    assert found[4].isnan()
    torch.testing.assert_close(found[others], clip_contrast.contrast(images[others], texts[others]))
    assert clip_contrast.contrast(images, texts * float("nan")).isnan().all()


def test_contrast_without_spread_is_zero() -> None:
    one = torch.tensor([[1.0, 0.0]])
    assert clip_contrast.contrast(one, one).tolist() == [0.0]
    assert clip_contrast.contrast(one.expand(3, 2), one.expand(3, 2)).tolist() == [0.0] * 3


def test_an_unscored_caption_leaves_the_others_alone(
    policy: Policy, captioner_folder: Path, tmp_path: Path
) -> None:
    folder = str(tiny_judges.itm(tmp_path / "itm", captioner=captioner_folder))
    loaded = itm.Reward(path=folder).load(policy)
    rollouts = rollouts_of(policy)
    whole = loaded(rollouts).values
    rollouts.inputs.tensors["features"][1, 0, 0] = float("inf")  # type: ignore[attr-defined]
    broken = loaded(rollouts).values
    assert broken.isnan().tolist() == [False, True, False, False]
    torch.testing.assert_close(broken[[0, 2, 3]], whole[[0, 2, 3]])
