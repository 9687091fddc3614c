"""`limner score`: several captions, two systems, missing images, document frequencies, images looked at."""

import io
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import tiny
from limner.cli import app
from limner.data import world
from limner.errors import UserError
from limner.evaluate import evaluate
from limner.evaluation import Evaluation
from limner.metrics.bleu import bleu
from limner.metrics.bootstrap import Compound, intervals
from limner.metrics.ptb import tokenise
from limner.score_captions import Rules, score
from limner.score_images import Looks
from limner.types import Sample
from limner.world import models
from limner.world.captions import full

WORDS = ["a", "the", "man", "dog", "cat", "runs", "sits", "on", "near", "red", "blue", "ball"]


def said(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(4, 9)))


def lines(path: Path, captions: dict[str, list[str]]) -> Path:
    rows = [{"id": id, "caption": text} for id, texts in captions.items() for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def corpus(tmp_path) -> tuple[Path, Path, Path]:
    """Two systems and the references of 40 images; the second system repeats a reference half of the time."""
    rng = random.Random(0)
    references = {str(n): [said(rng) for _ in range(3)] for n in range(40)}
    first = {id: [said(rng)] for id in references}
    second = {id: [rng.choice([said(rng), texts[0]])] for id, texts in references.items()}
    return (
        lines(tmp_path / "a.jsonl", first),
        lines(tmp_path / "b.jsonl", second),
        lines(tmp_path / "refs.jsonl", references),
    )


def test_corpus_bleu_is_resampled_as_a_corpus(corpus):
    a, _, references = corpus
    found = score([a], references=references, metrics=("bleu_2",), seed=3)
    rows = [json.loads(line) for line in a.read_text().splitlines()]
    known: dict[str, list[list[str]]] = {}
    for line in references.read_text().splitlines():
        known.setdefault(json.loads(line)["id"], []).append(tokenise(json.loads(line)["caption"]))
    captions = [tokenise(row["caption"]) for row in rows]
    theirs = [known[row["id"]] for row in rows]
    (made,) = (system.summary["bleu_2"] for system in found.systems)
    assert made.value == pytest.approx(bleu(captions, theirs).corpus[1], abs=1e-12)
    rng = np.random.default_rng(9)
    drawn = [rng.integers(40, size=40) for _ in range(1000)]
    values = [bleu([captions[n] for n in d], [theirs[n] for n in d]).corpus[1] for d in drawn]
    low, high = np.quantile(values, [0.025, 0.975])
    # Percentiles of 1,000 and of 2,000 draws of different generators.
    assert (made.low, made.high) == pytest.approx((low, high), abs=0.08 * (high - low))
    mean = found.systems[0].columns["bleu_2"].mean()
    assert abs(mean - made.value) > 1e-3


def test_two_systems_are_compared_in_pairs(corpus):
    a, b, references = corpus
    found = score([a, b], references=references, metrics=("bleu_1", "cider", "captions"))
    change = found.changes["cider"]
    before, after = (system.summary["cider"] for system in found.systems)
    assert change.value == pytest.approx(after.value - before.value)
    assert 0 < change.low < change.value < change.high
    bleu_1 = found.changes["bleu_1"]
    assert bleu_1.value == pytest.approx(
        found.systems[1].summary["bleu_1"].value - found.systems[0].summary["bleu_1"].value
    )
    plain = json.loads(json.dumps(found.plain()))
    assert plain["change"]["cider"]["verdict"].startswith("clearly higher: +")
    assert plain["a"]["corpus"]["cider"] == before.value
    assert plain["b"]["images"]["7"].keys() == plain["b"]["corpus"].keys()
    same = score([a, a], references=references, metrics=("bleu_4", "cider"))
    assert {(made.value, made.low, made.high) for made in same.changes.values()} == {(0, 0, 0)}
    page = io.StringIO()
    Console(file=page, width=120).print(found.table())
    assert "A: " in page.getvalue()
    assert "clearly higher" in page.getvalue()


def test_missing_surplus_and_empty_captions_are_told(tmp_path):
    references = lines(tmp_path / "r.jsonl", {"1": ["a dog runs"], "2": ["a cat"], "3": ["two men"]})
    mine = lines(tmp_path / "m.jsonl", {"2": ["..."], "1": ["a dog"], "9": ["x"]})
    with pytest.raises(UserError, match="--allow-missing"):
        score([mine], references=references)
    found = score([mine], references=references, rules=Rules(allow_missing=True))
    assert found.ids == ("1", "2")
    assert (found.missing, found.surplus, found.empty) == (("3",), ("9",), ("2",))
    assert found.plain()["missing"] == ["3"]
    page = io.StringIO()
    Console(file=page, width=120).print(found.table())
    assert "left out, without a caption: 1 image (3)" in page.getvalue()
    with pytest.raises(UserError, match=r"captions of no words: 1 image \(2\)"):
        score([mine], references=references, rules=Rules(allow_missing=True, refuse_empty=True))
    other = lines(tmp_path / "o.jsonl", {"3": ["two men"]})
    with pytest.raises(UserError, match="not one of its images"):
        score([mine, other], references=references, rules=Rules(allow_missing=True))


def test_several_captions_count_as_their_mean(corpus, tmp_path):
    a, b, references = corpus
    texts: dict[str, list[str]] = {}
    for line in [*a.read_text().splitlines(), *b.read_text().splitlines()]:
        texts.setdefault(json.loads(line)["id"], []).append(json.loads(line)["caption"])
    both = lines(tmp_path / "both.jsonl", texts)
    asked = ("coco", "captions", "distinct_1")
    with pytest.raises(UserError, match=r"40 images .* with several captions"):
        score([both], references=references)
    found = score([both], references=references, metrics=asked, rules=Rules(several=True)).systems[0]
    one, two = score([a, b], references=references, metrics=asked).systems
    for name in ("bleu_4", "rouge_l", "cider", "words"):
        mean = (one.columns[name] + two.columns[name]) / 2
        assert found.columns[name] == pytest.approx(mean, abs=1e-12), name
    different = {text for each in texts.values() for text in each}
    assert found.summary["distinct_captions"].value == pytest.approx(len(different))
    words = [word for each in texts.values() for text in each for word in tokenise(text)]
    assert found.summary["distinct_1"].value == pytest.approx(len(set(words)) / len(words))
    twice = lines(tmp_path / "twice.jsonl", {id: [each[0]] * 2 for id, each in texts.items()})
    again = score([twice], references=references, rules=Rules(several=True)).systems[0]
    for name in ("bleu_4", "cider"):
        assert again.summary[name].value == pytest.approx(one.summary[name].value, abs=1e-9), name


def test_document_frequencies_of_a_training_set(corpus, tmp_path):
    a, _, references = corpus
    df = tmp_path / "df.json.gz"
    made = CliRunner().invoke(app, ["data", "df", str(references), "-o", str(df)])
    assert made.exit_code == 0, made.output
    assert "40 images" in made.output
    whole = score([a], references=references, metrics=("cider",))
    weighed = score([a], references=references, metrics=("cider",), df=df)
    assert weighed.systems[0].columns["cider"] == pytest.approx(whole.systems[0].columns["cider"], abs=1e-12)
    # A part of the set scores as within the whole, a single image too, if words weigh as in the whole.
    row = json.loads(a.read_text().splitlines()[5])
    single = lines(tmp_path / "single.jsonl", {row["id"]: [row["caption"]]})
    given = {"references": references, "metrics": ("cider",), "rules": Rules(allow_missing=True)}
    with pytest.raises(UserError, match="document frequencies of one image"):
        score([single], **given)
    part = score([single], **given, df=df).systems[0]
    assert part.columns["cider"][0] == pytest.approx(whole.systems[0].columns["cider"][5], abs=1e-12)


def test_what_is_measured_during_training_is_what_is_scored(corpus):
    a, _, references = corpus
    found = score([a], references=references, metrics=("coco", "diversity", "colour_coverage"))
    known: dict[str, list[str]] = {}
    for line in references.read_text().splitlines():
        known.setdefault(json.loads(line)["id"], []).append(json.loads(line)["caption"])
    captions = [json.loads(line)["caption"] for line in a.read_text().splitlines()]
    samples = [Sample(id, (), tuple(texts)) for id, texts in known.items()]
    evaluated = evaluate(captions, samples, metrics=("coco", "diversity", "colour_coverage"), batch=7)
    assert evaluated.summary == found.systems[0].summary
    assert list(evaluated.summary)[:2] == ["bleu_1", "bleu_2"]


def test_an_evaluation_keeps_what_corpus_values_are_made_of(corpus, tmp_path):
    references = {str(n): (f"a dog number {n}", "a cat") for n in range(9)}
    samples = [Sample(id, (), texts) for id, texts in references.items()]
    evaluated = evaluate([f"a dog {n}" for n in range(9)], samples, metrics=("bleu_3", "distinct_2"))
    evaluated.save(tmp_path / "e.json")
    again = Evaluation.load(tmp_path / "e.json")
    assert again.summary == evaluated.summary
    assert again.columns()["bleu_matches_1"].tolist() == [3.0] * 9
    assert "bleu_matches_1" not in again.summary
    with pytest.raises(UserError, match="metrics: bleu_3: x comes without a reference"):
        evaluate(["a dog"], [Sample("x", ())], metrics=("bleu_3",))


def test_references_and_images_of_the_data(tmp_path):
    source = world.Source(split="test", count=None)
    scenes = {id: source.read(n) for n, id in enumerate(source.ids()[:4])}
    mine = lines(tmp_path / "m.jsonl", {id: [full(s.extra["scene"])] for id, s in scenes.items()})
    clip = models.clip()
    tiny.sharpen(clip, seed=1)
    models.save(clip, tmp_path / "clip", kind="clip")
    looks = Looks("world:test", clip=str(tmp_path / "clip"), device="cpu")
    rules = Rules(allow_missing=True)
    found = score([mine], metrics=("rouge_l", "clip_score", "coverage"), looks=looks, rules=rules)
    assert found.ids == tuple(scenes)
    assert len(found.missing) == len(source) - 4
    assert found.systems[0].summary["coverage"].value == 1
    captions = [full(sample.extra["scene"]) for sample in scenes.values()]
    plain = evaluate(
        captions, list(scenes.values()), metrics=("clip_score",), clip=str(tmp_path / "clip")
    ).columns()
    for name in ("clip_score", "ref_clip_score"):
        # A batch of another size rounds another way.
        assert found.systems[0].columns[name] == pytest.approx(plain[name], abs=1e-5)
    texts = score([mine], metrics=("rouge_l",), looks=looks, rules=rules)
    assert texts.systems[0].columns["rouge_l"].tolist() == found.systems[0].columns["rouge_l"].tolist()
    assert found.settings["clip"] == str(tmp_path / "clip")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give --references"),
        (["--references", "r.jsonl", "--metrics", "clip_score"], "clip_score: looks at the images: --data"),
        (["--references", "r.jsonl", "--metrics", "clip_score", "--data", "photos"], "lacks 1 image"),
        (["--references", "r.jsonl", "--metrics", "lm_logprob"], "language_model: needs a captioner's"),
        (["--references", "r.jsonl", "--metrics", "blue"], "did you mean"),
        (["--references", "r.jsonl", "--split", "test"], "names no splits"),
        (["--data", "photos", "--split", "test"], "--split is of a file of references"),
        (["--references", "r.jsonl", "--df", "r.jsonl"], "r.jsonl"),
        (["m.jsonl", "m.jsonl", "--references", "r.jsonl"], "3 files of captions"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "r.jsonl", {"1": ["a dog"]})
    lines(tmp_path / "m.jsonl", {"1": ["a dog"]})
    (tmp_path / "photos").mkdir()
    tiny.samples(1)[0].image.save(tmp_path / "photos" / "x.png")
    run = CliRunner().invoke(app, ["score", "m.jsonl", *given])
    assert isinstance(run.exception, UserError)
    assert message in str(run.exception)


def test_a_measure_of_sums_leaves_out_unscored_images():
    counts = np.array([[1.0, 2.0], [np.nan, 2.0], [3.0, 4.0]])
    found = intervals({"x": Compound(counts, lambda sums: sums[:, 0] * sums[:, 1])})["x"]
    assert (found.value, found.n) == (24, 2)
    nothing = intervals({"x": Compound(counts[1:2], lambda sums: sums[:, 0])})["x"]
    assert nothing.n == 0
    assert np.isnan(nothing.value)


def test_texts_are_scored_without_importing_torch():
    code = "import sys, limner.cli, limner.score_captions as s; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
