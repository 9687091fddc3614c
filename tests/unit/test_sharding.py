"""What ranks share: batches, random numbers, weights; and what is computed again instead of kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
import tiny_vl
from limner.captioners import auto, blip2
from limner.captioners.base import Policy
from limner.captioners.stepwise import SampleDraws
from limner.captioners.tree import PrefixedLM
from limner.config import Run
from limner.data.shared import moved
from limner.decoding import Decoding, Rollout
from limner.rollout import drawn, roll_out
from limner.sharding import Weights, blocks
from limner.types import Sample

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
FAMILIES = {"blip2": blip2, "auto": auto}
DECODING = Rollout(max_new_tokens=6, min_new_tokens=3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("captioners")
    return {"blip2": tiny.blip2(folder / "blip2"), "auto": tiny_vl.llava(folder / "llava")}


def loaded(folders: dict[str, Path], kind: str, **more: bool) -> Policy:
    train = ("lora(q,v)",) if kind == "blip2" else ("*",)
    return FAMILIES[kind].Captioner(str(folders[kind]), train=train, **more).load(**CPU)


def test_items_move_from_ranks_with_too_many_to_ranks_with_too_few() -> None:
    # Items 0, 1, 3, 4, 6, 7 can be used: of three ranks the first read three, the last none.
    assert moved([0, 1, 3, 4, 6, 7], ranks=3, quota=2) == {6: 2, 7: 2}
    assert moved([0, 1, 2, 3], ranks=2, quota=2) == {}


def test_a_sample_draws_the_same_in_every_batch(folders: dict[str, Path]) -> None:
    policy, samples = loaded(folders, "blip2"), tiny.samples(4)
    draws = SampleDraws((11, 22, 33, 44))

    def texts(chosen: slice, micro_batch: int) -> tuple[str, ...]:
        return roll_out(
            policy, samples[chosen], DECODING, captions=2, micro_batch=micro_batch, needs=frozenset(),
            generator=draws.part(chosen),
        ).texts  # fmt: skip

    whole = texts(slice(0, 4), 8)
    assert len(set(whole)) > 1
    assert texts(slice(0, 4), 1) == whole
    assert texts(slice(2, 4), 8) == whole[4:]
    written = [Sample(str(n), (), tuple("abcdef")) for n in range(4)]
    assert drawn(written, 3, draws)[6:] == drawn(written[2:], 3, draws.part(slice(2, 4)))


def kept_and_gradients(policy: Policy, recompute: bool) -> tuple[int, dict[str, torch.Tensor]]:
    """Bytes kept for the way back, and the gradients of the log-probabilities."""
    Weights(Run(recompute=recompute), policy, None)
    rollouts = roll_out(policy, tiny.samples(3), DECODING, captions=2, micro_batch=8, needs=frozenset(),
                        generator=torch.Generator().manual_seed(1))  # fmt: skip
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    policy.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = policy.logprobs(rollouts.inputs, rollouts.tokens, rollouts.caption_mask)
    made.sum().backward()
    return sum(kept.values()), {n: p.grad for n, p in policy.trained().items() if p.grad is not None}


@pytest.mark.parametrize("kind", ["blip2", "auto"])
def test_what_is_computed_again_gives_the_same_gradient_and_is_not_kept(
    folders: dict[str, Path], kind: str
) -> None:
    unpacked = {"packed": False} if kind == "auto" else {}
    more, gradients = kept_and_gradients(loaded(folders, kind, **unpacked), recompute=False)
    less, again = kept_and_gradients(loaded(folders, kind), recompute=True)
    assert less < 0.7 * more
    assert again.keys() == gradients.keys()
    assert all(torch.equal(again[name], gradient) for name, gradient in gradients.items())


def test_blocks_are_the_layers_of_all_transformers(folders: dict[str, Path]) -> None:
    policy = loaded(folders, "blip2")
    names = {name for name, module in policy.named_modules() if any(module is b for b in blocks(policy))}
    assert {name.rpartition(".")[0] for name in names} == {
        "model.vision_model.encoder.layers", "model.qformer.encoder.layer",
        "model.language_model.model.decoder.layers",
    }  # fmt: skip


def test_ranks_that_share_weights_run_the_blocks_even_with_nothing_to_feed(folders: dict[str, Path]) -> None:
    policy = loaded(folders, "auto")
    inputs = policy.encode(tiny.samples(2))
    made = policy.generate(inputs, Decoding(do_sample=False, max_new_tokens=1))
    assert made.tokens.shape == (2, 1)
    assert isinstance(policy.lm, PrefixedLM)
    runs: list[int] = []
    for block in blocks(policy.language_model):
        block.register_forward_pre_hook(lambda *_: runs.append(1))

    def found(together: bool) -> tuple[int, torch.Tensor, torch.Tensor]:
        policy.lm = replace(policy.lm, together=together)
        policy.zero_grad()
        runs.clear()
        logprobs = policy.logprobs(inputs, made.tokens, made.caption_mask)
        logprobs.sum().backward()
        head = policy.model.get_output_embeddings().weight.grad
        assert head is not None
        return len(runs), logprobs.detach(), head.clone()

    assert policy.lm.packs()
    alone, logprobs, gradient = found(False)
    shared, same, again = found(True)
    assert shared == 2 * alone
    assert torch.equal(same, logprobs)
    assert torch.equal(again, gradient)
