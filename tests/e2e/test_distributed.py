"""Two processes train what one would: each method, DDP and FSDP2; killed, and resumed on more or fewer."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

import ranks
import tiny
import tiny_judges
import tiny_vl
from limner import checkpoint, config, distributed
from limner.errors import UserError
from limner.run import read_metrics
from limner.train import Trainer
from patience import SECONDS, until

STEPS = 5
CLOSE = 1e-5
"""Of parameters, after steps of 2e-4: sums in another order, which Adam turns into steps of other length."""
SEEN_APART = ("time/", "watch/kl", "watch/lm_logprob")
"""What a rank measures by itself: its time, and drift on captions of its own."""

RECIPES = {
    "vlrm": """
captioner: {{kind: blip2, path: "{models}/blip2", train: [query_tokens, language_projection, "lora(q,v)"]}}
data: {{kind: folder, path: "{models}/pictures"}}
rollout: {{top_k: 10, max_new_tokens: 8}}
rewards:
  {{itm: {{path: "{models}/itm"}}, clip_contrast: {{path: "{models}/clip"}}, fluency: {{}}, no_eos: {{}}}}
advantage: {{kind: token_returns, value: {{lora_rank: 2, head: [2]}}}}
objective: {{kind: policy_gradient}}
update: {{captions: 8, micro_batch: 3, lr: 2.0e-4, steps: 100}}
evaluate: {{every: 3, samples: 4, metrics: [captions], decoding: {{num_beams: 2, max_new_tokens: 8}}}}
""",
    "scst": """
captioner: {{kind: blip2, path: "{models}/blip2", train: [query_tokens, language_projection]}}
data: {{kind: world, split: train, count: 30}}
rollout: {{captions: 2, max_new_tokens: 8}}
rewards: {{fluency: {{}}, cider: {{}}}}
advantage: {{kind: self_critical}}
objective: {{kind: policy_gradient, of: log_probability}}
update: {{captions: 8, micro_batch: 2, lr: 2.0e-4, steps: 100}}
evaluate: {{every: 0}}
""",
    "grpo": """
captioner: {{kind: auto, path: "{models}/llava", train: [model.language_model, lm_head]}}
data: {{kind: world, split: train, count: 30}}
rollout: {{captions: 3, max_new_tokens: 8}}
rewards: {{length: {{weight: 1.0, full: 3, zero: 9}}, no_eos: {{}}}}
advantage: {{kind: group_relative, scale: batch}}
objective: {{kind: clipped_ratio, kl: 0.1, normalise: token_mean}}
update: {{captions: 12, micro_batch: 3, lr: 2.0e-4, steps: 100, passes: 2}}
evaluate: {{every: 0}}
""",
}
EVERY = """
run: {{output: "{out}", name: {name}, device: cpu, sample_every: 4, checkpoint_every: 1, keep: 100}}
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny.blip2(folder / "blip2")
    tiny_vl.llava(folder / "llava")
    tiny_judges.clip(folder / "clip")
    tiny_judges.itm(folder / "itm", captioner=folder / "blip2")  # on one tower with the policy
    (folder / "pictures").mkdir()
    for number, sample in enumerate(tiny.samples(13)):
        sample.image.save(folder / "pictures" / f"{number:02d}.png")
    for number in (0, 5, 6):  # no pictures: the ranks read none of them, others stand in
        (folder / "pictures" / f"{number:02d}.png").write_bytes(b"\x89PNG")
    return folder


def written(method: str, name: str, out: Path, models: Path, sharding: str = "ddp") -> config.Recipe:
    file = out / f"{name}.yaml"
    file.write_text((RECIPES[method] + EVERY).format(models=models, out=out, name=name))
    return config.load(str(file), [f"run.sharding={sharding}"])


@pytest.fixture
def recipe(models: Path, tmp_path: Path):
    return lambda method, name, sharding="ddp": written(method, name, tmp_path, models, sharding)


def trained(recipe: config.Recipe, folder: Path, steps: int) -> None:
    """Go on with a run up to a step, as this rank."""
    with distributed.ranks(recipe) as shared:
        trainer = Trainer(shared, distributed.meet(lambda: folder))
        if trainer.weights.sharded:
            parts = [p for root in trainer.weights.roots for p in root.parameters()]
            held = sum(p.to_local().numel() for p in parts if isinstance(p, DTensor))
            assert held < 0.6 * sum(p.numel() for p in parts), "each rank holds about half of the weights"
        while trainer.progress.step < steps:
            trainer.step()
        trainer.close()


