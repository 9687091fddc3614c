"""`limner score` on files against pycocoevalcap on the same files, its tokenizer run by Java."""

import contextlib
import io
import json
import random
from pathlib import Path

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from typer.testing import CliRunner

from limner.cli import app

NASTY = [
    "A man's dog isn't (really) \"sitting\" -- it's running... 3.5 miles, at 5:30 p.m.",
    "two women, one in red/blue & one w/ a hat; they're e-mailing bob@example.com",
    "cost $4.99 (50% off) or 1 1/2 cups",
    "vitamin c.",
    "The U.S. flag flies near Mr. Smith's",
    "a caf\u00e9 d\u00e9cor \u2013 \u201cquoted\u201d \U0001f600 :)",
    "",
    ".",
    "a a a a a a a",
]
WORDS = [
    "a",
    "the",
    "man",
    "dog",
    "cat",
    "runs",
    "sits",
    "on",
    "near",
    "red",
    "field",
    "street",
    "two",
    "in",
    "ball",
]


def caption(rng: random.Random) -> str:
    text = " ".join(rng.choices(WORDS, k=rng.randint(1, 14)))
    return rng.choice((text, text.capitalize() + ".", text + ", " + rng.choice(NASTY)))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """COCO annotations and COCO results of 60 images."""
    rng = random.Random(0)
    folder = tmp_path_factory.mktemp("coco")
    ids = [7 * number + 3 for number in range(60)]
    annotations = [
        {"id": len(ids) * number + place, "image_id": id, "caption": text}
        for place, id in enumerate(ids)
        for number, text in enumerate([*(caption(rng) for _ in range(rng.randint(1, 5))), *NASTY[place:][:1]])
    ]
    rng.shuffle(annotations)
    results = [
        {"image_id": id, "caption": (NASTY[place:][:1] or [caption(rng)])[0]} for place, id in enumerate(ids)
    ]
    rng.shuffle(results)
    references, captions = folder / "captions_val.json", folder / "results.json"
    references.write_text(
        json.dumps({"info": {}, "images": [{"id": id} for id in ids], "annotations": annotations})
    )
    captions.write_text(json.dumps(results))
    return references, captions


def peer(references: Path, captions: Path) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Corpus values and values of the images as COCOEvalCap computes them."""
    truth = json.loads(references.read_text())
    gts = {image["id"]: [] for image in truth["images"]}
    for row in truth["annotations"]:
        gts[row["image_id"]].append(row)
    found = {row["image_id"]: [row] for row in json.loads(captions.read_text())}
    res = {id: found[id] for id in gts}
    tokenizer = PTBTokenizer()
    gts, res = tokenizer.tokenize(gts), tokenizer.tokenize(res)
    corpus: dict[str, float] = {}
    images: dict[str, dict[str, float]] = {str(id): {} for id in gts}
    with contextlib.redirect_stdout(io.StringIO()):
        bleus, each = Bleu(4).compute_score(gts, res)
        for order, (value, values) in enumerate(zip(bleus, each, strict=True), 1):
            corpus[f"bleu_{order}"] = value
            for id, one in zip(gts, values, strict=True):
                images[str(id)][f"bleu_{order}"] = one
        for names, scorer in ((("rouge_l",), Rouge()), (("cider", "cider_d"), Cider())):
            value, values = scorer.compute_score(gts, res)
            for name in names:
                corpus[name] = float(value)
                for id, one in zip(gts, values, strict=True):
                    images[str(id)][name] = float(one)
    return corpus, images


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning"
)  # pycocoevalcap leaves the pipe of its Java process open
def test_the_json_of_limner_score_equals_pycocoevalcap(files, tmp_path):
    references, captions = files
    corpus, images = peer(references, captions)
    out = tmp_path / "scores.json"
    run = CliRunner().invoke(
        app, ["score", str(captions), "--references", str(references), "--json", "-o", str(out)]
    )
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found == json.loads(out.read_text())
    assert list(found["images"]) == list(images)
    assert found["corpus"] == pytest.approx(corpus, abs=1e-9)
    for id, values in images.items():
        assert found["images"][id] == pytest.approx(values, abs=1e-9), id
    assert found["corpus"]["cider"] > 0.1
    for name, value in corpus.items():
        low, high = found["intervals"][name]
        assert low < value < high
