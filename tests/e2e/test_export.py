"""What a run trained, exported: plain transformers captions with it alike, the partial form goes round."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Blip2ForConditionalGeneration

import tiny
from limner import captioners, config
from limner.captioners.blip2 import Captioner
from limner.decoding import Decoding
from limner.errors import UserError
from limner.export import export, load_run
from limner.paths import resolve
from limner.run import read_metrics
from limner.train import train

HOW = {
    "do_sample": False,
    "num_beams": 3,
    "min_new_tokens": 2,
    "max_new_tokens": 20,
    "no_repeat_ngram_size": 2,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps of the shipped recipe, at a rate at which they show."""
    out = tmp_path_factory.mktemp("runs")
    overrides = [
        f"run.output={out}",
        "run.name=short",
        "update.steps=3",
        "update.captions=16",
        "update.warmup_steps=0",
    ]
    overrides += [
        "update.lr=3e-4",
        "evaluate.samples=4",
        "evaluate.test=null",
        "run.sample_every=2",
        "run.device=cpu",
    ]
    return train(config.load("tiny/vlrm", overrides))


def test_plain_transformers_captions_identically(run: Path, tmp_path: Path) -> None:
    policy = export(run, tmp_path / "captioner", which="last")
    samples = tiny.samples(6)
    model = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "captioner").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "captioner")
    pixels = policy.processor(images=[s.image for s in samples], return_tensors="pt")["pixel_values"]
    ids = model.generate(pixel_values=torch.as_tensor(pixels), **HOW)
    expected = [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
    assert policy.caption(samples, Decoding(**HOW)) == expected
    before = captioners.load("world:captioner", device="cpu").trained
    assert not before(), "nothing is trained unless it is asked for"


def test_the_export_is_the_trained_model(run: Path, tmp_path: Path) -> None:
    trained = load_run(run, "last", device="cpu").trained()
    export(run, tmp_path / "captioner", which="last")
    state = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "captioner").state_dict()
    start = Blip2ForConditionalGeneration.from_pretrained(resolve("world:captioner")).state_dict()
    assert set(state) == set(start), "no adapter, no wrapper, nothing missing"
    for name, tensor in state.items():
        assert torch.equal(tensor, trained[name] if name in trained else start[name]), name
    assert any(not torch.equal(state[name], start[name]) for name in trained)


@pytest.mark.parametrize("name", ["vlrm.pt", "vlrm.safetensors"])
def test_the_published_partial_form_goes_round(run: Path, tmp_path: Path, name: str) -> None:
    policy = export(run, partial=tmp_path / name, which="last")
    settings = Captioner(path="world:captioner", weights=str(tmp_path / name))
    again = settings.load(device=torch.device("cpu"), dtype=torch.float32)
    for key, parameter in policy.trained().items():
        assert torch.equal(again.trained()[key], parameter.half().float()), key


def test_what_cannot_be_exported_is_a_clear_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to write"):
        export(run)
    with pytest.raises(UserError, match="not empty"):
        export(run, run)
    with pytest.raises(UserError, match=r"\.safetensors or \.pt"):
        export(run, partial=tmp_path / "x.bin")
    with pytest.raises(UserError, match="no such file"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="no checkpoint '7'"):
        export(run, tmp_path / "out", which="7")


def test_a_run_leaves_what_the_docs_say(run: Path) -> None:
    for name in ("recipe.yaml", "resolved.json", "environment.json", "metrics.jsonl", "report.html"):
        assert (run / name).is_file(), name
    assert (run / "samples" / "step-000002.jsonl").is_file()
    assert (run / "checkpoints" / "step-000003" / "value.safetensors").is_file()
    assert list((run / "tensorboard").iterdir())
    assert [row["step"] for row in read_metrics(run)] == [1, 2, 3]
