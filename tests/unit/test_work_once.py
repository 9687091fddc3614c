"""What a step computes once and holds once: calls of the towers and copies of weights, counted."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from transformers import Blip2QFormerModel, Blip2VisionModel

import tiny
import tiny_judges
from limner import captioners, config
from limner.captioners.base import is_adapter
from limner.decoding import Decoding
from limner.rollout import roll_out
from limner.train import Trainer

BATCH = 12
MICRO_BATCH = 2
"""Several micro-batches a step, with gradient and without."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A captioner, an ITM model with the same vision tower, and one with another."""
    folder = tmp_path_factory.mktemp("checkpoints")
    captioner = tiny.blip2(folder / "captioner")
    return {
        "captioner": captioner,
        "same": tiny_judges.itm(folder / "same", captioner=captioner),
        "other": tiny_judges.itm(folder / "other"),
    }


@contextmanager
def training(
    checkpoints: dict[str, Path], folder: Path, *more: str, itm: str, captions: int = 1
) -> Iterator[Trainer]:
    recipe = config.load(
        "tiny/vlrm",
        [
            f"captioner.path={checkpoints['captioner']}",
            *([f"rewards.itm.path={checkpoints[itm]}"] if itm in checkpoints else []),
            f"update.captions={BATCH * captions}",
            f"update.micro_batch={MICRO_BATCH}",
            f"rollout.captions={captions}",
            "rollout.max_new_tokens=8",
            "update.steps=100",
            "evaluate.data=null",
            "evaluate.every=0",
            "evaluate.best=null",
            *more,
        ],
    )
    trainer = Trainer(recipe, folder)
    try:
        yield trainer
    finally:
        trainer.close()


@contextmanager
def counted_rows() -> Iterator[Counter[type]]:
    """Rows that went through every vision tower and every Q-Former of the process."""
    rows: Counter[type] = Counter()

    def count(module: torch.nn.Module, inputs: object, output: object) -> None:
        if isinstance(module, Blip2VisionModel | Blip2QFormerModel):
            rows[type(module)] += len(output.last_hidden_state)  # type: ignore[attr-defined]

    handle = register_module_forward_hook(count)
    try:
        yield rows
    finally:
        handle.remove()


@pytest.mark.parametrize("captions", [1, 3])
def test_an_image_goes_through_the_vision_tower_once_a_step(checkpoints, tmp_path, captions: int) -> None:
    with training(checkpoints, tmp_path, itm="same", captions=captions) as trainer, counted_rows() as rows:
        trainer.step()
        assert rows[Blip2VisionModel] == BATCH
        # For generation, for the policy's gradient, and every caption with its image for the reward.
        assert rows[Blip2QFormerModel] == BATCH + BATCH + BATCH * captions
        trainer.step()
        assert rows[Blip2VisionModel] == 2 * BATCH


CROSS_ENTROPY = [
    "rollout.of=references",
    *(f"rewards.{name}=null" for name in ("itm", "fluency", "bad_phrases", "repeats", "no_eos")),
    "advantage={kind: constant}",
    "objective={kind: cross_entropy}",
]


@pytest.mark.parametrize("trained", ["[qformer]", "[vision_model.encoder.layers.2, qformer]"])
def test_cross_entropy_runs_tower_and_q_former_once(checkpoints, tmp_path, trained: str) -> None:
    """Nothing is generated: no prefix is made but that of the log-probabilities with gradient."""
    with (
        training(
            checkpoints, tmp_path, *CROSS_ENTROPY, f"captioner.train={trained}", itm="", captions=2
        ) as trainer,
        counted_rows() as rows,
    ):
        trainer.step()
    assert rows == {Blip2VisionModel: BATCH, Blip2QFormerModel: BATCH}


def test_a_generation_and_values_share_one_prefix(checkpoints) -> None:
    policy = captioners.load(str(checkpoints["captioner"]), device="cpu")
    inputs = policy.encode(tiny.samples(3))
    with counted_rows() as rows:
        made = policy.generate(inputs, Decoding(max_new_tokens=4), captions=2)
        policy.hidden(inputs, made.tokens, made.caption_mask)
        policy.hidden(inputs.select(torch.tensor([2, 0])), made.tokens[:2], made.caption_mask[:2])
    assert rows == {Blip2QFormerModel: 3}


def test_a_reward_with_another_vision_tower_runs_it_once_an_image(checkpoints, tmp_path) -> None:
    with (
        training(checkpoints, tmp_path, itm="other", captions=3) as trainer,
        counted_rows() as rows,
    ):
        trainer.step()
    assert rows[Blip2VisionModel] == 2 * BATCH


def test_values_run_neither_the_vision_tower_nor_the_q_former(checkpoints, tmp_path) -> None:
    with training(checkpoints, tmp_path, itm="same") as trainer:
        rollouts = rolled_out(trainer)
        scores = trainer.judge(rollouts)
        with counted_rows() as rows:
            trainer.critic.backward(rollouts, scores)
    assert not rows


def test_a_value_step_leaves_log_probabilities_bit_equal(checkpoints, tmp_path) -> None:
    with training(checkpoints, tmp_path, itm="same") as trainer:
        rollouts = rolled_out(trainer)
        asked = (rollouts.inputs, rollouts.tokens, rollouts.caption_mask)
        before = trainer.policy.logprobs(*asked)
        alone = trainer.policy.lm_logprobs(rollouts.tokens, rollouts.caption_mask)
        scores = trainer.judge(rollouts)
        values = []
        for step in range(3):
            valued, _ = trainer.critic.backward(rollouts, scores)
            values.append(valued.values)
            trainer.optimisers["value"].step(step + 100)
        assert not torch.equal(values[0], values[2]), "the value function must have learnt something"
        assert torch.equal(trainer.policy.logprobs(*asked), before)
        assert torch.equal(trainer.policy.lm_logprobs(rollouts.tokens, rollouts.caption_mask), alone)


@pytest.mark.parametrize("part", ["language_model", "vision"])
def test_memory_holds_one_copy_of_the_frozen_models(checkpoints, tmp_path, part: str) -> None:
    before = live_tensors()  # held until the end, so that no address of theirs is given away again
    with training(checkpoints, tmp_path, itm="same") as trainer:
        trainer.step()
        named = getattr(trainer.policy, part).named_parameters()
        weights = [p for name, p in named if p.dim() > 1 and not is_adapter(name)]
        trained = {tuple(p.shape) for p in trainer.optimisers["policy"].parameters.values()}
        shapes = {tuple(p.shape) for p in weights} - trained
        assert len(shapes) >= 3
        alike = [tensor for tensor in live_tensors() if tuple(tensor.shape) in shapes]
        wanted = storages([weight for weight in weights if tuple(weight.shape) in shapes])
        assert storages(alike) - storages(before) == wanted


def rolled_out(trainer: Trainer):
    return roll_out(
        trainer.policy,
        trainer.batches.next(),
        trainer.recipe.rollout,
        captions=1,
        micro_batch=MICRO_BATCH,
        needs=trainer.judge.needs,
        generator=torch.Generator().manual_seed(0),
    )


def live_tensors() -> list[torch.Tensor]:
    """Every tensor of the process that something can still reach."""
    gc.collect()
    return [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]


def storages(tensors: list[torch.Tensor]) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}
