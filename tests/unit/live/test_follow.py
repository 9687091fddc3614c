import json
import os
import shutil

import numpy as np
import pytest

from limner.alarms import spells
from limner.errors import UserError
from limner.live.follow import QUIET_SECONDS, QUIET_STEPS, STARTING_SECONDS, WRITTEN, Followed, Runs
from limner.report.files import RunFiles
from limner.run import Run
from made_up_run import STEPS, make

NOW = 1_000_000.0


@pytest.fixture
def run(tmp_path):
    """A finished run whose files were written long ago."""
    return aged(make(tmp_path), 0.0)


def aged(run, seconds):
    """Every file changed last so many seconds ago."""
    for name in (*WRITTEN, "resolved.json", "recipe.yaml"):
        if (run / name).exists():
            os.utime(run / name, (NOW - seconds, NOW - seconds))
    return run


def cut(run, rows):
    """The run as it was after so many rows, its last checkpoint too."""
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:rows]))
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    return run


def progress(run, step, **values):
    folder = run / f"checkpoints/step-{step:06d}"
    folder.mkdir()
    (folder / "progress.json").write_text(json.dumps({"step": step, **values}))


def looked(run, now=NOW):
    followed = Followed(run, "name")
    followed.look(now)
    return followed


def append(run, text):
    with (run / "metrics.jsonl").open("a") as file:
        file.write(text)


def test_numbers_are_those_of_the_file(run):
    followed = looked(run)
    rows = RunFiles(run).metrics
    for key in ("reward/total", "evaluate/clip_recall_r1", "watch/words"):
        logged = [np.nan if row.get(key) is None else row[key] for row in rows]
        np.testing.assert_array_equal(followed.history.column(key), logged)
    assert followed.history.step == followed.steps == STEPS
    assert followed.history.step_seconds == 1.5


def test_rows_are_taken_in_as_they_come_and_broken_ones_counted(run):
    followed = looked(cut(run, 3))
    assert followed.look(NOW) is False
    append(run, '{"step": 4, "reward/new": 1.5, "watch/words": NaN}\n{"step": 5')
    assert followed.look(NOW) is True
    assert followed.history.step == 4
    np.testing.assert_array_equal(followed.history.column("reward/new"), [np.nan] * 3 + [1.5])
    append(run, '}\n[1]\nnot json\n"text"\n{"reward/total": 1}\n{"step": 2}\n\n{"step": 6}\n')
    followed.look(NOW)
    assert (followed.history.step, followed.broken) == (6, 6)
    assert len(followed.history.column("watch/words")) == len(followed.history) == 6


def test_a_resumed_run_drops_the_rows_that_are_made_again(run):
    followed = looked(run)
    again = Run(run, recipe=None, step=40)  # as a run that is resumed opens its folder
    again.close()
    followed.look(NOW)
    assert followed.history.step == 40
    append(run, json.dumps({"step": 41, "reward/total": 7.0}) + "\n")
    followed.look(NOW)
    assert followed.history.last("reward/total") == 7.0
    assert len(followed.history) == 41


def test_alarms_are_those_of_the_report_row_by_row(run):
    rows = [{"step": step, "watch/cut": 0.5 if 20 < step < 30 or step > 50 else 0.0} for step in range(1, 61)]
    followed = looked(cut(run, 0))
    for row in rows:
        append(run, json.dumps(row) + "\n")
        followed.look(NOW)
    assert followed.history.spells == spells(RunFiles(run).watch, rows)
    assert list(followed.history.standing) == ["watch/cut"]
    assert len(followed.history.spells["watch/cut"]) == 2


def test_limits_of_the_recipe_are_used_when_it_changes(run):
    followed = looked(run)
    assert not followed.history.standing
    settings = json.loads((run / "resolved.json").read_text())
    settings["watch.alarms"] = {"value": {"watch/words": {"max": 1}}, "origin": "mine.yaml:1"}
    (run / "resolved.json").write_text(json.dumps(settings))
    followed.look(NOW)
    assert list(followed.history.standing) == ["watch/words"]
    assert len(followed.history) == STEPS


def test_states(run):
    assert str(looked(run).state) == "finished"
    cut(run, 30)
    assert looked(aged(run, QUIET_SECONDS - 1)).state.name == "running"
    stalled = looked(aged(run, 3600)).state
    assert str(stalled) == "stalled: nothing written for 1 h 0 min"
    progress(run, 30, stopped="alarm: watch/cut is 1")
    assert str(looked(run).state) == "stopped: alarm: watch/cut is 1"
    append(run, '{"step": 31}\n')  # resumed: what ended it then does not hold any more
    assert looked(aged(run, 0)).state.name == "running"


def test_a_run_that_got_no_better_is_stopped(run):
    cut(run, 30)
    settings = json.loads((run / "resolved.json").read_text())
    settings["evaluate.patience"] = {"value": 2, "origin": "default"}
    (run / "resolved.json").write_text(json.dumps(settings))
    progress(run, 30, stale=2)
    assert str(looked(aged(run, 9999)).state) == "stopped: evaluations got no better"


def test_a_run_with_long_steps_is_not_called_stalled_soon(run):
    cut(run, 3)
    append(run, '{"step": 4, "seconds": 1000.0}\n')
    assert looked(aged(run, QUIET_STEPS * 1000 - 1)).state.name == "running"
    assert looked(aged(run, QUIET_STEPS * 1000 + 1)).state.name == "stalled"


def test_a_run_without_a_step_is_starting(run):
    cut(run, 0)
    assert looked(aged(run, STARTING_SECONDS - 1)).state.name == "starting"
    assert looked(aged(run, STARTING_SECONDS + 1)).state.name == "stalled"


def test_the_time_left_follows_from_the_last_steps(run):
    followed = looked(aged(cut(run, 30), 0))
    assert followed.seconds_left == 30 * 1.5
    assert looked(aged(run, 9999)).seconds_left is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"update.steps": 3}'])
def test_a_recipe_that_cannot_be_read_is_done_without(run, text):
    (run / "resolved.json").write_text(text)
    followed = looked(run)
    assert (followed.steps, followed.method, followed.history.step) == (None, "", STEPS)
    (run / "resolved.json").unlink()
    followed.look(NOW)
    assert followed.history.step == STEPS


def test_runs_appear_and_vanish(tmp_path):
    runs = Runs(tmp_path)
    assert (runs.look(NOW), list(runs)) == (False, [])
    make(tmp_path / "group", name="one")
    shutil.copytree(tmp_path / "group/one", tmp_path / "two")
    os.utime(tmp_path / "two/resolved.json", (NOW, NOW))
    os.utime(tmp_path / "group/one/resolved.json", (NOW + 1, NOW + 1))
    assert runs.look(NOW) is True
    assert [run.name for run in runs] == ["group/one", "two"]
    assert runs.look(NOW) is False
    shutil.rmtree(tmp_path / "group/one")
    assert runs.look(NOW) is True
    assert [run.name for run in runs] == ["two"]
    alone = Runs(tmp_path / "two")
    alone.look(NOW)
    assert [run.name for run in alone] == ["two"]
    shutil.rmtree(tmp_path)
    assert runs.look(NOW) is True
    assert list(runs) == []


def test_mistakes_are_named(run):
    runs = Runs(run.parent)
    runs.look(NOW)
    with pytest.raises(UserError, match="did you mean 'made-up'"):
        runs.named("made-upp")
    with pytest.raises(UserError, match="no such folder"):
        Runs(run / "nothing")
