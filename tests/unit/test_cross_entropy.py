"""The cross-entropy stage in the one loop: its loss is transformers' own, and its captions are people's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import Blip2ForConditionalGeneration

import tiny
from limner import captioners, checkpoint, config
from limner.advantages.constant import Advantage
from limner.captioners.blip2 import Captioner
from limner.config import Update
from limner.decoding import Rollout
from limner.errors import UserError
from limner.learner import Learner
from limner.objectives.cross_entropy import Objective
from limner.rollout import drawn, roll_out
from limner.run import read_metrics
from limner.score import combine
from limner.train import Trainer, train
from limner.types import Rollouts, Sample
from limner.update import Optimiser

TEXTS = ("a red circle", "a green cross above a yellow square", "a star on black", "a blue square")
RECIPE = """
captioner:
  kind: blip2
  path: "{captioner}"
  prompt: "a"
  train: [query_tokens, qformer, "lora(q,v)"]
  lora_dropout: 0.2
data: {{kind: world, split: train, count: 40}}
rollout: {{of: references, max_new_tokens: 16}}
rewards: {{}}
advantage: {{kind: constant}}
objective: {{kind: cross_entropy, label_smoothing: 0.1}}
update: {{captions: 8, micro_batch: 4, lr: 3.0e-3, steps: {steps}, optimiser: adamw, weight_decay: 0.05}}
evaluate: {{every: 0}}
run: {{output: "{out}", name: run, device: cpu, checkpoint_every: 3, sample_every: 100}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.blip2(tmp_path_factory.mktemp("captioner"))


def recipe(folder: Path, out: Path, *overrides: str, steps: int = 6) -> config.Recipe:
    out.mkdir(exist_ok=True)
    (out / "xe.yaml").write_text(RECIPE.format(captioner=folder, out=out, steps=steps))
    return config.load(str(out / "xe.yaml"), overrides)


def referenced(texts: tuple[str, ...]) -> list[Sample]:
    return [
        replace(s, references=(t,) if t else ()) for s, t in zip(tiny.samples(len(texts)), texts, strict=True)
    ]


def learnt(
    policy: Any, samples: list[Sample], objective: Objective, *, micro_batch: int = 3
) -> tuple[Rollouts, float]:
    """The roll-outs of a cross-entropy step and its loss; the gradient is in the policy."""
    rollouts = roll_out(
        policy, samples, Rollout(), captions=1, micro_batch=micro_batch, needs=frozenset(), of="references"
    )
    targets = Advantage()(rollouts, combine(rollouts, {}, {}, {}))
    optimiser = Optimiser(policy.trained(), Update(captions=4, lr=1e-5, steps=1))
    _, logged = Learner(policy, objective, optimiser, micro_batch=micro_batch).backward(rollouts, targets)
    return rollouts, logged["loss/policy"].value


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_transformers_own(folder: Path, smoothing: float) -> None:
    policy = Captioner(str(folder), prompt="a").load(device=torch.device("cpu"), dtype=torch.float32)
    samples = referenced(TEXTS)
    _, loss = learnt(policy, samples, Objective(label_smoothing=smoothing))

    plain = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer, queries = policy.tokenizer, plain.config.num_query_tokens
    before = [plain.config.image_token_index] * queries + tokenizer("a")["input_ids"]
    after = [
        [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in TEXTS
    ]
    longest = max(map(len, after))
    ids = torch.tensor([before + row + [tokenizer.eos_token_id] * (longest - len(row)) for row in after])
    labels = torch.tensor([[-100] * len(before) + row + [-100] * (longest - len(row)) for row in after])
    images = [s.image for s in samples]
    pixels = torch.as_tensor(policy.processor(images=images, return_tensors="pt")["pixel_values"])
    out = plain(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
    expected = out.loss
    if smoothing:
        expected = cross_entropy(
            out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=smoothing
        )
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    theirs = dict(plain.named_parameters())["query_tokens"].grad
    # float32 sums in another order
    torch.testing.assert_close(policy.trained()["query_tokens"].grad, theirs, rtol=1e-3, atol=1e-6)


def test_captions_are_cut_and_end_as_those_of_the_policy(folder: Path) -> None:
    policy = captioners.load(str(folder), device="cpu")
    rollouts = roll_out(
        policy, referenced(TEXTS), Rollout(max_new_tokens=5), captions=1, micro_batch=1, needs=frozenset(),
        of="references",
    )  # fmt: skip
    assert rollouts.texts == ("a red circle", "a green cross above a", "a star on black", "a blue square")
    assert rollouts.ended.tolist() == [True, False, True, True]
    assert rollouts.lengths.tolist() == [4, 5, 5, 4]
    assert rollouts.logprobs[rollouts.caption_mask].isnan().all()
    assert not rollouts.logprobs[~rollouts.caption_mask].any()


def test_a_sample_without_references_takes_no_part(folder: Path) -> None:
    policy = Captioner(str(folder)).load(device=torch.device("cpu"), dtype=torch.float32)
    objective = Objective()
    rollouts, loss = learnt(policy, referenced((*TEXTS, "", " ")), objective, micro_batch=1)
    assert combine(rollouts, {}, {}, {}).scored.tolist() == [True] * 4 + [False] * 2
    _, without = learnt(policy, referenced(TEXTS), objective, micro_batch=1)
    assert loss == pytest.approx(without, rel=1e-6)
    _, nothing = learnt(policy, referenced(("", "")), objective)
    assert nothing != nothing, "a loss of nothing is NaN, which refuses the step"


def test_references_are_all_taken_before_one_is_taken_twice() -> None:
    samples = [Sample("a", (), ("1", "2", "3")), Sample("b", (), ("x",)), Sample("c", ())]
    generator = torch.Generator().manual_seed(0)
    texts = drawn(samples, 5, generator)
    assert sorted(texts[:3]) == ["1", "2", "3"]
    assert texts[3:5] == texts[:2]
    assert texts[5:] == ["x"] * 5 + [""] * 5
    assert drawn(samples, 5, torch.Generator().manual_seed(0)) == texts
    firsts = {drawn(samples, 1, generator)[0] for _ in range(30)}
    assert firsts == {"1", "2", "3"}


def test_a_run_learns_and_a_resumed_one_is_the_same(folder: Path, tmp_path: Path) -> None:
    """Dropout and the choice of references are the same, too."""
    whole = train(recipe(folder, tmp_path / "whole"))
    losses = [row["loss/policy"] or 0.0 for row in read_metrics(whole)]
    assert losses[-1] < losses[0] - 0.3
    assert all(row["policy/probability"] is None for row in read_metrics(whole))

    broken = recipe(folder, tmp_path / "broken")
    trainer = Trainer(broken, tmp_path / "broken" / "run")
    for _ in range(4):
        trainer.step()
    trainer.close()
    torch.rand(7)
    train(broken, resume=trainer.folder)
    assert [row["loss/policy"] for row in read_metrics(trainer.folder)] == losses
    states = [
        load_file(checkpoint.choose(run, "last") / "policy.safetensors") for run in (whole, trainer.folder)
    ]
    assert any("lora" in name for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_samples_without_references_are_rejected_and_counted(folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "data" / "picture.png"
    picture.parent.mkdir()
    tiny.samples(1)[0].image.save(picture)
    rows = [
        '{"id": "a", "image": "picture.png", "captions": ["a red circle"]}',
        '{"id": "b", "image": "picture.png"}',
    ]
    (picture.parent / "rows.jsonl").write_text("\n".join(rows) + "\n")
    run = train(
        recipe(
            folder, tmp_path / "out", f'data={{kind: jsonl, path: "{picture.parent}/rows.jsonl"}}', steps=1
        )
    )
    assert read_metrics(run)[0]["unscored"] == 0
    assert read_metrics(run)[0]["rejected"]
    assert "no reference caption" in (run / "rejects.jsonl").read_text()


def test_a_run_without_rewards_is_read_back(folder: Path, tmp_path: Path) -> None:
    made = recipe(folder, tmp_path / "out")
    (tmp_path / "resolved.json").write_text(json.dumps(made.resolved()))
    assert config.load_resolved(tmp_path / "resolved.json").settings == made.settings


def test_only_references_need_no_rewards(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rewards: \{\}: empty"):
        recipe(folder, tmp_path / "out", "rollout.of=policy")
    with pytest.raises(UserError, match=r"rollout\.of: .*did you mean"):
        recipe(folder, tmp_path / "out", "rollout.of=reference")
