"""Group advantages with the clipped ratio in real runs: several passes, the pull to the start, resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from limner import checkpoint, config, watch
from limner.captioners.base import Policy
from limner.captioners.blip2 import Captioner
from limner.config import Update
from limner.critic import Critic
from limner.decoding import Rollout
from limner.learner import Learner, Updates
from limner.objectives.base import Objective
from limner.objectives.clipped_ratio import Objective as ClippedRatio
from limner.objectives.policy_gradient import Objective as PolicyGradient
from limner.rollout import reference_logprobs, roll_out
from limner.run import read_metrics
from limner.score import combine
from limner.train import Trainer, train
from limner.types import Part, Rollouts, Scores, Targets
from limner.update import Optimiser, learning_rate

GROUP, SAMPLES = 3, 4
UPDATE = Update(captions=12, lr=3e-3, steps=9, warmup_steps=4)
RECIPE = """
captioner: {{kind: blip2, path: "{captioner}", train: [query_tokens, "lora(q,v)"]}}
data: {{kind: world, split: train, count: 20}}
rollout: {{captions: 2, max_new_tokens: 8}}
rewards: {{fluency: {{}}}}
advantage: {{kind: group_relative}}
objective: {{kind: clipped_ratio, kl: 0.1}}
update: {{captions: 8, micro_batch: 4, lr: 1.0e-2, steps: 4, passes: 3}}
evaluate: {{every: 0}}
run: {{output: "{out}", name: run, device: cpu, sample_every: 2, checkpoint_every: 2}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.blip2(tmp_path_factory.mktemp("captioner"))


@pytest.fixture
def policy(folder: Path) -> Policy:
    settings = Captioner(str(folder), train=("query_tokens", "qformer", "lora(q,v)"))
    return settings.load(device=torch.device("cpu"), dtype=torch.float32)


def recipe(folder: Path, out: Path, *overrides: str) -> config.Recipe:
    (out / "grpo.yaml").write_text(RECIPE.format(captioner=folder, out=out))
    return config.load(str(out / "grpo.yaml"), overrides)


def drawn(policy: Policy, *needs: str, start=None, micro_batch: int = 4) -> Rollouts:
    return roll_out(
        policy, tiny.samples(SAMPLES), Rollout(max_new_tokens=9), captions=GROUP, micro_batch=micro_batch,
        needs=frozenset(needs), generator=torch.Generator().manual_seed(1), start=start,
    )  # fmt: skip


def pushed(rollouts: Rollouts) -> tuple[Scores, Targets]:
    """Made-up rewards and advantages."""
    values = torch.randn(len(rollouts.tokens), generator=torch.Generator().manual_seed(3))
    scores = combine(rollouts, {"x": Part(values)}, {"x": 1.0}, {})
    return scores, Targets(values[:, None] * rollouts.caption_mask, rollouts.caption_mask)


def copied(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.trained().items()}


def updated(policy: Policy, objective: Objective, rollouts: Rollouts, *, passes: int):
    """Metrics of one step of `passes` passes; the policy is changed."""
    scores, targets = pushed(rollouts)
    optimiser = Optimiser(policy.trained(), UPDATE)
    learner = Learner(policy, objective, optimiser, micro_batch=4)
    critic = Critic(policy, None, micro_batch=4, optimiser=None)  # type: ignore[arg-type]
    metrics, refused = Updates(learner, critic, {"policy": optimiser}, passes=passes)(
        0, rollouts, scores, targets, {}
    )
    assert not refused
    return {name: mean.value for name, mean in metrics.items()}


def test_with_one_pass_the_ratio_is_one_and_the_step_that_of_the_policy_gradient(folder: Path) -> None:
    moved = []
    for objective in (ClippedRatio(), PolicyGradient(of="log_probability")):
        settings = Captioner(str(folder), train=("query_tokens", "lora(q,v)"))
        policy = settings.load(device=torch.device("cpu"), dtype=torch.float32)
        metrics = updated(policy, objective, drawn(policy), passes=1)
        moved.append(copied(policy))
        if isinstance(objective, ClippedRatio):
            assert metrics["policy/ratio"] == 1.0
            assert metrics["policy/clip_fraction"] == 0.0
            assert metrics["policy/taking_part"] == 1.0
    for name, tensor in moved[0].items():
        torch.testing.assert_close(tensor, moved[1][name])


def test_several_passes_are_steps_on_ratios_to_the_policy_before_the_first(folder: Path) -> None:
    """Against the same three steps written with torch.optim on the whole batch."""
    objective, passes = ClippedRatio(clip_low=0.02, clip_high=0.03, normalise="token_mean"), 3
    settings = Captioner(str(folder), train=("query_tokens", "lora(q,v)"))
    ours, plain = (settings.load(device=torch.device("cpu"), dtype=torch.float32) for _ in range(2))
    rollouts = drawn(ours)
    metrics = updated(ours, objective, rollouts, passes=passes)

    _, targets = pushed(rollouts)
    mask = rollouts.caption_mask
    optimiser = torch.optim.Adam(plain.trained().values(), lr=learning_rate(UPDATE, 0))
    old, losses, clipped = None, [], []
    for _ in range(passes):
        now = plain.logprobs(rollouts.inputs, rollouts.tokens, mask)
        old = now.detach() if old is None else old
        ratio = (now - old).exp()
        held = torch.minimum(ratio * targets.advantages, ratio.clamp(0.98, 1.03) * targets.advantages)
        loss = -held[mask].mean()
        losses.append(loss.item())
        out = ((targets.advantages > 0) & (ratio > 1.03)) | ((targets.advantages < 0) & (ratio < 0.98))
        clipped.append(out[mask].float().mean().item())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.trained().values(), UPDATE.clip_norm)
        optimiser.step()
    assert metrics["loss/policy"] == pytest.approx(sum(losses) / passes, rel=1e-4, abs=1e-6)
    assert metrics["policy/clip_fraction"] == pytest.approx(sum(clipped) / passes, abs=1e-6)
    assert clipped[0] == 0 < clipped[-1]
    for name, parameter in plain.trained().items():
        # Adam divides by the root of squares: gradients near 0 that differ in their last bits
        torch.testing.assert_close(ours.trained()[name], parameter, rtol=1e-3, atol=1e-5)


