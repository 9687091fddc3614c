"""The measures `qa`: how many of an image's questions are answered from its caption alone."""

import json
import math
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

import tiny
import tiny_answerers
from limner import cli, config
from limner.answering.base import Reply
from limner.answering.draw import CANNOT_ANSWER
from limner.answering.exam import Exam
from limner.answering.settings import Asking
from limner.client import Endpoint
from limner.compare import compare
from limner.data import world
from limner.errors import UserError
from limner.evaluate import evaluate
from limner.evaluation import Evaluation
from limner.meters import LOOKED_AT
from limner.questions import LETTERS, Question
from limner.report.files import RunFiles
from limner.report.questions import build
from limner.train import train
from limner.types import Sample
from limner.world.questions import answer
from patience import SECONDS
from server import ChatServer

CPU = torch.device("cpu")
COLOUR = Question("what colour is the car", ("red", "green", "blue"), 0, "colour")
COUNT = Question("how many men are there", ("two", "one"), 0, "count")


def sample(id: str, *questions: Question) -> Sample:
    return Sample(id, (), extra={"questions": questions})


def at(server: ChatServer, **settings) -> Asking:
    endpoint = Endpoint(
        base_url=server.base_url, model="m", patience_seconds=1, tries=1, timeout_seconds=SECONDS
    )
    return Asking(endpoint=endpoint, **settings)


@dataclass
class Reader:
    """Answers as the rule that reads captions of the miniature world does."""

    questions: dict[str, Question]
    """Every question by its text."""
    said: list[str] = field(default_factory=list)
    """The letters, in order."""

    def ask(self, conversations, *, max_new_tokens, temperature, seed) -> list[Reply]:
        """The letter of the option that the caption states or implies, else of the last."""
        return [Reply(self._letter(messages[0]["content"])) for messages in conversations]

    def _letter(self, prompt: str) -> str:
        caption = prompt.split("\n")[1]
        text = re.search(r"^Question: (.*)$", prompt, re.MULTILINE)[1]
        options = tuple(re.findall(r"^[A-Z]\) (.*)$", prompt, re.MULTILINE))
        asked = replace(self.questions[text], options=options[:-1], answer=0)
        place = answer(caption, asked)
        self.said.append(LETTERS[len(options) - 1 if place is None else place])
        return self.said[-1]


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    return list(world.Source(split="test", count=12))


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """A random language model that answers with a letter from A to E and ends."""
    folder: Path = tmp_path_factory.mktemp("answerer")
    return str(tiny_answerers.saved(folder, tiny_answerers.words(), answers="ABCDE", seed=5))


def reader(scenes: list[Sample]) -> Reader:
    return Reader({one.text: one for each in scenes for one in each.extra["questions"]})


def test_the_value_of_a_caption_is_the_share_of_its_questions_answered_right(tmp_path):
    rules = [
        {"when": COLOUR.text, "steps": [{"answer": "red"}]},
        {"when": COUNT.text, "steps": [{"answer": "one"}]},
    ]
    samples = [
        sample("a", COLOUR, COUNT),
        sample("b", COLOUR),
        sample("c", COUNT),
        sample("d", COLOUR, COUNT, COUNT),
    ]
    with ChatServer(tmp_path, rules) as server:
        found = evaluate(["x"] * 4, samples, metrics=("qa",), qa=at(server))
    values = [row.measures["qa_accuracy"] for row in found.rows]
    assert values == pytest.approx([1 / 2, 1, 0, 1 / 3])
    assert found.summary["qa_accuracy"].value == pytest.approx(sum(values) / 4)
    assert found.summary["qa_cannot_answer"].value == 0
    assert found.summary["qa_answered"].value == 1
    asked = found.rows[0].questions[0]
    assert (asked["question"], asked["kind"]) == (COLOUR.text, "colour")
    assert asked["options"][LETTERS.index(asked["said"])] == "red"
    assert asked["right"] == asked["said"]
    assert asked["correct"] == 1
    assert found.settings["qa"]["answerer"] == f"m at {server.base_url}"


