"""Comparing two evaluations: differences, verdicts, and images that are not the same."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import tiny
from limner.compare import compare
from limner.errors import UserError
from limner.evaluate import evaluate
from limner.evaluation import Evaluation, Row, summed_up
from limner.metrics.bootstrap import Interval
from limner.metrics.measures import written_change
from limner.world.captions import full, terse


def made(columns: dict[str, list[float]], ids: list[str] | None = None, **settings) -> Evaluation:
    """An evaluation with these row values."""
    arrays = {name: np.array(values, dtype=float) for name, values in columns.items()}
    count = len(next(iter(arrays.values())))
    ids = ids or [f"{number}.png" for number in range(count)]
    rows = tuple(
        Row(id, f"caption {place}", {name: values[place] for name, values in arrays.items()})
        for place, id in enumerate(ids)
    )
    return Evaluation(rows, summed_up(arrays), model=settings.pop("model", "m"), settings=settings)


@pytest.fixture
def files(tmp_path):
    def write(*evaluations: Evaluation) -> tuple[Path, ...]:
        paths = tuple(tmp_path / f"{name}.json" for name in "ab")
        for path, evaluation in zip(paths, evaluations, strict=True):
            evaluation.save(path)
        return paths

    return write


def test_better_captions_of_the_world(files):
    samples = tiny.samples(60)
    scenes = [sample.extra["scene"] for sample in samples]
    rng = np.random.default_rng(0)
    before = evaluate([terse(scene, rng) for scene in scenes], samples, metrics=("captions", "facts"))
    after = evaluate([full(scene, rng) for scene in scenes], samples, metrics=("captions", "facts"))
    found = compare(*files(before, after))
    by_name = {row.measure: row for row in found.differences}
    assert found.images == 60
    assert by_name["coverage"].b == 1
    assert by_name["coverage"].verdict.startswith("clearly higher: +")
    assert " points [" in by_name["coverage"].verdict
    assert by_name["words"].change.value == pytest.approx(by_name["words"].b - by_name["words"].a)
    assert by_name["facts_true"].verdict == "no difference"
    assert json.loads(json.dumps(found.plain()))["differences"][0]["measure"] == "words"
    page = io.StringIO()
    Console(file=page, width=120).print(found.table())
    assert "scene covered" in page.getvalue()


def test_a_file_does_not_differ_from_itself(files):
    rng = np.random.default_rng(1)
    evaluation = made({"words": rng.random(30).tolist(), "itm": [np.nan, *rng.random(29)]})
    found = compare(*files(evaluation, evaluation))
    assert {row.verdict for row in found.differences} == {"no difference"}
    assert [row.change.n for row in found.differences] == [30, 29]


def test_rows_are_paired_by_id_not_by_place(files):
    values = [float(n) for n in range(20)]
    ids = [f"{n}" for n in range(20)]
    a = made({"words": values}, ids)
    b = made({"words": [value + 1 for value in reversed(values)]}, list(reversed(ids)))
    (row,) = compare(*files(a, b)).differences
    assert (row.change.low, row.change.high) == pytest.approx((1, 1))
    assert row.verdict == "clearly higher: +1.000 [1.000, 1.000]"


def test_values_are_over_the_images_scored_in_both(files):
    a, b = made({"itm": [1, 2, np.nan]}), made({"itm": [np.nan, 5, 100]})
    (row,) = compare(*files(a, b)).differences
    assert (row.a, row.b, row.change.n) == (2, 5, 1)
    nothing = compare(*files(a, made({"itm": [np.nan, np.nan, 1]})))
    assert nothing.differences[0].verdict == "no image is scored in both"
    assert nothing.plain()["differences"][0]["change"] == {"value": None, "low": None, "high": None, "n": 0}


def test_other_images_are_refused_with_counts_and_names(files):
    a = made({"words": [1, 2, 3]}, ["a", "b", "c"])
    b = made({"words": [1, 2, 3, 4, 5]}, ["b", "d", "e", "f", "g"])
    with pytest.raises(UserError) as error:
        compare(*files(a, b))
    lines = str(error.value).splitlines()
    assert lines[0].endswith("are not of the same images: 1 are in both")
    assert lines[1].endswith("a.json: a, c")
    assert "4 only in" in lines[2]
    assert lines[2].endswith("d, e, f, ...")
    assert "--allow-missing" in lines[3]
    with pytest.raises(UserError, match="0 are in both"):
        compare(*files(a, made({"words": [1]}, ["z"])), allow_missing=True)


def test_shared_images_can_be_compared(files):
    a = made(
        {"words": [1, 2, 3], "clip_recall_r1": [1, 1, 1], "distinct_captions": [0.5, 0.5, 1]}, ["a", "b", "c"]
    )
    b = made({"words": [5, 6], "clip_recall_r1": [0, 0], "distinct_captions": [1, 1]}, ["c", "b"])
    found = compare(*files(a, b), allow_missing=True)
    assert (found.images, found.only_a, found.only_b) == (2, ("a",), ())
    by_name = {row.measure: row for row in found.differences}
    assert by_name["words"].change.value == 3
    # Of the two captions that are left both are different, whatever was shared with the third.
    assert by_name["distinct_captions"].a == 2
    assert "clip_recall_r1" not in by_name
    assert found.left_out == ("clip_recall is not compared: captions were looked up among different images",)


def test_measures_of_other_models_are_left_out(files):
    a = made({"clip_recall_r1": [1], "itm": [1], "words": [1]}, clip="small", itm="same")
    b = made({"clip_recall_r1": [1], "itm": [1], "lm_logprob": [1]}, clip="big", itm="same", model="other")
    found = compare(*files(a, b))
    assert [row.measure for row in found.differences] == ["itm"]
    assert found.left_out == (
        "clip_recall is not compared: measured with small and with big",
        "words is not compared: only in the evaluation of m",
        "lm_logprob is not compared: only in the evaluation of other",
    )


@pytest.mark.parametrize(
    ("name", "change", "verdict"),
    [
        ("clip_recall_r1", (0.612, 0.59, 0.63, 9), "clearly higher: +61.2 points [59.0, 63.0]"),
        ("bad_phrases", (-0.05, -0.07, -0.01, 9), "clearly lower: -5.0 points [-7.0, -1.0]"),
        ("words", (0.25, -1, 1.5, 9), "no clear difference: +0.250 [-1.000, 1.500]"),
        ("distinct_captions", (-3, -9, 3, 9), "no clear difference: -3 [-9, 3]"),
        ("itm", (1e-12, 1e-12, 1e-12, 9), "no difference"),
        ("itm", (np.nan, np.nan, np.nan, 0), "no image is scored in both"),
        ("facts_true", (-1e-5, -2e-2, 1e-2, 9), "no clear difference: +0.0 points [-2.0, 1.0]"),
    ],
)
def test_verdicts_in_words(name, change, verdict):
    assert written_change(name, Interval(*change)) == verdict


def test_the_seed_decides_the_intervals(files):
    rng = np.random.default_rng(2)
    paths = files(made({"words": rng.random(40).tolist()}), made({"words": rng.random(40).tolist()}))
    assert compare(*paths) == compare(*paths)
    other = compare(*paths, seed=1).differences[0].change
    assert replace(other, low=0, high=0) == replace(compare(*paths).differences[0].change, low=0, high=0)
    assert other != compare(*paths).differences[0].change
