"""Gallery, heat map, watch, recipe and table, one section at a time."""

import json

import pytest
import yaml

from limner.config_read import nested
from limner.evaluation import Row
from limner.report import about, gallery, heat, images, labels, measured, watched
from limner.report.files import RunFiles
from made_up_run import STEPS, make, make_photographs

M, D = "\N{MINUS SIGN}", "\N{EN DASH}"


def pieces(caption, *facts):
    rows = tuple({"start": s, "end": e, "true": t, "kind": k} for s, e, t, k in facts)
    return [(piece.text, piece.state) for piece in gallery._pieces(Row("x", caption, {}, rows))]


def test_words_are_marked_by_the_facts_they_state():
    found = pieces(
        "a red ring left of a blue star",
        (1, 2, True, "colour"),
        (2, 3, False, "shape"),
        (3, 5, False, "relation"),
        (7, 8, True, "shape"),
    )
    assert found == [
        ("a", ""), ("red", "true"), ("ring", "false"), ("left of", "false"), ("a blue", ""), ("star", "true"),
    ]  # fmt: skip


def test_a_word_of_a_true_and_a_false_fact_is_false():
    assert pieces("star", (0, 1, True, "shape"), (0, 1, False, "colour")) == [("star", "false")]
    assert pieces("star", (0, 1, False, "shape"), (0, 1, True, "colour")) == [("star", "false")]


def test_facts_outside_of_the_caption_mark_nothing():
    assert pieces("a star", (-3, 0, True, "shape"), (2, 9, False, "shape")) == [("a star", "")]
    assert pieces("", (0, 1, True, "shape")) == []


@pytest.mark.parametrize(
    ("total", "count", "places"), [(10, 5, [0, 2, 4, 6, 8]), (3, 5, [0, 1, 2]), (0, 5, [])]
)
def test_samples_are_evenly_spaced(total, count, places):
    assert gallery.spaced([str(n) for n in range(total)], count) == [str(place) for place in places]


def test_the_gallery_pairs_captions_by_id_and_shows_the_worst(tmp_path):
    found = gallery.build(RunFiles(make(tmp_path)))
    assert found.total == 24
    assert found.facts
    assert found.worst_by == "most false facts"
    assert [item.id for item in found.worst] == [f"test-{n:06d}" for n in (0, 5, 10, 15, 20)]
    for item in found.shown:
        assert item.picture is not None
        assert item.picture.startswith("data:image/png;base64,")
        assert item.hard_edges
        assert item.before is not None
        assert item.after is not None
        assert len(item.before.pieces) <= len(item.after.pieces)


def test_photographs_have_pictures_by_their_file_names_and_no_facts(tmp_path):
    found = gallery.build(RunFiles(make_photographs(tmp_path)))
    assert not found.facts
    assert found.worst == ()
    assert (found.shown[0].picture or "").startswith("data:image/jpeg;base64,")
    assert not found.shown[0].hard_edges


@pytest.mark.parametrize(
    "id", ["../../secret", "a/b", ".hidden", "x" * 300, "\ud800", "père.jpg", "CON", "%2e"]
)
def test_a_picture_stays_in_its_folder_whatever_the_id(id, tmp_path):
    path = tmp_path / images.file_name(id)
    assert path.parent == tmp_path
    assert len(path.name) < 200
    path.touch()


def test_long_ids_that_begin_alike_have_pictures_of_their_own():
    assert images.file_name("x" * 300) != images.file_name("x" * 301)


def test_no_picture_from_outside_of_the_run(tmp_path):
    run = make(tmp_path)
    outside = tmp_path / "outside.png"
    outside.write_bytes((run / "samples/images/00.png").read_bytes())
    assert images.address(run / "samples/../samples/images/00.png", run) is not None
    assert images.address(run / "samples/../../outside.png", run) is None
    (run / "broken.png").write_bytes(b"no picture")
    assert images.address(run / "broken.png", run) is None