def test_what_was_not_answered_is_left_out_and_counted_and_never_0(tmp_path):
    rules = [
        {"when": COUNT.text, "steps": [{"status": 500}]},
        {"when": COLOUR.text, "steps": [{"answer": "red"}]},
    ]
    samples = [sample("a", COLOUR, COUNT), sample("b", COUNT), sample("c")]
    with ChatServer(tmp_path, rules) as server:
        found = evaluate(["x"] * 3, samples, metrics=("qa",), qa=at(server))
    accuracy, answered = (
        [row.measures[name] for row in found.rows] for name in ("qa_accuracy", "qa_answered")
    )
    assert accuracy[0] == 1
    assert math.isnan(accuracy[1])
    assert math.isnan(accuracy[2])
    assert answered[:2] == [0.5, 0]
    assert math.isnan(answered[2])
    assert (found.summary["qa_accuracy"].value, found.summary["qa_accuracy"].n) == (1, 1)
    assert (found.summary["qa_answered"].value, found.summary["qa_answered"].n) == (0.25, 2)
    asked = found.rows[1].questions[0]
    assert (asked["said"], asked["correct"]) == ("", None)
    assert "500" in asked["error"]


def test_can_not_answer_is_counted(tmp_path):
    with ChatServer(tmp_path, [{"when": "", "steps": [{"answer": CANNOT_ANSWER}]}]) as server:
        found = evaluate(["x"], [sample("a", COLOUR, COUNT)], metrics=("qa",), qa=at(server))
        none = evaluate(
            ["x"], [sample("a", COLOUR)], metrics=("qa",), qa=at(server, cannot_answer=None, tries=1)
        )
    assert found.rows[0].measures == {"qa_accuracy": 0, "qa_cannot_answer": 1, "qa_answered": 1}
    assert math.isnan(none.rows[0].measures["qa_cannot_answer"])


def test_the_order_of_options_changes_nothing_for_who_knows(scenes):
    captions = [each.references[0] for each in scenes]
    said = []
    for seed in range(3):
        who = reader(scenes)
        found = evaluate(captions, scenes, metrics=("qa",), qa=Exam(Asking(path="-", seed=seed), who))
        assert {row.measures["qa_accuracy"] for row in found.rows} == {1.0}
        said.append(who.said)
    assert said[0] != said[1] != said[2]
    # a right letter is as likely to be one as another
    letters = "".join(said[0])
    assert all(letters.count(letter) > len(letters) / 10 for letter in "ABC")


def test_from_an_empty_caption_nobody_who_only_reads_knows(scenes):
    found = evaluate([""] * 12, scenes, metrics=("qa",), qa=Exam(Asking(path="-"), reader(scenes)))
    assert found.summary["qa_accuracy"].value == 0
    assert found.summary["qa_cannot_answer"].value == 1


def test_a_caption_is_asked_the_same_whatever_is_beside_it(scenes, path):
    captions = [each.references[0] for each in scenes]
    exam = Exam.load(Asking(path=path), device=CPU, dtype=torch.float32)
    whole = evaluate(captions, scenes, metrics=("qa",), qa=exam, batch=12)
    single = evaluate(captions[::-1], scenes[::-1], metrics=("qa",), qa=exam, batch=1)
    assert [row.questions for row in whole.rows] == [row.questions for row in single.rows[::-1]]
    assert len({one["said"] for row in whole.rows for one in row.questions}) > 1


def test_samples_without_questions(scenes):
    exam = Exam(Asking(path="-"), reader(scenes))
    bare = [sample(f"{place}") for place in range(LOOKED_AT)]
    found = evaluate(["x"] * 2 + [""], [*bare[:2], scenes[0]], metrics=("qa",), qa=exam)
    assert found.summary["qa_accuracy"].n == 1
    with pytest.raises(UserError, match="not one of 1 samples has questions; `limner data questions`"):
        evaluate(["x"], bare[:1], metrics=("qa",), qa=exam)
    with pytest.raises(UserError, match=f"not one of {LOOKED_AT} samples"):
        evaluate(["x"] * (LOOKED_AT + 1), [*bare, scenes[0]], metrics=("qa",), qa=exam, batch=8)


def test_nobody_who_answers(scenes):
    with pytest.raises(UserError, match=r"metrics: qa: needs an answerer: --answerer, or evaluate\.qa"):
        evaluate(["x"], scenes[:1], metrics=("qa_accuracy",))