def test_a_pass_that_is_not_finite_ends_the_step(policy: Policy) -> None:
    rollouts = drawn(policy)
    scores, targets = pushed(rollouts)
    optimiser = Optimiser(policy.trained(), UPDATE)
    learner = Learner(policy, ClippedRatio(), optimiser, micro_batch=4)
    critic = Critic(policy, None, micro_batch=4, optimiser=None)  # type: ignore[arg-type]
    before = copied(policy)
    infinite = Targets(targets.advantages * torch.inf, targets.target_mask)
    _, refused = Updates(learner, critic, {"policy": optimiser}, passes=5)(0, rollouts, scores, infinite, {})
    assert "loss/policy" in refused
    assert all(torch.equal(parameter, before[name]) for name, parameter in policy.trained().items())


def test_the_reference_is_the_policy_as_it_was_whatever_it_is_now(policy: Policy) -> None:
    start = copied(policy)
    made = drawn(policy)
    expected = policy.logprobs(made.inputs, made.tokens, made.caption_mask).detach()
    updated(policy, ClippedRatio(), made, passes=3)
    moved = copied(policy)
    again = drawn(policy, "reference_logprobs", start=start)
    assert again.reference_logprobs is not None
    assert not torch.allclose(again.reference_logprobs, again.logprobs, atol=1e-2)
    assert not again.reference_logprobs[~again.caption_mask].any()
    for size in (GROUP, 64):  # batches of other shapes
        found = reference_logprobs(policy, made, size, start)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(p, moved[name]) for name, p in policy.trained().items())


def test_the_policy_is_itself_again_after_an_error(policy: Policy) -> None:
    start = copied(policy)
    updated(policy, ClippedRatio(), drawn(policy), passes=1)
    moved = copied(policy)
    inside: list[bool] = []

    def fail_inside() -> None:
        with policy.at(start):
            inside.append(all(torch.equal(p, start[name]) for name, p in policy.trained().items()))
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fail_inside()
    assert inside == [True]
    assert all(torch.equal(p, moved[name]) for name, p in policy.trained().items())
    with pytest.raises(ValueError, match="reference_logprobs"):
        reference_logprobs(policy, drawn(policy), 4, None)


def test_the_kl_to_the_start_is_that_of_all_captions_where_the_reference_is_known(policy: Policy) -> None:
    start = copied(policy)
    assert watch.kl_to_start(policy, start, drawn(policy), rows=64)["watch/kl"].value == pytest.approx(
        0, abs=1e-6
    )
    updated(policy, ClippedRatio(), drawn(policy), passes=3)
    made = drawn(policy, "reference_logprobs", start=start)
    known = watch.kl_to_start(policy, start, made, rows=64)["watch/kl"]
    found = watch.kl_to_start(policy, start, made.replace(reference_logprobs=None), rows=64)["watch/kl"]
    assert known.value == pytest.approx(found.value, rel=1e-4)
    assert known.value > 1e-3
    some = watch.kl_to_start(policy, start, made.replace(reference_logprobs=None), rows=GROUP)["watch/kl"]
    assert some.count == int(made.lengths[:GROUP].sum())


def test_a_value_function_learns_in_every_pass(folder: Path, tmp_path: Path) -> None:
    value = "advantage={kind: token_returns, value: {lora_rank: 1, head: [1]}}"
    steps = []
    for name in ("one", "three"):
        given = recipe(
            folder, tmp_path, value, f"run.name={name}", f"update.passes={1 if name == 'one' else 3}"
        )
        trainer = Trainer(given, tmp_path / name)
        row = trainer.step()
        trainer.close()
        moments = trainer.optimisers["value"].state()
        steps.append({float(t) for key, t in moments.items() if key.startswith("step/")})
        assert row["loss/value"] is not None
    assert steps == [{1.0}, {3.0}]


@pytest.mark.parametrize("advantage", ["group_relative", "leave_one_out"])
def test_a_resumed_run_with_several_passes_is_bit_equal(folder: Path, tmp_path: Path, advantage: str) -> None:
    chosen = (f"advantage={{kind: {advantage}, kl: 0.01}}",)
    whole = train(recipe(folder, tmp_path, *chosen, "run.name=whole"))
    broken = recipe(folder, tmp_path, *chosen, "run.name=broken")
    trainer = Trainer(broken, tmp_path / "broken")
    for _ in range(3):
        trainer.step()
    trainer.close()
    assert len(checkpoint.steps(tmp_path / "broken" / "checkpoints")) == 1
    train(broken, resume=tmp_path / "broken")

    def kept(run: Path) -> list[dict[str, float | None]]:
        return [
            {key: value for key, value in row.items() if not key.startswith(("seconds", "time/"))}
            for row in read_metrics(run)
        ]

    assert kept(tmp_path / "broken") == kept(whole)
    assert kept(whole)[-1]["policy/kl_reference"] != 0
    assert kept(whole)[0]["watch/kl"] is not None, "known in every step where the reference is"
