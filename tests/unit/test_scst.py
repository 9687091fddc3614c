"""Self-critical training: greedy captions, beams as samples, and what published code got wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import tiny
from limner import config
from limner.advantages.self_critical import Advantage as SelfCritical
from limner.captioners.base import Policy
from limner.captioners.blip2 import Captioner
from limner.config import Update
from limner.data.batches import Batches
from limner.data.jsonl import Source
from limner.decoding import Decoding, Rollout
from limner.errors import UserError
from limner.learner import Learner
from limner.objectives.policy_gradient import Objective as PolicyGradient
from limner.rollout import micro_batches, roll_out
from limner.run import read_metrics
from limner.score import combine
from limner.train import train
from limner.types import Part, Rollouts
from limner.update import Optimiser, learning_rate

NO_NEEDS: frozenset[str] = frozenset()
RECIPE = """
captioner: {{kind: blip2, path: "{captioner}"}}
data: {{kind: world, split: train, count: 20}}
rollout: {{captions: 2, max_new_tokens: 8}}
rewards: {{cider: {{}}, length: {{full: 2, zero: 10}}}}
advantage: {{kind: self_critical}}
objective: {{kind: policy_gradient, of: log_probability}}
update: {{captions: 8, micro_batch: 4, lr: 1.0e-12, steps: 20}}
evaluate: {{every: 1, data: {{kind: world, split: validation}}, samples: 3, best: words,
            decoding: {{do_sample: false, num_beams: 1, max_new_tokens: 8}}}}
