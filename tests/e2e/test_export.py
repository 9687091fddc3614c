"""What a run trained, exported: plain transformers captions with it alike, the partial form goes round."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer, Blip2ForConditionalGeneration
from typer.testing import CliRunner

import tiny
from limner import captioners, checkpoint, cli, config, model_card
from limner.captioners.blip2 import Captioner
from limner.decoding import Decoding
from limner.errors import UserError
from limner.evaluation import Evaluation
from limner.export import Card, export, load_captioner, load_run
from limner.paths import resolve
from limner.run import read_metrics
from limner.train import train
from limner.types import Sample

HOW = {
    "do_sample": False,
    "num_beams": 3,
    "min_new_tokens": 2,
    "max_new_tokens": 20,
    "no_repeat_ngram_size": 2,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(runs: Path) -> Path:
    """A few steps of the shipped recipe, at a rate at which they show."""
    return _trained(runs, "short", "update.steps=3", "update.lr=3e-4")


@pytest.fixture(scope="module")
def lora_run(runs: Path) -> Path:
    """Cross-entropy that trains adapters in the language model, and a layer before it."""
    return _trained(
        runs, "lora", "update.steps=1", "update.lr=0.05", "rewards={}", "rollout.of=references",
        "objective={kind: cross_entropy}", "advantage={kind: constant}",
        'captioner.train=["lora(q,v)", language_projection]', "captioner.prompt=a",
    )  # fmt: skip


def _trained(runs: Path, name: str, *overrides: str) -> Path:
    always = [
        *(f"run.output={runs}", f"run.name={name}", "run.device=cpu", "run.sample_every=2"),
        *("update.captions=16", "update.warmup_steps=0", "evaluate.samples=4", "run.checkpoint_every=1"),
        *("evaluate.test={kind: world, split: test, count: 5}", "evaluate.test_decoding.num_beams=2"),
    ]
    return train(config.load("tiny/vlrm", [*always, *overrides]))


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


def test_the_code_in_the_docs_captions_as_the_policy(run: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    policy = export(run, tmp_path / "captioner")
    tiny.samples(1)[0].image.save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    said = printed(Path(__file__).parents[2] / "docs" / "export.md", capsys)
    shown = Sample("photo", (Image.open("photo.jpg").convert("RGB"),))
    decoding = Decoding(do_sample=False, num_beams=5, max_new_tokens=60)
    assert said == policy.caption([shown], decoding)[0] + "\n"


def test_the_export_is_the_trained_model(run: Path, tmp_path: Path) -> None:
    trained = load_run(run, "last", device="cpu").trained()
    export(run, tmp_path / "captioner", which="last")
    state = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "captioner").state_dict()
    start = Blip2ForConditionalGeneration.from_pretrained(resolve("world:captioner")).state_dict()
    assert set(state) == set(start), "no adapter, no wrapper, nothing missing"
    for name, tensor in state.items():
        assert torch.equal(tensor, trained[name] if name in trained else start[name]), name
    assert any(not torch.equal(state[name], start[name]) for name in trained)


def test_a_captioner_by_its_run_and_by_a_checkpoint_of_it(run: Path) -> None:
    steps = checkpoint.steps(run / "checkpoints")
    for named, which in ((run, "best"), *((path, str(checkpoint.step_of(path))) for path in steps)):
        found = load_captioner(str(named), device="cpu", dtype="float32").trained()
        for name, parameter in load_run(run, which, device="cpu").trained().items():
            assert torch.equal(found[name], parameter)


@pytest.mark.parametrize("name", ["vlrm.pt", "vlrm.safetensors"])
def test_the_published_partial_form_goes_round(run: Path, tmp_path: Path, name: str) -> None:
    policy = export(run, partial=tmp_path / name, which="last")
    settings = Captioner(path="world:captioner", weights=str(tmp_path / name))
    again = settings.load(device=torch.device("cpu"), dtype=torch.float32)
    for key, parameter in policy.trained().items():
        assert torch.equal(again.trained()[key], parameter.half().float()), key


def test_the_published_partial_form_is_whole_and_fits_plain_transformers(run: Path, tmp_path: Path) -> None:
    """Names, format and use of the files that VLRM's authors published: fp16, loaded with strict=False."""
    export(run, partial=tmp_path / "vlrm.pt")
    state = torch.load(tmp_path / "vlrm.pt", weights_only=True)
    assert {name.split(".")[0] for name in state} == {"query_tokens", "qformer", "language_projection"}
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    model = Blip2ForConditionalGeneration.from_pretrained(resolve("world:captioner"))
    found = model.load_state_dict(state, strict=False)
    assert not found.unexpected_keys
    assert {name.split(".")[0] for name in found.missing_keys} == {"vision_model", "language_model"}


