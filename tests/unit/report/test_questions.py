"""The section Questions: what was answered from the captions before and after training."""

import json
from dataclasses import replace

import pytest

from limner.answering.draw import CANNOT_ANSWER
from limner.evaluation import Evaluation
from limner.report import write
from limner.report.files import Absent, RunFiles
from limner.report.questions import OPEN, SHOWN, Reply, build
from made_up_run import SAMPLES, make, make_photographs

QA = {"qa": {"answerer": "world:answerer", "cannot_answer": CANNOT_ANSWER}}


def change(run, which, each, **settings):
    """Rewrite an evaluation's questions: `each` gets (row number, question number, question)."""
    path = run / "evaluation" / f"{which}.json"
    old = Evaluation.load(path)
    rows = tuple(
        replace(row, questions=tuple(each(n, k, one) for k, one in enumerate(row.questions)))
        for n, row in enumerate(old.rows)
    )
    replace(old, rows=rows, settings=settings).save(path)


@pytest.fixture
def run(tmp_path):
    """Before, everything is answered A of A-D with A right in even rows; after, everything right."""
    made = make(tmp_path)

    def answered(said):
        def each(n, k, one):
            letter = said or "AB"[n % 2]
            fixed = {"options": ["red", "green", "blue", "teal", CANNOT_ANSWER], "right": "AB"[n % 2]}
            return {**one, **fixed, "said": letter, "correct": float(letter == fixed["right"])}

        return each

    change(made, "before", answered("A"), **QA)
    change(made, "after", answered(""), **QA)
    return made


def test_shares_by_kind_and_over_all(run):
    found = build(RunFiles(run))
    assert (found.total, found.answerer, found.cannot) == (SAMPLES, "world:answerer", CANNOT_ANSWER)
    titles = [row.title for row, _ in found.kinds]
    assert titles == ["Existence", "Colour", "Count", "Relation", "Background", "Position", "All questions"]
    counts = [count for _, count in found.kinds]
    assert counts[-1] == sum(counts[:-1])
    rows = dict(zip(titles, (row for row, _ in found.kinds), strict=True))
    # one question of this kind a picture: half of the pictures have A as the right letter
    assert rows["Count"].before.text == "50.0%"
    assert rows["Count"].after.text == "100.0%"
    assert rows["Count"].verdict == "clearly higher"
    assert rows["Count"].change.startswith("+50.0 points [")


def test_pictures_are_evenly_spaced_with_their_questions_and_answers(run):
    found = build(RunFiles(run))
    assert [item.id for item in found.shown] == [f"test-{n:06d}" for n in range(0, SAMPLES, SAMPLES // SHOWN)]
    for item in found.shown:
        assert item.picture is not None
        assert len(item.asked) == OPEN
        assert item.after.note == f"{OPEN + len(item.rest)} of {OPEN + len(item.rest)} right"
        for one in (*item.asked, *item.rest):
            assert one.after.state == "true"
            assert [text for _, text, _ in one.options] == ["red", "green", "blue", "teal"]
            assert sum(right for *_, right in one.options) == 1
    odd, even = (build(RunFiles(run)).shown[0].asked[0].before, found.shown[1].asked[0].before)
    assert {odd, even} == {Reply("A", "red", "true")}


def test_an_answer_that_is_wrong_missing_or_cannot_answer(run):
    def each(n, k, one):
        said = {0: "B", 1: "E", 2: ""}.get(k, one["said"])
        correct = float(said in one["right"]) if said else None
        return {
            **one,
            "right": "A",
            "said": said,
            "correct": correct,
            **({} if said else {"error": "time-out"}),
        }

    change(run, "after", each, **QA)
    item = build(RunFiles(run)).shown[0]
    replies = {one.after for one in (*item.asked, *item.rest)}
    wanted = {
        Reply("B", "green", "false"),
        Reply("E", "cannot answer", "false"),
        Reply("", "time-out", "unscored"),
    }
    assert wanted <= replies
    assert item.after.note.endswith("right, 1 without an answer")
    page = write(run).read_text()
    assert "no answer" in page
    assert 'title="time-out"' in page


def test_what_was_not_answered_is_no_wrong_answer(run):
    change(run, "after", lambda n, k, one: {**one, "said": "", "correct": None} if k else one, **QA)
    rows = {row.title: row for row, _ in build(RunFiles(run)).kinds}
    assert rows["All questions"].after.text == "100.0%"
    assert rows["Count"].after.interval == ""
    assert rows["Count"].verdict == "no image is scored in both"


def test_options_in_another_order_are_another_asking(run):
    change(run, "before", lambda n, k, one: {**one, "options": one["options"][::-1]}, **QA)
    item = build(RunFiles(run)).shown[0]
    asked = (*item.asked, *item.rest)
    assert {(one.before is None, one.after is None) for one in asked} == {(True, False), (False, True)}


@pytest.mark.parametrize("gone", ["before", "after"])
def test_one_evaluation_alone(run, gone):
    (run / "evaluation" / f"{gone}.json").unlink()
    found = build(RunFiles(run))
    assert found.total == SAMPLES
    assert {row.verdict for row, _ in found.kinds} == {""}
    assert all(getattr(item, gone) is None for item in found.shown)
    assert "not asked" in write(run).read_text()


def test_runs_that_asked_nothing_say_so(tmp_path):
    photographs = make_photographs(tmp_path)
    with pytest.raises(Absent, match="No questions were asked"):
        build(RunFiles(photographs))
    page = write(photographs).read_text()
    assert "No questions were asked; qa among evaluate.metrics asks them." in page
    assert '<a href="#questions">' not in page


@pytest.mark.parametrize(
    "wrong", [{"options": "AB"}, {"right": 1}, {"said": None}, {"correct": "yes"}, {"question": ["x"]}]
)
def test_questions_that_limner_did_not_write(wrong, run):
    change(run, "after", lambda n, k, one: {**one, **wrong})
    with pytest.raises(Absent, match="not as limner writes it"):
        build(RunFiles(run))
    path = run / "evaluation/before.json"
    plain = json.loads(path.read_text())
    plain["rows"][0]["questions"] = [3]
    path.write_text(json.dumps(plain))
    assert "not as limner writes it" in write(run).read_text()
