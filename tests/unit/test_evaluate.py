"""Evaluation from end to end on small real models, files, and mistakes that people make."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, Blip2ForConditionalGeneration

import tiny
import tiny_answerers
from limner import config
from limner.answering.settings import Asking
from limner.captioners import load
from limner.data import world
from limner.decoding import Decoding
from limner.errors import UserError
from limner.evaluate import cropped, evaluate, evaluate_command
from limner.evaluation import Evaluation
from limner.export import load_run
from limner.metrics.bootstrap import Interval
from limner.metrics.measures import GROUPS
from limner.train import train
from limner.types import Sample
from limner.vision_language import load_clip
from limner.world import models
from limner.world.captions import full, terse
from limner.world.questions import questions

SHORT = Decoding(do_sample=False, max_new_tokens=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Random captioner, CLIP and ITM of the world's shapes, and a random language model."""
    folder = tmp_path_factory.mktemp("models")
    tiny.blip2(folder / "captioner")
    for name, model in (("clip", models.clip()), ("itm", models.matcher())):
        tiny.sharpen(model, seed=1)
        models.save(model, folder / name, kind=name)
    tiny_answerers.saved(folder / "answerer", tiny_answerers.words())
    return folder


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return tiny.samples(12)


@pytest.fixture(scope="module")
def captions(samples) -> list[str]:
    rng = np.random.default_rng(0)
    describe = (full, terse)
    return [describe[place % 2](sample.extra["scene"], rng) for place, sample in enumerate(samples)]


def test_all_groups_at_once(folder, samples, captions):
    captioner = load(str(folder / "captioner"), device="cpu")
    samples = [
        replace(
            sample,
            references=(full(scene := sample.extra["scene"]),),
            extra={"scene": scene, "questions": questions(scene, np.random.default_rng(0))},
        )
        for sample in samples
    ]
    groups = tuple(group for group in GROUPS if group != "java")
    found = evaluate(
        captions,
        samples,
        metrics=groups,
        clip=str(folder / "clip"),
        itm=str(folder / "itm"),
        qa=Asking(path=str(folder / "answerer")),
        captioner=captioner,
        batch=5,
    )
    assert set(found.summary) == {name for group in groups for name in GROUPS[group]}
    assert found.ids == tuple(sample.id for sample in samples)
    assert [row.caption for row in found.rows] == captions
    for interval in found.summary.values():
        assert interval.n == 12
        assert interval.low <= interval.value + 1e-9
        assert interval.value <= interval.high + 1e-9
    assert found.summary["facts_true"].value == 1
    assert found.summary["distinct_captions"].value == pytest.approx(len(set(captions)))
    assert [row.measures["coverage"] for row in found.rows][::2] == [1] * 6
    assert found.settings["clip"] == str(folder / "clip")


def test_batches_change_nothing(folder, samples, captions):
    captioner = load(str(folder / "captioner"), device="cpu")
    asked = {"metrics": ("itm", "language_model", "clip_recall"), "captioner": captioner}
    judges = {"clip": load_clip(str(folder / "clip")), "itm": str(folder / "itm")}
    whole = evaluate(captions, samples, batch=12, **asked, **judges).columns()
    single = evaluate(captions, samples, batch=1, **asked, **judges).columns()
    for name, values in whole.items():
        np.testing.assert_allclose(single[name], values, atol=1e-4, err_msg=name)


@torch.no_grad()
def test_language_model_against_plain_transformers(folder, samples, captions):
    captioner = load(str(folder / "captioner"), device="cpu")
    found = evaluate(captions, samples, metrics=("language_model",), captioner=captioner).columns()
    model = Blip2ForConditionalGeneration.from_pretrained(folder / "captioner").language_model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "captioner")
    for row, caption in enumerate(captions):
        words = tokenizer(caption, add_special_tokens=False).input_ids
        ids = torch.tensor([[tokenizer.bos_token_id, *words, tokenizer.eos_token_id]])
        logprobs = model(ids[:, :-1]).logits.log_softmax(-1).gather(-1, ids[:, 1:, None])
        assert found["lm_logprob"][row] == pytest.approx(logprobs.mean().item(), abs=1e-4)


