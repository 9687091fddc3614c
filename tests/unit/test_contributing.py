"""The components that CONTRIBUTING.md shows run as they stand, and a recipe trains with all of them."""

import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import tiny
from limner import component, config
from limner.caption import caption
from limner.decoding import Decoding
from limner.errors import UserError
from limner.export import export
from limner.rewards.base import plain
from limner.run import read_metrics
from limner.train import train
from limner.types import Part, Scores
from limner.world import models
from limner.world.tokenizer import BOS, EOS, IMAGE, PAD, VOCABULARY

BLOCKS = re.findall(
    r"```python\n# src/limner/(\w+)/(\w+)\.py\n(.*?)```",
    (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf8"),
    flags=re.DOTALL,
)
KINDS = {group: f"shown_{stem}:{component.CLASSES[group]}" for group, stem, _ in BLOCKS}


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """Every block as a module of the current folder, as a user's own code."""
    for _, stem, code in BLOCKS:
        (tmp_path / f"shown_{stem}.py").write_text(code, encoding="utf8")
        monkeypatch.delitem(sys.modules, f"shown_{stem}", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def llava(tmp_path) -> Path:
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = CLIPVisionConfig(image_size=48, patch_size=16, **size)
    special = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    text = LlamaConfig(vocab_size=len(VOCABULARY), num_key_value_heads=2, **special, **size)
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, vision_feature_layer=-2)
    )
    tiny.sharpen(model, 0)
    models.save(model, tmp_path / "llava", kind="captioner")
    return tmp_path / "llava"


def test_there_is_one_of_each():
    assert sorted(KINDS) == ["advantages", "captioners", "data", "rewards"]


def test_the_reward_scores_its_examples():
    reward = component.find("rewards", KINDS["rewards"])
    for example in reward.examples:
        assert reward()(plain([example.caption])).values.tolist() == [example.expected]
    assert reward(limit=1)(plain(["two dogs and three cats"])).values.tolist() == [1.0]


def test_the_advantage_is_the_distance_to_the_group_s_mean():
    rollouts = plain(["a", "a b", "a b c", "a"], samples=tiny.samples(2))
    earned = torch.zeros(rollouts.caption_mask.shape)
    earned[:, 0] = torch.tensor([1.0, 3.0, 5.0, 6.0])
    scored = torch.tensor([True, True, True, False])
    scores = Scores({"x": Part(earned.sum(1))}, earned * scored[:, None], scored)
    targets = component.find("advantages", KINDS["advantages"])()(rollouts, scores)
    assert targets.advantages[:, 0].tolist() == [-1.0, 1.0, 0.0, 0.0]
    assert not targets.advantages[~rollouts.caption_mask].any()
    assert not targets.target_mask[3].any()


def test_the_data_source_reads_its_list(tmp_path):
    tiny.samples(1)[0].image.save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text("a.png\nb.png\n")
    source = component.find("data", KINDS["data"])
    found = source(path=str(tmp_path / "list.txt"))
    assert list(found.ids()) == ["a.png", "b.png"]
    assert [sample.id for sample in found] == ["a.png"]
    with pytest.raises(UserError, match="no such file"):
        source(path="missing.txt").ids()


def test_the_captioner_scores_what_it_generates(llava, tmp_path):
    settings = component.find("captioners", KINDS["captioners"])(path=str(llava), prompt="a red")
    policy = settings.load(device=torch.device("cpu"), dtype=torch.float32)
    inputs = policy.encode(tiny.samples(3))
    made = policy.generate(
        inputs, Decoding(top_k=9, max_new_tokens=12), captions=2, generator=torch.Generator().manual_seed(0)
    )
    again = policy.logprobs(inputs, made.tokens, made.caption_mask)
    # float32 sums in another order
    torch.testing.assert_close(again, made.logprobs, rtol=1e-4, atol=2e-5)
    assert all(name.startswith("model.multi_modal_projector.") for name in policy.trained())
    policy.save(tmp_path / "saved")
    saved = type(settings)(path=str(tmp_path / "saved"), prompt="a red")
    reloaded = saved.load(device=torch.device("cpu"), dtype=torch.float32)
    decoding = Decoding(do_sample=False, max_new_tokens=8)
    assert reloaded.caption(tiny.samples(3), decoding) == policy.caption(tiny.samples(3), decoding)


def test_a_recipe_trains_with_all_of_them(llava, tmp_path):
    samples = tiny.samples(4)
    for sample in samples:
        sample.image.save(tmp_path / f"{sample.id}.png")
    (tmp_path / "list.txt").write_text("".join(f"{sample.id}.png\n" for sample in samples))
    (tmp_path / "mine.yaml").write_text(
        f"""
captioner: {{kind: "{KINDS["captioners"]}", path: llava}}
data: {{kind: "{KINDS["data"]}", path: list.txt}}
rollout: {{captions: 4, max_new_tokens: 8}}
rewards: {{numbers: {{kind: "{KINDS["rewards"]}"}}, length: {{full: 4, zero: 8}}}}
advantage: {{kind: "{KINDS["advantages"]}"}}
objective: {{kind: policy_gradient, of: log_probability}}
update: {{captions: 16, lr: 0.01, steps: 2}}
run: {{name: mine, device: cpu}}
"""
    )
    folder = train(config.load("mine.yaml"))
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["unscored"] == 0 for row in rows)
    source = component.find("data", KINDS["data"])(path="list.txt")
    done = caption(source, Path("captions.jsonl"), model=str(folder), decoding=Decoding(do_sample=False))
    assert done.written == 4
    export(folder, Path("out"))
    card = Path("out", "README.md").read_text()
    assert "loads in transformers as `LlavaForConditionalGeneration`" in card
