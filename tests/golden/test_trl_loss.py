"""Advantages and losses of GRPO and RLOO are TRL's own, on the same log-probs, rewards and masks.

Real trainers of TRL hold a small language model. Their `_generate_and_score_completions` draws captions and
makes the advantages, their `_compute_loss` the loss; for the latter the log-probabilities are given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from limner.advantages import base as advantages
from limner.advantages.group_relative import Advantage as GroupRelative
from limner.advantages.leave_one_out import Advantage as LeaveOneOut
from limner.objectives.clipped_ratio import Objective
from limner.rewards.base import NoInputs
from limner.types import Part, Rollouts, Sample, Scores, Targets, Words

pytestmark = [
    pytest.mark.slow,  # TRL takes ten seconds to import
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # TRL's use of transformers' older names
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*TRL_EXPERIMENTAL.*"),
]

GROUP, SAMPLES, TOKENS = 4, 4, 12
CAPTIONS = GROUP * SAMPLES
REWARDS = [0.2, 0.5, 0.8, 0.1, 1.0, 1.0, 1.0, 1.0, -3.0, 2.5, 0.7, 0.0, 0.3, 0.9, 0.4, 0.4]
"""The second sample has no spread."""
UNSCORED: list[float | None] = [0.2, None, 0.8, 0.1, 1.0, None, 1.0, 1.0, None, None, 0.7, None, *[None] * 4]
"""Of the third sample one caption is scored, of the fourth none."""
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = [*SPECIAL, *(f"w{n}" for n in range(12))]
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(words), num_key_value_heads=2, max_position_embeddings=32,
                    pad_token_id=0, bos_token_id=1, eos_token_id=2, **size)
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("language_model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trainer_of(kind: str, checkpoint: Path, rewards: list[float | None], **settings: Any) -> Any:
    """A real trainer whose reward function gives the rewards, and whose policy has moved from its start."""
    import trl
    from datasets import Dataset

    made, config = {"grpo": (trl.GRPOTrainer, trl.GRPOConfig), "rloo": (trl.RLOOTrainer, trl.RLOOConfig)}[
        kind
    ]
    trainer = made(
        model=LlamaForCausalLM.from_pretrained(checkpoint),
        processing_class=PreTrainedTokenizerFast.from_pretrained(checkpoint),
        reward_funcs=lambda completions, **_: rewards,
        train_dataset=Dataset.from_list([{"prompt": "w1"}] * SAMPLES),
        args=config(
            output_dir=str(checkpoint / "out"), per_device_train_batch_size=CAPTIONS, num_generations=GROUP,
            max_completion_length=TOKENS, use_cpu=True, bf16=False, report_to=[], save_strategy="no",
            disable_tqdm=True, steps_per_generation=1, **settings,
        ),
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return trainer


def drawn(trainer: Any) -> dict[str, torch.Tensor]:
    """What TRL makes of captions that it draws itself."""
    torch.manual_seed(0)
    prompts = [{"prompt": f"w{n} w{n + 1}"} for n in range(SAMPLES) for _ in range(GROUP)]
    return trainer._generate_and_score_completions(prompts)


def logprobs(trainer: Any, model: Any, made: dict[str, torch.Tensor]) -> torch.Tensor:
    """(N, T) by TRL."""
    ids = torch.cat([made["prompt_ids"], made["completion_ids"]], 1)
    mask = torch.cat([made["prompt_mask"], made["completion_mask"]], 1)
    return trainer._get_per_token_logps_and_entropies(model, ids, mask, made["completion_ids"].shape[1])[0]


def rollouts(
    mask: torch.Tensor,
    *,
    old: torch.Tensor | None = None,
    reference: torch.Tensor | None = None,
    ended: torch.Tensor | None = None,
) -> Rollouts:
    """Ours of the same captions."""
    n, known = len(mask), torch.zeros(mask.shape)
    return Rollouts(
        tuple(Sample(str(i), ()) for i in range(n // GROUP)), NoInputs(n // GROUP), known.long(), mask.bool(),
        known if old is None else old, torch.ones(n, dtype=torch.bool) if ended is None else ended,
        ("",) * n, (Words((), ()),) * n, reference_logprobs=reference,
    )  # fmt: skip


def scores(rewards: list[float | None], mask: torch.Tensor) -> Scores:
    """The rewards on the last token of each caption."""
    values = torch.tensor([math.nan if reward is None else reward for reward in rewards])
    placed = torch.zeros(mask.shape)
    placed[torch.arange(len(mask)), mask.sum(1) - 1] = values.nan_to_num(nan=0.0)
    return Scores({"given": Part(values)}, placed, ~values.isnan())


@pytest.fixture(params=["all scored", "some unscored"])
def rewards(request: pytest.FixtureRequest) -> list[float | None]:
    return list(REWARDS) if request.param == "all scored" else UNSCORED


def assert_equal(ours: Targets, theirs: dict[str, torch.Tensor]) -> None:
    mask = theirs["completion_mask"].bool()
    expected = torch.where(mask, theirs["advantages"][:, None], torch.zeros(()))
    assert expected.any()
    # sums of float32 rewards in another order, over a standard deviation
    torch.testing.assert_close(ours.advantages, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_relative_advantages_are_trls(checkpoint: Path, rewards, scale) -> None:
    made = drawn(trainer_of("grpo", checkpoint, rewards, scale_rewards=scale))
    mask = made["completion_mask"]
    assert_equal(GroupRelative(scale=scale)(rollouts(mask), scores(rewards, mask)), made)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_leave_one_out_advantages_are_trls_with_the_kl_in_the_reward(
    checkpoint: Path, rewards, normalise: bool, beta: float
) -> None:
    trainer = trainer_of("rloo", checkpoint, rewards, beta=beta, normalize_advantages=normalise)
    made = drawn(trainer)
    old = start = logprobs(trainer, trainer.model, made).detach()
    if beta:
        start = logprobs(trainer, trainer.ref_model, made).detach()
        assert not torch.allclose(old, start, atol=0.1)
    rolled = rollouts(made["completion_mask"], old=old, reference=start)
    ours = LeaveOneOut(normalise=normalise, kl=beta)(rolled, scores(rewards, made["completion_mask"]))
    assert_equal(ours, made)


@pytest.mark.parametrize(
    ("kind", "advantage"),
    [("grpo", GroupRelative(truncated="mask")), ("rloo", LeaveOneOut(truncated="mask"))],
)
def test_truncated_captions_are_masked_as_trl_masks_them(
    checkpoint: Path, kind: str, advantage: advantages.Advantage
) -> None:
    """TRL empties their masks; their rewards stay in the baselines of the others."""
    rewards: list[float | None] = [*REWARDS]
    # beta: RLOO's default is not 0
    made = drawn(trainer_of(kind, checkpoint, rewards, mask_truncated_completions=True, beta=0.0))
    ended = made["completion_mask"].any(1)
    assert 0 < int(ended.sum()) < CAPTIONS
    lengths = torch.where(ended, made["completion_mask"].sum(1), made["completion_ids"].shape[1])
    whole = (torch.arange(made["completion_ids"].shape[1]) < lengths[:, None]).int()
    ours = advantage(rollouts(whole, ended=ended), scores(rewards, whole))
    assert torch.equal(ours.target_mask, made["completion_mask"].bool())
    assert_equal(ours, made)


MASK = torch.arange(TOKENS) < torch.tensor([12, 1, 3, 7, 2, 12, 9, 5, 4, 4, 12, 8, 1, 6, 2, 11])[:, None]
LOSSES = {
    "grpo": ({}, {"normalise": "sequence_mean"}),
    "bnpo": ({}, {"normalise": "token_mean"}),
    "dapo": ({}, {"normalise": "token_mean"}),
    "dr_grpo": ({}, {"normalise": "constant_length", "length": TOKENS}),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        {"normalise": "sequence_mean", "ratio": "caption_mean"},
    ),
}
"""Settings of TRL and ours that are the same loss, by TRL's `loss_type`."""