def test_heat_is_the_distance_from_the_median_return(tmp_path):
    found = heat.build(RunFiles(make(tmp_path)))
    assert [step.step for step in found.steps] == [20, 40, 60]
    step = found.steps[0]
    assert (step.low, step.middle, step.high) == (f"{M}2.5", "0.0", "0.5")
    tokens = step.captions[0].tokens
    assert [token.text for token in tokens] == ["an", "image", "of", "a", "star", "</s>"]
    assert [token.earned.side for token in tokens] == ["less"] * 3 + ["more"] * 3
    assert tokens[0].earned.strength == 1.0
    assert tokens[0].value is not None
    assert tokens[0].value.strength == pytest.approx(1.0 / 2.5)
    assert step.captions[0].parts == (("itm", "0.500"), ("bad phrases", f"{M}3.00"))


def test_tokens_without_numbers_are_kept(tmp_path):
    (tmp_path / "samples").mkdir()
    row = {"tokens": ["a", " ", "cat"], "returns": [1.0, None], "values": None}
    (tmp_path / "samples/step-000001.jsonl").write_text(json.dumps(row) + "\n")
    found = heat.build(RunFiles(tmp_path))
    tokens = found.steps[0].captions[0].tokens
    assert [(token.text, token.earned.text) for token in tokens] == [("a", "1.0"), ("␣", D), ("cat", D)]
    assert not found.has_values


HEALTHY = {
    "watch/cut": 0.0,
    "watch/distinct": 0.9,
    "watch/repetition": 0.1,
    "watch/lm_logprob": -2.0,
    "refused": 0.0,
}


@pytest.mark.parametrize(
    ("key", "end", "said"),
    [
        ("watch/cut", 0.3, "30.0% (at the start 0.0%), above 0.1, from step 24 on"),
        ("watch/distinct", 0.1, "10.0% (at the start 90.0%), below 0.5 of the start, from step 26 on"),
        ("watch/repetition", 0.8, "80.0% (at the start 10.0%), above 0.6, from step 28 on"),
        ("watch/lm_logprob", -4.5, f"{M}4.50 (at the start {M}2.00), more than 1 below the start"),
        ("watch/zero_spread", 0.8, "80.0% (at the start 80.0%), above 0.5, from step 21 on: groups"),
        ("evaluate/bad_phrases", 0.4, "above 0.1, from step 21 on: measured captions hold bad phrases."),
    ],
)
def test_each_sign_of_a_run_gone_astray_raises_its_alarm(key, end, said, tmp_path):
    rows = [{"step": step, **HEALTHY, **({key: end} if step > 20 else {})} for step in range(1, 41)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (alarm,) = watched.build(RunFiles(tmp_path)).alarms
    assert said in alarm


def test_limits_are_those_of_the_recipe(tmp_path):
    rows = [{"step": step, **HEALTHY, "watch/words": 4.0 + 3.0 * (20 < step < 31)} for step in range(1, 41)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert watched.build(RunFiles(tmp_path)).alarms == ()
    given = {"watch.alarms": {"watch/words": {"times": 1.5}}, "watch.window": 2}
    settings = {path: {"value": value, "origin": "given.yaml:1"} for path, value in given.items()}
    (tmp_path / "resolved.json").write_text(json.dumps(settings))
    (alarm,) = watched.build(RunFiles(tmp_path)).alarms
    assert alarm == "Words: 7.00 (at the start 4.00), above 1.5 times the start, in steps 22 to 31."


def test_a_healthy_run_raises_none_and_lost_steps_are_named(tmp_path):
    rows = [{"step": step, **HEALTHY} for step in range(1, 41)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert watched.build(RunFiles(tmp_path)).alarms == ()
    rows[6] |= {"refused": 1.0, "unscored": 0.25}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused, unscored = watched.build(RunFiles(tmp_path)).alarms
    assert refused == "1 step was refused because a loss or reward was not finite: 7."
    assert "up to 25.0%" in unscored


def test_rejects_are_counted_by_reason(tmp_path):
    found = watched.rejects(RunFiles(make(tmp_path)))
    assert [(row.reason, row.count, row.example) for row in found] == [
        ("empty file", 2, "0.jpg"),
        ("not an image", 1, "2.jpg"),
    ]


def test_the_recipe_is_yaml_again_with_every_origin(tmp_path):
    run = RunFiles(make(tmp_path))
    found = about.recipe(run)
    text = "\n".join(f"{'  ' * line.indent}{line.key}: {line.value}" for line in found.all)
    assert yaml.safe_load(text) == nested({path: row["value"] for path, row in run.settings.items()})
    assert {line.origin for line in found.given} == {
        "",
        "tiny/vlrm.yaml:3",
        "tiny/vlrm.yaml:9",
        "command line",
    }
    assert "weight" not in {line.key for line in found.given}


def test_the_headline_is_measured_and_says_how_sure_it_is(tmp_path):
    found = measured.headline(RunFiles(make(tmp_path)))
    assert (found.title, found.before, found.after) == ("R@1", "4.2%", "100.0%")
    assert "Clearly higher: +95.8 points [" in found.said
    assert [title for title, *_ in found.beside] == ["Scene covered", "Words a caption"]


def test_without_an_evaluation_the_headline_is_what_was_logged(tmp_path):
    run = make(tmp_path)
    (run / "evaluation/after.json").unlink()
    found = measured.headline(RunFiles(run))
    assert (found.title, found.before, found.after) == ("R@1", "23.3%", "90.0%")
    assert "at step 10 and at step 60" in found.said
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if not k.startswith("evaluate/")} for row in rows]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = measured.headline(RunFiles(run))
    assert found.title == "Reward"
    assert f"the first and the last 6 steps of {STEPS}" in found.said


def test_the_measure_that_chose_the_checkpoint_is_the_headline(tmp_path):
    run = make_photographs(tmp_path)
    settings = json.loads((run / "resolved.json").read_text())
    settings["evaluate.best"] = {"value": "cider", "origin": "recipe.yaml:3"}
    (run / "resolved.json").write_text(json.dumps(settings))
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "reward/total": -2.0, "evaluate/cider": 0.5}\n'
        '{"step": 2, "reward/total": 1.0, "evaluate/cider": 0.75}\n'
    )
    found = measured.headline(RunFiles(run))
    assert (found.title, found.before, found.after) == ("CIDEr", "0.500", "0.750")
    settings["evaluate.best"]["value"] = "facts_f1"
    run = make(tmp_path, name="facts")
    (run / "resolved.json").write_text(json.dumps(settings))
    assert measured.headline(RunFiles(run)).title == "R@1", "facts it chose by do not hide the retrieval"