run: {{output: "{out}", name: run, device: cpu, sample_every: 100, checkpoint_every: 100}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.blip2(tmp_path_factory.mktemp("captioner"))


@pytest.fixture
def policy(folder: Path) -> Policy:
    """With every dropout of its models at one half, where it is not switched off."""
    settings = Captioner(str(folder), train=("query_tokens", "qformer", "lora(q,v)"), lora_dropout=0.5)
    loaded = settings.load(device=torch.device("cpu"), dtype=torch.float32)
    for module in loaded.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
        elif "dropout" in vars(module):
            vars(module)["dropout"] = 0.5  # OPT's own layers
    for name, parameter in loaded.trained().items():
        if "lora_B" in name:  # zero at the start, which would hide the adapter's dropout
            nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    return loaded


def recipe(folder: Path, out: Path, *overrides: str) -> config.Recipe:
    (out / "scst.yaml").write_text(RECIPE.format(captioner=folder, out=out))
    return config.load(str(out / "scst.yaml"), overrides)


def drawn(policy: Policy, rollout: Decoding, captions: int, *needs: str, micro_batch: int = 2) -> Rollouts:
    return roll_out(
        policy, tiny.samples(3), rollout, captions=captions, micro_batch=micro_batch, needs=frozenset(needs),
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip


def step_of(policy: Policy, rollouts: Rollouts, part: Part) -> dict[str, float]:
    """Backward of an SCST step with a given reward; what was logged."""
    targets = SelfCritical(baseline="mean")(rollouts, combine(rollouts, {"x": part}, {"x": 1.0}, {}))
    optimiser = Optimiser(policy.trained(), Update(captions=6, lr=1e-5, steps=1))
    learner = Learner(policy, PolicyGradient(of="log_probability"), optimiser, micro_batch=2)
    return {name: mean.value for name, mean in learner.backward(rollouts, targets)[1].items()}


@pytest.mark.parametrize("micro_batch", [1, 64])
def test_greedy_captions_are_those_of_greedy_search(policy: Policy, micro_batch: int) -> None:
    settings = Rollout(captions=3, temperature=2.0, max_new_tokens=9, min_new_tokens=2)
    rollouts = drawn(policy, settings, 3, "greedy", "lm_logprobs", micro_batch=micro_batch)
    greedy = rollouts.greedy
    assert greedy is not None
    wanted = Decoding(do_sample=False, max_new_tokens=9, min_new_tokens=2)
    expected = drawn(policy, wanted, 1, "lm_logprobs", micro_batch=64)
    assert greedy.texts == expected.texts
    assert greedy.captions == 1
    assert torch.equal(greedy.tokens, expected.tokens)
    torch.testing.assert_close(greedy.lm_logprobs, expected.lm_logprobs, rtol=1e-4, atol=1e-5)
    assert greedy.inputs is rollouts.inputs or micro_batch == 64, "memory holds the inputs once"
    assert drawn(policy, settings, 3).greedy is None
    assert all(part.greedy is None for _, part in micro_batches(rollouts, 3))


def test_the_greedy_caption_changes_nothing_in_the_samples(policy: Policy) -> None:
    settings = Rollout(captions=2, max_new_tokens=9)
    assert torch.equal(drawn(policy, settings, 2, "greedy").tokens, drawn(policy, settings, 2).tokens)


def test_beams_as_samples_are_distinct_and_have_the_policys_probabilities(policy: Policy) -> None:
    settings = Rollout(do_sample=False, num_beams=5, captions=5, min_new_tokens=2, max_new_tokens=9)
    rollouts = drawn(policy, settings, 5)
    for start in range(0, 15, 5):
        rows = range(start, start + 5)
        assert len({tuple(rollouts.tokens[n][rollouts.caption_mask[n]].tolist()) for n in rows}) == 5
    with torch.no_grad():
        again = policy.logprobs(rollouts.inputs, rollouts.tokens, rollouts.caption_mask)
    torch.testing.assert_close(rollouts.logprobs, again, rtol=1e-4, atol=1e-4)  # another batch size
    assert not rollouts.logprobs[~rollouts.caption_mask].any()


@pytest.mark.parametrize("beams", [False, True])
def test_dropout_is_off_while_searching_and_scoring(policy: Policy, beams: bool) -> None:
    settings = Rollout(captions=2, max_new_tokens=9)
    if beams:
        settings = Rollout(captions=2, max_new_tokens=9, do_sample=False, num_beams=3)

    def measured() -> tuple[torch.Tensor, torch.Tensor]:
        rollouts = drawn(policy, settings, 2)
        with torch.no_grad():
            return rollouts.logprobs, policy.logprobs(rollouts.inputs, rollouts.tokens, rollouts.caption_mask)

    torch.manual_seed(0)
    searched, scored = measured()
    torch.testing.assert_close(searched, scored, rtol=1e-4, atol=1e-4)  # cache or none, another batch size
    step_of(policy, drawn(policy, settings, 2), Part(torch.arange(6.0)))
    after = measured()
    assert torch.equal(after[0], searched), "a step with gradient leaves no dropout on"
    policy.model.train()
    with_dropout = measured()
    assert with_dropout[0].shape != with_dropout[1].shape or not torch.allclose(*with_dropout, atol=0.1)


def test_gradient_pass_has_the_adapters_dropout_only_where_it_is_asked_for(folder: Path) -> None:
    def gradients(dropout: float) -> list[torch.Tensor]:
        settings = Captioner(str(folder), train=("lora(q,v)",), lora_dropout=dropout)
        loaded = settings.load(device=torch.device("cpu"), dtype=torch.float32)
        rollouts = drawn(loaded, Rollout(captions=2, max_new_tokens=9), 2)
        out = []
        for _ in range(2):
            step_of(loaded, rollouts, Part(torch.arange(6.0)))
            out.append(torch.cat([p.grad.flatten() for p in loaded.trained().values() if p.grad is not None]))
        return out

    without, with_it = gradients(0.0), gradients(0.5)
    assert torch.equal(*without)
    assert not torch.equal(*with_it)


def test_captions_without_words_or_tokens_give_no_nan(policy: Policy) -> None:
    """The published score is a sum over a length, 0 / 0 where a caption is empty."""
    rollouts = drawn(policy, Rollout(captions=2, max_new_tokens=6), 2)
    tokens, mask = rollouts.tokens.clone(), rollouts.caption_mask.clone()
    end = policy.language_model.generation_config.eos_token_id
    tokens[0, 0], mask[0] = torch.as_tensor(end), torch.arange(mask.shape[1]) == 0  # no word
    mask[3] = False  # not even an end
    empty = rollouts.replace(tokens=tokens, caption_mask=mask, logprobs=rollouts.logprobs * mask)
    scores = combine(empty, {"x": Part(torch.arange(6.0))}, {"x": 1.0}, {})
    assert scores.scored.tolist() == [True, True, True, False, True, True]
    logged = step_of(policy, empty, Part(torch.arange(6.0)))
    assert math.isfinite(logged["loss/policy"])
    assert all(p.grad is None or p.grad.isfinite().all() for p in policy.trained().values())
    nothing = empty.replace(caption_mask=torch.zeros_like(mask))
    assert math.isnan(step_of(policy, nothing, Part(torch.arange(6.0)))["loss/policy"]), "refuses the step"
    assert all(p.grad is None or p.grad.isfinite().all() for p in policy.trained().values())


def test_nothing_on_the_way_to_the_captioner_changes_sides(policy: Policy, tmp_path: Path) -> None:
    """A flipped clip of "a man on the left" is a lie: over many epochs left stays left."""
    picture = Image.new("RGB", (64, 48), "black")
    picture.paste((255, 255, 255), (0, 0, 32, 48))
    picture.save(tmp_path / "left.png")
    rows = [json.dumps({"id": str(n), "image": "left.png", "captions": ["left"]}) for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    seen: list[torch.Tensor] = []
    vision = policy.vision
    assert vision is not None
    hook = vision.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pixel_values"].mean((1, 2))), with_kwargs=True
    )
    batches = Batches(Source(path=str(tmp_path / "rows.jsonl")), 4, seed=0)
    try:
        for _ in range(8):
            roll_out(
                policy, batches.next(), Rollout(max_new_tokens=2), captions=1, micro_batch=8, needs=NO_NEEDS,
                generator=torch.Generator().manual_seed(0),
            )  # fmt: skip
    finally:
        batches.close()
        hook.remove()
    columns = torch.cat(seen)
    half = columns.shape[1] // 2
    assert len(columns) == 32
    assert (columns[:, :half].mean(1) > columns[:, half:].mean(1) + 0.5).all()


def test_a_run_with_greedy_captions_logs_them_and_stops_when_nothing_improves(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = recipe(folder, tmp_path, "evaluate.patience=2")
    run = train(patient)
    rows = read_metrics(run)
    assert len(rows) == 3, "the first is the best, two are no better"
    assert all(row["reward/greedy"] is not None and row["reward/cider"] is not None for row in rows)
    said = " ".join(capsys.readouterr().err.split())
    assert "stopped at step 3 of 20: words rose in none of the last 2 evaluations" in said
    assert "qformer" in said, "what trains is shown first"
    progress = json.loads((run / "checkpoints" / "step-000003" / "progress.json").read_text())
    assert (progress["best_step"], progress["stale"]) == (1, 2)
    train(patient, resume=run)
    assert len(read_metrics(run)) == 3, "a stopped run stays stopped"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("advantage.baseline=mean", None),
        ("rollout.captions=1 advantage.baseline=mean", "rollout.captions: 1: .* at least 2 captions"),
        ("rollout.captions=1 advantage.baseline=leave_one_out", "at least 2 captions"),
        ("rollout.captions=1", None),
        ("evaluate.patience=3 evaluate.best=null", "evaluate.patience: 3: needs evaluate.best"),
        ("rollout.do_sample=false rollout.num_beams=2", None),
        ("rollout.do_sample=false rollout.num_beams=1", "cannot give 2 different captions"),
    ],
)
def test_contradictions(folder: Path, tmp_path: Path, override: str, message: str | None) -> None:
    if message is None:
        assert recipe(folder, tmp_path, *override.split()).rollout.captions
    else:
        with pytest.raises(UserError, match=message):
            recipe(folder, tmp_path, *override.split())


def test_the_published_warm_up_and_cosine() -> None:
    """LAVIS: the first step at 1e-8, 5e-5 after 1000 steps, 1e-5 at the end."""
    update = Update(
        captions=512,
        lr=5e-5,
        steps=15_000,
        warmup_steps=1000,
        warmup_from=1e-8,
        schedule="cosine",
        final_lr=1e-5,
    )
    rates = [learning_rate(update, step) for step in range(15_001)]
    assert rates[0] == pytest.approx(1e-8)
    assert rates[:1000] == pytest.approx([1e-8 + (5e-5 - 1e-8) * step / 1000 for step in range(1000)])
    assert rates[1000] == pytest.approx(5e-5)
    assert rates[8000] == pytest.approx(3e-5)
    assert rates[15_000] == pytest.approx(1e-5)
    assert learning_rate(update, 0, lr=5e-4) == pytest.approx(1e-7)