def test_adapters_and_the_rest_are_the_whole_model(
    lora_run: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    """The published form for what stands before the language model, PEFT for the LoRA in it."""
    policy = export(lora_run, tmp_path / "whole", adapters=tmp_path / "lora", partial=tmp_path / "rest.pt")
    whole = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "whole").state_dict()
    model = Blip2ForConditionalGeneration.from_pretrained(resolve("world:captioner"))
    model.load_state_dict(torch.load(tmp_path / "rest.pt", weights_only=True), strict=False)
    held = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert held.keys() == {
        f"base_model.model.{name.replace('.policy.', '.')}" for name in policy.trained() if ".lora_" in name
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        model = PeftModel.from_pretrained(model, tmp_path / "lora").merge_and_unload()
        tiny.samples(1)[0].image.save(tmp_path / "photo.jpg")
        monkeypatch.chdir(tmp_path)
        said = [printed(Path(folder, "README.md"), capsys) for folder in ("whole", "lora")]
    for name, tensor in model.state_dict().items():  # one is rounded to half precision
        torch.testing.assert_close(tensor, whole[name], rtol=1e-3, atol=1e-5, msg=name)
    assert said[0] == said[1] != ""
    assert "rest.pt, which was written beside them, holds the rest" in Path("lora", "README.md").read_text()


def printed(page: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the Python of a page prints."""
    capsys.readouterr()
    exec(page.read_text().partition("```python\n")[2].partition("```")[0], {})
    return capsys.readouterr().out


def test_what_cannot_be_exported_is_a_clear_error(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="nothing to write"):
        export(run)
    with pytest.raises(UserError, match="not empty"):
        export(run, run)
    with pytest.raises(UserError, match=r"\.safetensors or \.pt"):
        export(run, partial=tmp_path / "x.bin")
    with pytest.raises(UserError, match="named for two exports"):
        export(run, out, adapters=tmp_path / "a" / ".." / "out")
    with pytest.raises(UserError, match=r"no such file: is .* the folder of a run"):
        export(tmp_path, out)
    with pytest.raises(UserError, match="no checkpoint '7'"):
        export(run, out, which="7")
    with pytest.raises(UserError, match="trained no LoRA"):
        export(run, out, adapters=tmp_path / "adapters")
    with pytest.raises(UserError, match="--license Apache 2: give Hugging Face's short name"):
        export(run, out, card=Card("Apache 2"))
    shutil.copytree(run, tmp_path / "new", ignore=shutil.ignore_patterns("step-*"))
    with pytest.raises(UserError, match="there is no checkpoint in this run yet"):
        export(tmp_path / "new", out)
    (tmp_path / "new" / "resolved.json").write_text("{")
    with pytest.raises(UserError, match=r"resolved\.json: is not as limner writes it"):
        export(tmp_path / "new", out)
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))


def test_only_an_older_export_is_replaced_and_only_where_asked(run: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "x.safetensors"
    out.mkdir()  # an empty folder is free
    export(run, out, partial=file)
    (out / "old").write_text("")
    with pytest.raises(UserError, match=r"out: is not empty; .*--overwrite"):
        export(run, out)
    with pytest.raises(UserError, match=r"x.safetensors: is there already; .*--overwrite"):
        export(run, partial=file)
    assert (out / "old").exists()
    export(run, out, partial=file, overwrite=True)
    assert (out / "model.safetensors").is_file()
    assert not (out / "old").exists()
    assert not list(tmp_path.glob(".*")), "nothing is left beside"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "README.md").write_text("mine")
    with pytest.raises(UserError, match="replaces an older export only"):
        export(run, tmp_path / "photos", overwrite=True)
    within = shutil.copytree(run, out / "run")
    with pytest.raises(UserError, match="which this export is made from"):
        export(within, out, overwrite=True)
    assert (out / "model.safetensors").is_file()


def test_a_failure_leaves_what_was_there(run: Path, tmp_path: Path, monkeypatch) -> None:
    export(run, tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_card, "write", full)
    with pytest.raises(UserError, match=r"out: cannot be written: .*No space left"):
        export(run, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == before
    assert not list(tmp_path.glob(".*"))


def test_the_card_tells_what_the_run_did(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "teller", card=Card("apache-2.0", samples=3))
    card = ModelCard.load(tmp_path / "teller" / "README.md")
    assert card.data.to_dict() == {
        "license": "apache-2.0", "library_name": "transformers", "pipeline_tag": "image-to-text",
        "tags": ["limner", "image-captioning", "reinforcement-learning"],
    }  # fmt: skip
    after = Evaluation.load(run / "evaluation" / "after.json")
    lines = card.text.splitlines()
    (coverage,) = [line for line in lines if line.startswith("| Scene covered")]
    value = after.summary["coverage"]
    assert f"| {value.value:.1%} | {value.low:.1%} to {value.high:.1%} |" in coverage
    assert "5 captions of world:test, with 95% intervals" in card.text
    assert "| step | 3 of 3, the best by facts\\_f1 on held-out samples |" in lines
    assert "| rejected | 0 |" in lines
    assert "| itm | itm | 1 |" in lines
    shown = [row for row in after.rows if any(line.endswith(f"| {row.caption} |") for line in lines)]
    assert len(shown) >= 3
    kept = {path.read_bytes() for path in (run / "evaluation" / "images").iterdir()}
    pictures = sorted((tmp_path / "teller" / "images").iterdir())
    assert [path.name for path in pictures] == ["1.png", "2.png", "3.png"]
    assert {path.read_bytes() for path in pictures} < kept
    assert str(run.parent) not in card.content, "nothing of this machine"


def test_the_recipe_in_the_card_is_the_run_s(run: Path, lora_run: Path, tmp_path: Path) -> None:
    for each in (run, lora_run):
        export(each, tmp_path / each.name)
        text = (tmp_path / each.name / "README.md").read_text()
        (tmp_path / "again.yaml").write_text(text.partition("```yaml\n")[2].partition("\n```")[0])
        again, first = config.load(tmp_path / "again.yaml"), config.load_resolved(each / "resolved.json")
        ours = ("run.output", "run.name", "run.device")
        assert {k: v for k, v in again.settings.items() if k not in ours} == {
            k: v for k, v in first.settings.items() if k not in ours
        }


def test_the_card_of_another_checkpoint_claims_no_measures(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out", which="2")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "The run measured its checkpoint of step 3, not this one of step 2." in text
    assert "| measure |" not in text
    assert "Drawn during training at this step." in text
    assert "**Fill in**" in text


def test_the_card_of_adapters_and_of_a_run_without_samples(lora_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(lora_run, tmp_path / "run")
    shutil.rmtree(run / "evaluation")
    shutil.rmtree(run / "samples")
    rows = [{"id": f"{n}.jpg", "reason": "not an image" if n else "empty file"} for n in range(3)]
    (run / "rejects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    logged = [
        json.loads(line) | {"refused": 1.0} for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logged))
    export(run, adapters=tmp_path / "lora")
    card = ModelCard.load(tmp_path / "lora" / "README.md")
    assert card.data.to_dict() == {
        "library_name": "peft", "pipeline_tag": "image-to-text",
        "tags": ["limner", "image-captioning", "lora"],
    }  # fmt: skip
    assert "| rejected | 3: 2 x not an image; 1 x empty file |" in card.text
    assert "was not measured by its run" in card.text
    assert "- From the run's own watch: 1 step was refused" in card.text
    assert "cross-entropy on reference captions" in card.text
    assert "limner serve" not in card.text, "it reads no adapters"
    assert not (tmp_path / "lora" / "images").exists()


def test_the_command_passes_its_options_on(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--dtype", "bfloat16", "--samples", "0", "--license", "mit", "--checkpoint", "2"]
    done = CliRunner().invoke(cli.app, ["export", str(run), "-o", str(out), *options])
    assert (done.exit_code, done.stdout) == (0, f"{out}\n")
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    text = (out / "README.md").read_text()
    assert "license: mit" in text
    assert "step 2 of its run" in text
    assert not (out / "images").exists()


def test_a_run_leaves_what_the_docs_say(run: Path) -> None:
    for name in ("recipe.yaml", "resolved.json", "environment.json", "metrics.jsonl", "report.html"):
        assert (run / name).is_file(), name
    assert (run / "samples" / "step-000002.jsonl").is_file()
    assert (run / "checkpoints" / "step-000003" / "value.safetensors").is_file()
    assert list((run / "tensorboard").iterdir())
    assert [row["step"] for row in read_metrics(run)] == [1, 2, 3]