def test_longer_captions_alone_make_no_headline(tmp_path):
    run = make_photographs(tmp_path)
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "reward/total": -2.0}\n{"step": 2, "reward/total": 1.0}\n'
    )
    found = measured.headline(RunFiles(run))
    assert (found.title, found.before, found.after) == ("Reward", f"{M}2.00", "1.00")


def test_rows_of_the_table_have_places_on_one_axis(tmp_path):
    found = measured.table(RunFiles(make(tmp_path)))
    recall = next(row for row in found.rows if row.title == "CLIP recall R@1")
    assert recall.before is not None
    assert recall.after is not None
    assert recall.before.at == pytest.approx(100 / 24, abs=0.01)
    assert recall.after.at == 100.0
    assert recall.verdict == "clearly higher"
    for row in found.rows:
        for cell in (row.before, row.after):
            assert cell is not None
            assert 0 <= cell.low <= cell.at <= cell.high <= 100


def test_evaluations_of_other_pictures_are_not_compared(tmp_path):
    run = make(tmp_path)
    path = run / "evaluation/before.json"
    path.write_text(path.read_text().replace('"test-', '"elsewhere-'))
    found = measured.table(RunFiles(run))
    assert all(row.verdict == "" for row in found.rows)
    assert any("not of the same images" in text and str(run) not in text for text in found.about)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.84449, f"{M}0.844"),
        (13.0, "13.0"),
        (12345.6, "12,346"),
        (3.2e-7, f"3.2e{M}7"),
        (float("nan"), D),
    ],
)
def test_numbers_are_written_for_people(value, text):
    assert labels.Label("x").text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.012, "12 ms"), (0.43, "0.43 s"), (48.2, "48 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_written_for_people(value, text):
    assert labels.seconds(value) == text