def test_texts_longer_than_the_models_read_are_cut(folder, samples):
    captioner = load(str(folder / "captioner"), device="cpu")
    asked = {"metrics": ("language_model", "clip_recall", "itm"), "captioner": captioner}
    judges = {"clip": str(folder / "clip"), "itm": str(folder / "itm")}
    found = evaluate(["a red star " * 500, ""], samples[:2], **asked, **judges).columns()
    assert all(np.isfinite(values).all() for values in found.values())


def test_single_measures_can_be_asked_for(samples, captions):
    found = evaluate(captions, samples, metrics=("facts_true", "words"))
    assert list(found.summary) == ["words", "facts_stated", "facts_true"]
    assert found.rows[0].facts[0].keys() == {"start", "end", "true", "kind"}


def test_saved_and_loaded_again(samples, captions, tmp_path):
    found = evaluate(["", *captions[1:]], samples, metrics=("captions", "facts"))
    assert math.isnan(found.rows[0].measures["repetition"])
    found.save(tmp_path / "deep" / "found.json")
    plain = json.loads((tmp_path / "deep" / "found.json").read_text("utf8"))
    assert plain["rows"][0]["measures"]["repetition"] is None
    assert plain["summary"]["words"].keys() == {"value", "low", "high", "n"}
    again = Evaluation.load(tmp_path / "deep" / "found.json")
    assert again.summary == found.summary
    assert again.rows[0].facts == found.rows[0].facts
    assert math.isnan(again.rows[0].measures["repetition"])
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "deep" / "found.json").read_bytes()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["found.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[1]", "is not a file of `limner evaluate`"),
        ('{"rows": [], "summary": {"words": {"value": 1}}}', "is not a file of `limner evaluate`"),
    ],
)
def test_what_is_no_evaluation(tmp_path, text, message):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        Evaluation.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("clip_recall", "needs a CLIP checkpoint: --clip"),
        ("itm", "needs an ITM checkpoint: --itm"),
        ("language_model", "the captions come from a file"),
        ("facts", "nothing is known of what photo shows"),
        ("clip_recal", "did you mean 'clip_recall'"),
    ],
)
def test_measures_that_lack_something(asked, message):
    sample = Sample("photo", (Image.new("RGB", (9, 9)),))
    with pytest.raises(UserError, match=message):
        evaluate(["a dog"], [sample], metrics=(asked,))


def test_nothing_to_measure():
    with pytest.raises(UserError, match="not one caption"):
        evaluate([], [])