def state(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = checkpoint.choose(run, str(step))
    return {
        f"{file.stem}/{key}": tensor
        for file in folder.glob("*.safetensors")
        for key, tensor in load_file(file).items()
    }


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference between parameters."""
    assert one.keys() == other.keys()
    return max(float((one[k] - other[k]).abs().max()) for k in one if "/parameter/" in k)


def logged(run: Path) -> list[dict[str, float | None]]:
    return [
        {k: v for k, v in row.items() if k != "seconds" and not k.startswith(SEEN_APART)}
        for row in read_metrics(run)
    ]


@pytest.fixture(scope="module")
def one_process(models: Path, tmp_path_factory: pytest.TempPathFactory):
    """The run of one process with a method."""

    @functools.cache
    def run(method: str) -> Path:
        folder = tmp_path_factory.mktemp(method)
        alone = written(method, "one", folder, models)
        ranks.together(functools.partial(trained, alone, folder / "one", STEPS), count=1)
        return folder / "one"

    return run


@pytest.mark.slow
@pytest.mark.parametrize("method", RECIPES)
def test_two_ranks_train_as_one_process_does(recipe, one_process, method: str, tmp_path: Path) -> None:
    one, ddp, fsdp = one_process(method), tmp_path / "ddp", tmp_path / "fsdp"
    ranks.together(
        *(functools.partial(trained, recipe(method, f.name, f.name), f, STEPS) for f in (ddp, fsdp))
    )

    first, last = state(one, 1), state(one, STEPS)
    assert furthest(first, last) > 30 * CLOSE
    for other in (ddp, fsdp):
        assert furthest(last, state(other, STEPS)) < CLOSE
        for mine, theirs in zip(logged(one), logged(other), strict=True):
            assert theirs == pytest.approx(mine, rel=1e-3, abs=1e-5)
        if method == "vlrm":
            rejected = (one / "rejects.jsonl").read_text()
            ids = {json.loads(line)["id"] for line in rejected.splitlines()}
            assert ids == {"00.png", "05.png", "06.png"}
            assert (other / "rejects.jsonl").read_text() == rejected


@pytest.mark.slow
def test_a_checkpoint_of_two_ranks_is_one_of_one_process(recipe, one_process, tmp_path: Path) -> None:
    whole, run = one_process("vlrm"), tmp_path / "run"
    ranks.together(functools.partial(trained, recipe("vlrm", "run", "fsdp"), run, 2))
    ranks.together(functools.partial(trained, recipe("vlrm", "run"), run, 3), count=1)
    ranks.by_torchrun(lambda: trained(recipe("vlrm", "run"), run, 4))
    assert furthest(state(whole, 4), state(run, 4)) < CLOSE
    assert [row["step"] for row in read_metrics(run)] == [1, 2, 3, 4]


def rank_processes(launcher: int) -> dict[int, int]:
    """The processes that a launcher started, by rank."""
    out: dict[int, int] = {}
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        known = dict(
            line.partition("=")[::2] for line in Path(f"/proc/{child}/environ").read_text().split("\0")
        )
        if "RANK" in known:
            out[int(known["RANK"])] = int(child)
    return out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks the ranks up in /proc")
def test_a_killed_rank_ends_the_job_and_the_resume_is_bit_equal(recipe, tmp_path: Path) -> None:
    recipe("vlrm", "broken")
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    command = [sys.executable, "-m", "limner", "train", str(tmp_path / "broken.yaml"), "--launch", "2"]
    with (tmp_path / "said").open("wb") as said:
        job = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        until(lambda: len(read_metrics(broken)) >= 2 or job.poll() is not None)
        assert job.poll() is None, (tmp_path / "said").read_text()
        others = rank_processes(job.pid)
        os.kill(others[1], signal.SIGKILL)
        assert job.wait(SECONDS) == 2  # the other rank would wait for its peer for hours
    finally:
        job.kill()
        job.wait()
    assert not any(Path(f"/proc/{child}").exists() for child in others.values())
    text = " ".join((tmp_path / "said").read_text().split())
    assert "rank 1 of 2 was ended by SIGKILL" in text
    assert f"limner train --resume {broken} --launch 2" in text

    steps = len(read_metrics(broken)) + 2
    resumed = config.load_resolved(broken / "resolved.json")
    assert resumed.run.sharding == "ddp", "launching ranks means it"
    ranks.together(
        functools.partial(trained, resumed, broken, steps),
        functools.partial(trained, recipe("vlrm", "unbroken"), unbroken, steps),
    )
    got, expected = state(broken, steps), state(unbroken, steps)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    assert logged(broken) == logged(unbroken)


def test_a_batch_that_ranks_cannot_share_is_refused_at_once(recipe, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with (
        pytest.raises(UserError, match=r"update.captions: 8: 8 samples.*3 ranks; give a multiple of 3"),
        distributed.ranks(recipe("vlrm", "uneven")),
    ):
        pass
