"""CapRL's recipes and its three stages of pretraining: published values, and two steps on small models."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import tiny_qwen
from limner import assemble, config, export, paths
from limner.curate import settings as curation
from limner.prism import writers
from limner.prism.asking import Answering
from limner.prism.items import INTRODUCTION
from limner.questions import Question
from limner.run import read_metrics
from limner.train import train
from limner.world import scenes

STAGES = ("1_alignment", "2_captions", "3_instructions")
GIVEN = ["data.path=D", "captioner.path=START"]
GRPO = ["advantage.kind=group_relative", "objective.kl=0.01"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision-language model, a language model, and what `limner assemble` makes of the two."""
    folder = tmp_path_factory.mktemp("models")
    tiny_qwen.qwen25_vl(folder / "vision")
    tiny_qwen.qwen25(folder / "language")
    assemble.assemble(folder / "vision", folder / "language", folder / "fresh")
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with a caption and a question each."""
    folder = tmp_path_factory.mktemp("rows")
    question = Question("Which shape is red?", ("the ring", "the star"), 1).plain()
    with (folder / "rows.jsonl").open("w") as file:
        for n in range(4):
            scenes.picture(0, n, "train").save(folder / f"{n}.png")
            row = {"id": str(n), "image": f"{n}.png", "captions": ["a red star"], "questions": [question]}
            file.write(json.dumps(row) + "\n")
    return folder / "rows.jsonl"


def two_steps(name: str, captioner: Path, rows: Path, out: Path, *more: str) -> Path:
    given = [
        f"captioner.path={captioner}", f"data.path={rows}", f"run.output={out}", "run.name=two",
        "run.device=cpu", "run.dtype=float32", "update.steps=2", "update.warmup_steps=0",
        "update.captions=4", "update.micro_batch=2", "rollout.max_new_tokens=6",
    ]  # fmt: skip
    run = train(config.load(name, [*given, *more]))
    logged = read_metrics(run)
    assert len(logged) == 2
    assert all(row["refused"] == row["rejected"] == 0.0 for row in logged)
    return run


def test_the_published_settings_of_caprl():
    """Of the published launch script, and CapRL++'s ramp (arXiv 2509.22647, 2606.09393)."""
    for name in ("qwen2.5vl3b", "qwen2.5vl3b_length"):
        recipe = config.load(f"caprl/{name}", GIVEN[:1])
        assert (recipe.update.captions, recipe.rollout.captions) == (128 * 8, 8)
        assert (recipe.update.lr, recipe.update.warmup_steps, recipe.update.steps) == (1e-6, 20, 1800)
        assert (recipe.rollout.temperature, recipe.rollout.max_new_tokens) == (1.0, 4096)
        assert (recipe.objective.kl, recipe.update.passes, recipe.run.dtype) == (0, 1, "bfloat16")
        assert recipe.captioner.prompt == "Please describe this image in detail."
        reward = recipe.rewards["qa_accuracy"]
        assert (reward.path, reward.questions) == ("Qwen/Qwen2.5-3B-Instruct", 8)
        assert ("length" in recipe.rewards) == name.endswith("length")
    length = recipe.rewards["length"]
    assert (length.weight, length.full, length.zero) == (0.2, 2048, 3072)


@pytest.mark.parametrize(
    ("stage", "trained", "lr", "batch"),
    [
        ("1_alignment", ("model.visual.merger",), 1e-3, 256),
        ("2_captions", ("*",), 4e-5, 256),
        ("3_instructions", ("*",), 2e-5, 128),
    ],
)
def test_the_published_settings_of_pretraining(stage, trained, lr, batch):
    """Of the pretraining comparison (arXiv 2509.22647), for limner and for LLaMA-Factory."""
    recipe = config.load(f"pretrain/{stage}", GIVEN)
    assert (recipe.captioner.train, recipe.update.lr, recipe.update.captions) == (trained, lr, batch)
    theirs = yaml.safe_load((paths.recipes() / "pretrain" / "llamafactory" / f"{stage}.yaml").read_text())
    devices = 8
    split = theirs["per_device_train_batch_size"] * theirs["gradient_accumulation_steps"] * devices
    assert (theirs["learning_rate"], split) == (lr, batch)
    frozen = theirs.get("freeze_vision_tower"), theirs.get("freeze_language_model")
    assert frozen == ((True, True) if stage == STAGES[0] else (False, False))


def test_the_published_settings_of_curation_and_prism_are_the_defaults():
    """arXiv 2509.22647, the filter of questions; and the published evaluation."""
    made = curation.Settings()
    assert (made.questions, made.temperature, made.draws, made.seen, made.unseen) == (5, 0.1, 4, 0.75, 0.25)
    asked = Answering()
    assert (writers.CAPTIONS, writers.PROMPT) == (4, "Please describe this image in detail")
    drawn = writers.DECODING
    assert (drawn.do_sample, drawn.temperature, drawn.max_new_tokens) == (True, 1.0, 2048)
    assert (asked.temperature, asked.max_new_tokens, asked.template) == (1.0, 2048, None)
    assert INTRODUCTION.format(caption="C") == (
        "Here is a detailed caption of an image: C. Please answer the question based on the caption."
    )


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("qwen2.5vl3b", []),
        ("qwen2.5vl3b", GRPO),
        ("qwen2.5vl3b_length", []),
        ("qwen2.5vl3b_lora", ["captioner.lora_rank=2", "captioner.max_pixels=null"]),
    ],
    ids=["rloo", "grpo", "length", "lora"],
)
def test_reinforcement_runs_two_steps_on_small_models_of_its_classes(name, more, models, rows, tmp_path):
    answerer = f"rewards.qa_accuracy.path={models / 'language'}"
    two_steps(f"caprl/{name}", models / "vision", rows, tmp_path, "rollout.captions=2", answerer, *more)


def test_the_grpo_of_the_header_is_the_one_tested():
    header = Path(config.paths.recipe("caprl/qwen2.5vl3b")).read_text()
    assert " ".join(GRPO) in header


def test_the_stages_run_one_after_another_and_the_first_moves_the_merger_alone(models, rows, tmp_path):
    start = models / "fresh"
    for stage in STAGES:
        run = two_steps(f"pretrain/{stage}", start, rows, tmp_path / stage)
        export.export(run, tmp_path / f"{stage}-out", which="last")
        before, after = (load_file(f / "model.safetensors") for f in (start, tmp_path / f"{stage}-out"))
        assert before.keys() == after.keys(), "the layout of the published checkpoints is kept"
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        if stage == STAGES[0]:
            assert moved == {name for name in before if name.startswith("visual.merger.")}
        else:
            assert any(name.startswith("model.layers.1.") for name in moved)
            assert any(name.startswith("visual.blocks.0.") for name in moved)
        start = tmp_path / f"{stage}-out"