def test_the_middle_square_is_kept():
    image = Image.new("RGB", (60, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    found = cropped(Sample("x", (image, image.rotate(90, expand=True)))).media
    assert [i.size for i in found] == [(20, 20)] * 2
    assert all(i.getcolors() == [(400, (0, 0, 255))] for i in found)


def test_command_on_a_captioner(folder, tmp_path, capsys):
    out = tmp_path / "out.json"
    found = evaluate_command(
        str(folder / "captioner"),
        data="world:validation",
        out=out,
        metrics=("clip_recall", "captions", "facts"),
        clip=str(folder / "clip"),
        samples=10,
        decoding=SHORT,
        batch=4,
        device="cpu",
    )
    assert repr(Evaluation.load(out).rows) == repr(found.rows)
    assert found.decoding["max_new_tokens"] == 8
    assert found.settings["centre_crop"] is True
    captioner = load(str(folder / "captioner"), device="cpu")
    source = world.Source(split="validation", count=10)
    assert [row.caption for row in found.rows] == captioner.caption(list(source), SHORT)
    assert "CLIP recall R@10" in capsys.readouterr().out


RECIPE = """
captioner: {{kind: blip2, path: "{path}"}}
data: {{kind: world, split: train}}
rollout: {{max_new_tokens: 8}}
rewards: {{no_eos: {{}}}}
advantage: {{kind: token_returns, value: null}}
objective: {{kind: policy_gradient}}
update: {{captions: 4, lr: 1.0e-2, steps: 2}}
evaluate: {{every: 0, test_decoding: {{do_sample: false, max_new_tokens: 7}}}}
run: {{output: "{out}", name: run, checkpoint_every: 1, device: cpu}}
"""


def test_command_on_a_run_and_on_one_of_its_checkpoints(folder, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(path=folder / "captioner", out=tmp_path))
    run = train(config.load(recipe))
    given = {"data": "world:test", "out": tmp_path / "out.json", "samples": 6, "device": "cpu"}
    found = evaluate_command(str(run), **given)
    assert found.model == "run at step 2"
    mine = evaluate_command(str(run), decoding=SHORT, **given)
    assert mine.decoding["max_new_tokens"] == 8
    assert found.decoding["max_new_tokens"] == 7
    samples = list(world.Source(split="test", count=6))
    for step in (1, 2):
        found = evaluate_command(str(run / "checkpoints" / f"step-{step:06d}"), **given)
        assert found.model == f"run at step {step}"
        trained = load_run(run, str(step), device="cpu")
        decoding = Decoding(**found.decoding)
        assert [row.caption for row in found.rows] == trained.caption(samples, decoding)


def test_command_on_references(tmp_path):
    found = evaluate_command("references", data="world", out=tmp_path / "x", metrics=("facts",), samples=20)
    assert found.summary["coverage"] == Interval(1, 1, 1, 20)
    assert found.rows[0].id == "test-000000"


def written(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in rows), "utf8")
    return path


def photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


def test_command_on_a_file_of_captions(tmp_path):
    data = photos(tmp_path / "photos", 3)
    (data / "broken.png").write_bytes(b"no image")
    rows = [{"id": f"{n}.png", "caption": f"dog\u2028{n}", "more": 1} for n in (2, 0, 1)]
    captions = written(tmp_path / "captions.jsonl", [*rows, {"id": "elsewhere.png", "caption": "cat"}])
    found = evaluate_command(str(captions), data=str(data), out=tmp_path / "out.json")
    assert [(row.id, row.caption[-1]) for row in found.rows] == [
        ("0.png", "0"),
        ("1.png", "1"),
        ("2.png", "2"),
    ]
    assert found.decoding is None
    part = evaluate_command(str(captions), data=str(data), out=tmp_path / "out.json", samples=2)
    assert len(part.rows) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "0.png", "caption": "x"}], r"no caption of 1\.png; the file has 1 captions.*2 or more"),
        ([{"id": "0.png"}], 'line 1: a row needs "id" and "caption"'),
        (["text"], 'line 1: a row needs "id" and "caption"'),
        ([{"id": "0.png", "caption": "x"}] * 2, r"line 3: the id '0\.png' comes a second time"),
        ([], "no caption in this file"),
    ],
)
def test_files_of_captions_with_mistakes(tmp_path, rows, message):
    data = photos(tmp_path / "photos", 3)
    captions = written(tmp_path / "captions.jsonl", rows)
    with pytest.raises(UserError, match=message):
        evaluate_command(str(captions), data=str(data), out=tmp_path / "out.json")


def test_things_that_are_not_there(tmp_path):
    data = photos(tmp_path / "photos", 1)

    def run(model: str, **given):
        evaluate_command(model, out=tmp_path / "out.json", **{"data": str(data), **given})

    with pytest.raises(UserError, match="comes without a caption"):
        run("references")
    with pytest.raises(UserError, match="cannot be read"):
        run(str(tmp_path / "missing.jsonl"))
    with pytest.raises(UserError, match="give a checkpoint, a run directory"):
        run(str(data / "0.png"))
    with pytest.raises(UserError, match="missing"):
        run(str(tmp_path / "missing"))
    with pytest.raises(UserError, match="no split 'tset'"):
        run("references", data="world:tset")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        run(str(tmp_path / "bytes.jsonl"))