def test_saved_loaded_and_compared(scenes, path, tmp_path):
    captions = [each.references[0] for each in scenes]
    files = [tmp_path / f"{name}.json" for name in "abc"]
    made = [("",) * 12, captions, captions]
    for file, texts, seed in zip(files, made, (0, 0, 1), strict=True):
        exam = Exam(Asking(path=path, seed=seed), reader(scenes))
        found = evaluate(texts, scenes, metrics=("qa", "words"), qa=exam)
        found.save(file)
        assert Evaluation.load(file).rows == found.rows
    changes = {row.measure: row for row in compare(*files[:2]).differences}
    assert changes["qa_accuracy"].verdict == "clearly higher: +100.0 points [100.0, 100.0]"
    other = compare(*files[1:])
    assert [row.measure for row in other.differences] == ["words"]
    assert other.left_out == ("qa is not compared: asked in two ways, unlike in seed",)


def test_a_model_in_use_is_not_loaded_again(path):
    first, second = (
        Exam.load(Asking(path=path, seed=seed), device=CPU, dtype=torch.float32) for seed in (0, 1)
    )
    assert first.answerer is second.answerer
    assert Exam.load(Asking(path=path), device=CPU, dtype=torch.bfloat16).answerer is not first.answerer


@pytest.fixture
def limner(monkeypatch):
    """Runs the command in this process; mistakes are UserErrors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["limner", *map(str, arguments)])
        cli.app(standalone_mode=False)

    return run


def test_on_the_command_line(limner, path, tmp_path, capsys):
    out, page = tmp_path / "out.json", tmp_path / "page.html"
    common = ["evaluate", "references", "--data", "world:test", "--samples", 6, "--metrics", "qa", "-o", out]
    limner(*common, "--answerer", path, "--qa", "seed=3", "--device", "cpu", "--report", page)
    said = capsys.readouterr().out
    assert "questions answered right" in said
    found = Evaluation.load(out)
    assert found.settings["qa"]["answerer"] == path
    assert found.settings["qa"]["seed"] == 3
    assert all(row.questions for row in found.rows)
    assert "Which of these shapes is in the picture?" in page.read_text()
    with pytest.raises(UserError, match="metrics: qa: needs an answerer"):
        limner(*common)
    with pytest.raises(UserError, match=r"seed: \"x\": .*integer"):
        limner(*common, "--answerer", path, "--qa", "seed=x")
    with pytest.raises(UserError, match=r"sead.*did you mean 'seed'"):
        limner(*common, "--answerer", path, "--qa", "sead=1")
    with pytest.raises(UserError, match="name the model there: --answerer-model"):
        limner(*common, "--answerer", "http://localhost:1/v1")


RECIPE = """
captioner: {{kind: blip2, path: "{captioner}"}}
data: {{kind: world, split: train}}
rollout: {{max_new_tokens: 8}}
rewards: {{qa_accuracy: {{path: "{answerer}", questions: 2}}}}
advantage: {{kind: token_returns, value: null}}
objective: {{kind: policy_gradient}}
update: {{captions: 4, lr: 1.0e-2, steps: 2}}
evaluate:
  every: 1
  data: {{kind: world, split: validation}}
  samples: 4
  metrics: [qa, words]
  qa: {{path: "{answerer}", seed: 1}}
  best: qa_accuracy
  decoding: {{do_sample: false, max_new_tokens: 8}}
  test: {{kind: world, split: test, count: 5}}
  test_decoding: {{do_sample: false, max_new_tokens: 8}}
run: {{output: "{out}", name: run, device: cpu}}
"""


def test_in_a_run_the_best_checkpoint_is_chosen_by_it_and_the_report_shows_the_answers(path, tmp_path):
    tiny.blip2(tmp_path / "captioner")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(captioner=tmp_path / "captioner", answerer=path, out=tmp_path))
    run = train(config.load(recipe))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["evaluate/qa_accuracy"] <= 1 for row in rows)
    assert all(row["evaluate/qa_answered"] == 1 for row in rows)
    files = RunFiles(run)
    best = max(row["evaluate/qa_accuracy"] for row in rows)
    assert files.chosen_step == next(row["step"] for row in rows if row["evaluate/qa_accuracy"] == best)
    assert all(len(row.questions) >= 5 for row in files.after.rows)
    found = build(files)
    assert found.total == 5
    assert found.answerer == path


def test_a_recipe_without_an_answerer_is_refused_where_it_is_read(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    text = RECIPE.format(captioner="c", answerer="a", out=tmp_path)
    recipe.write_text(text.replace('path: "a", seed: 1', "seed: 1"))
    with pytest.raises(UserError, match=r"evaluate\.qa: give one answerer"):
        config.load(recipe)
