"""All about one file of captions in one table, one JSON and one page; `limner evaluate` as a group."""

import json
import re
import sys

import pytest

from limner import cli
from limner.errors import UserError
from limner.evaluation import Evaluation
from limner.metrics.bootstrap import Interval
from limner.report import single
from server import ChatServer

SAMPLES = 12
RULES = [{"when": "star", "steps": [{"answer": "A"}]}, {"when": "", "steps": [{"answer": "<b>none</b>"}]}]


@pytest.fixture
def limner(monkeypatch):
    """Runs the command in this process; mistakes are UserErrors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["limner", *map(str, arguments)])
        cli.app(standalone_mode=False)

    return run


@pytest.fixture
def captions(tmp_path):
    rows = [{"id": f"test-{k:06d}", "caption": f"a star, number {k} <i>"} for k in range(SAMPLES)]
    path = tmp_path / "captions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture
def questions(tmp_path, captions):
    """Questions about the images that the captions are of, as files."""
    from limner.world import scenes

    rows = []
    for k in range(3):
        scenes.picture(0, k, "test").save(tmp_path / f"test-{k:06d}.png")
        rows.append(
            {"image": f"test-{k:06d}.png", "prompt": "Which?\nA. a star\nB. a cat", "answer": "AAB"[k]}
        )
    (tmp_path / "mmstar.json").write_text(json.dumps(rows))
    return tmp_path / "mmstar.json"


def test_one_table_one_json_one_page(limner, tmp_path, captions, questions, capsys):
    out, page = tmp_path / "all.json", tmp_path / "all.html"
    metrics = [word for name in ("captions", "coco", "prism") for word in ("--metrics", name)]
    with ChatServer(tmp_path / "server", RULES) as server:
        asked = ["--set", questions, "--answerer", server.base_url, "--answerer-model", "small"]
        common = ["evaluate", captions, "--data", "world:test", "--samples", SAMPLES, "--device", "cpu"]
        limner(*common, *metrics, *asked, "-o", out, "--report", page)
    table = capsys.readouterr().out
    assert re.search(r"words a caption +5\.000", table)
    assert re.search(r"Prism: MMStar +66\.7% +\[0\.0, 100\.0\] +3 questions", table)
    evaluation = Evaluation.load(out)
    assert evaluation.prism is not None
    assert evaluation.prism["sets"]["mmstar"]["mean"]["value"] == pytest.approx(2 / 3)
    assert {"bleu_4", "cider", "words"} <= evaluation.summary.keys()
    html = page.read_text()
    assert "Prism: Mean over captions" in html
    assert "number 0 &lt;i&gt;" in html
    assert html.count("data:image/png") >= 3 * 6  # the first, the best and the worst
    assert "Highest CIDEr." in html
    folder = tmp_path / "all-prism"  # what was asked can be put beside another evaluation
    limner(*common, "--metrics", "prism", "--prism", folder, "-o", tmp_path / "again.json")
    assert Evaluation.load(tmp_path / "again.json").prism == evaluation.prism


def test_the_page_of_prism(limner, tmp_path, captions, questions):
    with ChatServer(tmp_path / "server", RULES) as server:
        limner(
            *("evaluate", "prism", captions, "--set", questions, "--answerer", server.base_url),
            *("--answerer-model", "small", "-o", tmp_path / "out", "--strict-published"),
        )
    html = (tmp_path / "out" / "prism.html").read_text()
    for text in ("66.7%", "Answered from every caption", "Answered from none", "Mean, as published"):
        assert text in html
    assert "://" not in html  # it loads nothing
    assert str(tmp_path / "out") not in html


def test_what_is_missing_is_said(limner, captions, tmp_path, questions):
    common = ["evaluate", captions, "--data", "world:test", "--samples", 3]
    for given, message in (
        (["--metrics", "prism"], "needs --prism FOLDER"),
        (["--set", questions], "--set needs --answerer"),
        (["--prism", tmp_path], "prism.json: cannot be read"),
        (["--prism", tmp_path, "--set", questions], "not both"),
    ):
        with pytest.raises(UserError, match=message):
            limner(*common, *given)
    with pytest.raises(UserError, match="references: Prism asks about captions"):
        limner("evaluate", "references", "--data", "world:test", "--set", questions, "--answerer", "x")


def test_evaluate_is_a_command_and_a_group(limner, capsys):
    limner("evaluate", "--help")
    said = " ".join(capsys.readouterr().out.split())
    assert "--metrics" in said
    assert "limner evaluate prism --help" in said
    limner("evaluate", "prism", "--help")
    said = capsys.readouterr().out
    assert "--answerer" in said
    assert "limner evaluate prism" in said


def test_an_evaluation_of_the_miniature_world(limner, tmp_path, capsys):
    """The captioner of the world, the questions of its scenes, a language model in this process."""
    import tiny_answerers

    words = tiny_answerers.words("star ring circle square cross triangle red blue")
    answerer = tiny_answerers.saved(tmp_path / "answerer", words, answers="ABC")
    limner(
        *("evaluate", "prism", "world:captioner", "max_new_tokens=12", "--set", "world:test", "--samples", 6),
        *(
            "--answerer",
            answerer,
            "--template",
            "{caption}\n{question}\nAnswer:",
            "--answer-tokens",
            2,
            "--answer-temperature",
            0,
        ),
        *("--captions", 2, "--device", "cpu", "-o", tmp_path / "out"),
    )
    found = json.loads((tmp_path / "out" / "prism.json").read_text())
    assert found["sets"]["questions"]["mean"]["n"] == 6
    assert found["sets"]["questions"]["unread"] == 0
    assert "questions of the data" in capsys.readouterr().out


def test_bars_and_histograms():
    made = single.bar("x", Interval(0.5, 0.25, 0.75, 4), single.percent, count="4", share=True)
    assert (made.low, made.at, made.high, made.interval) == (25, 50, 75, "25.0% to 75.0%")
    unknown = single.bar("x", Interval(*(float("nan"),) * 3, 0), single.percent, count="0", share=True)
    assert not unknown.known
    assert single.histogram([], "words") is None
    counted = single.histogram([3, 3, 5], "words")
    assert counted is not None
    assert [height for height, _ in counted.bars] == [100, 0, 50]
    many = single.histogram(list(range(1000)), "words")
    assert many is not None
    assert len(many.bars) <= single.MOST_BINS