@pytest.fixture(scope="module")
def grpo(checkpoint: Path) -> Any:
    return trainer_of("grpo", checkpoint, list(REWARDS))


@pytest.fixture(scope="module")
def rloo(checkpoint: Path) -> Any:
    return trainer_of("rloo", checkpoint, list(REWARDS), epsilon=0.1, epsilon_high=0.3)


def given() -> Iterator[torch.Tensor]:
    """Log-probabilities now, before the update and as the run started, (N, T), and advantages (N,)."""
    generator = torch.Generator().manual_seed(2)
    now = -2 * torch.rand(MASK.shape, generator=generator)
    yield now
    for _ in range(2):
        yield now + 0.3 * torch.randn(MASK.shape, generator=generator)
    yield torch.randn(CAPTIONS, generator=generator)


def by_trl(
    trainer: Any, now: torch.Tensor, **inputs: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """TRL's loss of these log-probabilities, and its gradient to them."""
    free = now.clone().requires_grad_()
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (free, torch.zeros_like(free), None)
    mask = inputs.pop("mask", MASK.int())
    assert mask is not None
    ids = torch.zeros(MASK.shape, dtype=torch.long)
    loss = trainer._compute_loss(
        trainer.model,
        {"prompt_ids": ids[:, :1], "prompt_mask": torch.ones_like(ids[:, :1]), "completion_ids": ids,
         "completion_mask": mask, "num_items_in_batch": mask.sum(), **inputs},
    )  # fmt: skip
    return loss.detach(), torch.autograd.grad(loss, free)[0]


def by_us(
    objective: Objective, now: torch.Tensor, rolled: Rollouts, advantage: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    free = now.clone().requires_grad_()
    mask = rolled.caption_mask
    targets = Targets(torch.where(mask, advantage[:, None], torch.zeros(())), mask)
    loss = (objective.losses(free, rolled, targets) * objective.weights(mask)).sum()
    return loss.detach(), torch.autograd.grad(loss, free)[0]


@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize(("beta", "by_ratio"), [(0.0, True), (0.04, True), (0.04, False)])
@pytest.mark.parametrize("clips", [(0.2, 0.2), (0.1, 0.28)])
@pytest.mark.parametrize("name", LOSSES)
def test_the_clipped_ratio_is_trls_grpo(
    grpo: Any, name: str, clips, beta: float, by_ratio: bool, on_policy: bool
) -> None:
    theirs, ours = LOSSES[name]
    now, old, start, advantage = given()
    grpo.beta, (grpo.epsilon_low, grpo.epsilon_high) = beta, clips
    grpo.args.use_bias_correction_kl = by_ratio
    grpo.loss_type = theirs.get("loss_type", name)
    grpo.importance_sampling_level = theirs.get("importance_sampling_level", "token")
    grpo._metrics["train"].clear()
    expected = by_trl(
        grpo,
        now,
        advantages=advantage,
        ref_per_token_logps=start,
        old_per_token_logps=None if on_policy else old,
    )
    objective = Objective(clip_low=clips[0], clip_high=clips[1], kl=beta, kl_by_ratio=by_ratio, **ours)
    rolled = rollouts(MASK, old=now if on_policy else old, reference=start)
    got = by_us(objective, now, rolled, advantage)
    torch.testing.assert_close(got, expected)
    assert expected[1].any()

    logged = {name: values[0] for name, values in grpo._metrics["train"].items()}
    targets = Targets(advantage[:, None].expand(MASK.shape), MASK)
    measured = objective.measures(now, rolled, targets)
    if objective.ratio == "token":  # TRL counts a caption's ratio once, we on each of its tokens
        clipped = measured["policy/clip_fraction"].value
        assert clipped == pytest.approx(logged["clip_ratio/region_mean"], rel=1e-5)
        assert (clipped == 0) == on_policy
    if beta:
        assert measured["policy/kl_reference"].value == pytest.approx(logged["kl"], rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_where_captions_take_no_part_trl_divides_by_all_and_we_by_those_that_do(grpo: Any, name: str) -> None:
    """Known: the same but for the factor N / n, and the same where the mean is over tokens."""
    theirs, ours = LOSSES[name]
    now, old, start, advantage = given()
    mask = MASK & (torch.arange(CAPTIONS) % 3 > 0)[:, None]
    grpo.beta, grpo.epsilon_low, grpo.epsilon_high, grpo.args.use_bias_correction_kl = 0.04, 0.2, 0.2, True
    grpo.loss_type = theirs.get("loss_type", name)
    grpo.importance_sampling_level = theirs.get("importance_sampling_level", "token")
    loss, gradient = by_trl(
        grpo, now, advantages=advantage, ref_per_token_logps=start, old_per_token_logps=old, mask=mask.int()
    )
    factor = 1 if ours["normalise"] == "token_mean" else CAPTIONS / int(mask.any(1).sum())
    got = by_us(Objective(kl=0.04, **ours), now, rollouts(mask, old=old, reference=start), advantage)
    torch.testing.assert_close(got, (loss * factor, gradient * factor))


@pytest.mark.parametrize("on_policy", [True, False])
def test_the_clipped_ratio_of_captions_is_trls_rloo(rloo: Any, on_policy: bool) -> None:
    now, old, _, advantage = given()
    old = now if on_policy else old
    expected = by_trl(rloo, now, advantages=advantage, old_logps=(old * MASK).sum(1))
    objective = Objective(clip_low=0.1, clip_high=0.3, ratio="caption")
    got = by_us(objective, now, rollouts(MASK, old=old), advantage)
    torch.testing.assert_close(got, expected)
    moved = expected[1][MASK].abs() > 0
    assert moved.all() if on_policy else 0 < int(moved.sum()) < int(MASK.sum())


def test_a_whole_step_has_trls_gradient_of_every_parameter(checkpoint: Path) -> None:
    """Rewards to advantages to loss, on captions that TRL drew, with the KL to the start."""
    trainer = trainer_of("grpo", checkpoint, UNSCORED[:8] + UNSCORED[:8], beta=0.04, loss_type="bnpo")
    made = drawn(trainer)
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, made).backward()
    expected = {name: p.grad.clone() for name, p in trainer.model.named_parameters()}

    mask = made["completion_mask"]
    now = logprobs(trainer, trainer.model, made)
    start = logprobs(trainer, trainer.ref_model, made).detach()
    rolled = rollouts(mask, old=now.detach(), reference=start)
    targets = GroupRelative()(rolled, scores(UNSCORED[:8] + UNSCORED[:8], mask))
    # TRL pulls unscored captions to the start too; here they take no part at all
    targets = Targets(targets.advantages, mask.bool())
    objective = Objective(normalise="token_mean", kl=0.04)
    trainer.model.zero_grad()
    (objective.losses(now, rolled, targets) * objective.weights(targets.target_mask)).sum().backward()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])
