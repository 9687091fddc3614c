"""What limner's speed is measured against computes the same step: captions, returns, losses and gradients."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from limner import config
from limner.captioners.stepwise import drawn
from limner.critic import adapter_parameters
from limner.data.batches import Batches
from limner.train import Trainer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recipe(tmp_path: Path) -> config.Recipe:
    script("shapes").build("tiny", tmp_path)
    return config.load(
        "tiny/vlrm",
        [
            f"captioner.path={tmp_path / 'captioner'}",
            f"rewards.itm.path={tmp_path / 'itm'}",
            "rollout.max_new_tokens=10",
            "update.captions=12",
            "update.micro_batch=12",
            "update.steps=100",
            "run.sample_every=1",
            "evaluate.data=null",
            "evaluate.every=0",
            "evaluate.best=null",
        ],
    )


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft asks for it
def test_the_plain_version_computes_the_same_step(
    recipe: config.Recipe,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    trainer = Trainer(recipe, tmp_path / "run")
    request.addfinalizer(trainer.close)
    plain = script("plain_vlrm").PlainVlrm(recipe, device=cpu, dtype=torch.float32)
    plain.head.load_state_dict(trainer.critic.head.state_dict())
    theirs = dict(plain.value_lm.named_parameters())
    adapter = adapter_parameters(trainer.policy)
    pairs = {name: theirs[in_peft(name)] for name in adapter}
    with torch.no_grad():
        for name, parameter in pairs.items():
            parameter.copy_(adapter[name])
    batches = Batches(recipe.data, 12, seed=recipe.run.seed)
    torch.manual_seed(0)  # the trainer's own at its first step
    with monkeypatch.context() as patch:  # transformers draws from its own shares, by limner's numbers
        patch.setattr(torch, "multinomial", lambda shares, num_samples: drawn(shares, None)[:, None])
        made = plain.step(batches.next(), 0)
    batches.close()
    row = trainer.step()
    close = {"rtol": 2e-3, "atol": 1e-6}
    assert row["loss/value"] == pytest.approx(made.losses["value"], rel=1e-3)
    assert row["loss/policy"] == pytest.approx(made.losses["policy"], rel=1e-3, abs=1e-5)
    for ours, other in zip(trainer.policy.trained().values(), plain.trained, strict=True):
        torch.testing.assert_close(ours.grad, other.grad, **close)
    for name, parameter in pairs.items():
        torch.testing.assert_close(adapter[name].grad, parameter.grad, **close)


def in_peft(name: str) -> str:
    """The name of an adapter's parameter in a peft model of the decoder alone."""
    return "base_model.model." + name.removeprefix("model.").replace(".value.", ".default.")
