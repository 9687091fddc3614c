import io
import json

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from limner import cli_watch
from limner.errors import UserError
from limner.live import watch as watching
from limner.live.follow import Runs
from limner.live.spark import BARS, PLAIN, ends, spark
from limner.live.watch import View, watch
from made_up_run import make

ESCAPE = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202e[bold]mark[/bold]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run with an alarm, one without anything but a recipe, and one with a long name."""
    folder = tmp_path_factory.mktemp("runs")
    run = make(folder, name="alarmed")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    cut = [{**row, "watch/cut": 0.5, f"reward/{ESCAPE}": 1.0} for row in rows]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in cut) + "broken\n")
    sample = {"id": "odd", "caption": ESCAPE, "parts": {"itm": 0.5, "none": None}}
    (run / "samples/step-000090.jsonl").write_text(json.dumps(sample) + '\n{"id": "half writt')
    (folder / "new").mkdir()
    (folder / "new/resolved.json").write_text("{}")
    (folder / ("long-" * 20)).mkdir()
    (folder / ("long-" * 20) / "metrics.jsonl").write_text('{"step": 1, "reward/total": 1}\n')
    return folder


def lines(view, *, width=100, height=24, encoding="utf-8", keys=False):
    """What a terminal of that size is sent, without colours."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(file=file, width=width, height=height)
    console.print(view.drawn(console, keys=keys))
    file.flush()
    return file.buffer.getvalue().decode(encoding).splitlines()


def view(folder, run=""):
    runs = Runs(folder)
    runs.look(0.0)
    return View(runs, run)


@pytest.mark.parametrize("run", ["", "alarmed", "new"])
@pytest.mark.parametrize("width", [8, 20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_nothing_moves_the_cursor(folder, run, width):
    shown = lines(view(folder, run), width=width)
    assert max(map(cell_len, shown)) <= width
    assert all(letter.isprintable() for line in shown for letter in line)


def test_the_table_says_how_every_run_is(folder):
    text = "\n".join(lines(view(folder), width=180))
    assert "1 starting, 1 running, 1 finished" in text
    alarmed = next(line for line in text.splitlines() if line.startswith("alarmed"))
    assert alarmed.split()[1:] == [
        "finished",
        "60/60",
        "1.50",
        "s",
        "1.00",
        alarmed.split()[-3],
        "13.0",
        "cut",
    ]
    assert alarmed.split()[-3] == spark(np.linspace(-3, 1, 60), 32)


def test_a_run_in_depth(folder):
    text = "\n".join(lines(view(folder, "alarmed")))
    assert "ALARM  Cut by the length limit: 50.0% (at the start 50.0%), above 0.1" in text
    assert "1 line of metrics.jsonl cannot be read" in text
    assert "[bold]mark[/bold]" in text
    assert "Drawn in step 90" in text
    assert "odd  itm 0.500  none \N{EN DASH}" in text
    rows = {line[: line.find("  ")]: line.split()[-2:] for line in text.splitlines()}
    assert rows["Words"] == ["3.92", "12.2"]  # means of steps 1 to 10 and 51 to 60 of 3 + 10 * step / 60
    assert "before" in text
    assert "after" in text


def test_a_terminal_that_knows_ascii_alone_gets_that(folder):
    for run in ("", "alarmed"):
        text = "\n".join(lines(view(folder, run), encoding="ascii"))
        assert not set(text) & set(BARS)
        assert PLAIN in spark(np.arange(8.0), 8, bars=PLAIN)


def test_keys_choose_runs(folder):
    chosen = view(folder)
    order = [run.name for run in chosen.runs]
    chosen.press("down")
    assert chosen.chosen == order[1]
    for key in ("down", "down", "in"):
        chosen.press(key)
    assert (chosen.chosen, chosen.deep) == (order[2], True)
    assert any("Esc" in line for line in lines(chosen, keys=True))
    chosen.press("up")
    chosen.press("out")
    assert (chosen.chosen, chosen.deep) == (order[1], False)
    assert any("Enter" in line for line in lines(chosen, keys=True))


def test_a_low_terminal_shows_the_runs_about_the_chosen_one(folder, tmp_path):
    for number in range(30):
        (tmp_path / f"run-{number:02d}").mkdir()
        (tmp_path / f"run-{number:02d}/metrics.jsonl").write_text('{"step": 1}\n')
    chosen = view(tmp_path)
    chosen.chosen = "run-17"
    shown = lines(chosen, height=15, keys=True)
    assert len(shown) <= 15
    assert any(line.startswith("run-17") for line in shown)
    assert any(line.startswith("and 22 more") for line in shown)


def test_the_course_keeps_its_shape():
    assert spark(np.arange(8.0), 8) == BARS
    assert spark(np.arange(800.0), 8) == BARS
    assert spark(np.array([np.nan, 1.0, np.nan, 2.0]), 8) == BARS[0] + BARS[-1]
    assert spark(np.array([3.0, 3.0]), 8) == BARS[0] * 2
    assert spark(np.array([np.nan]), 8) == spark(np.array([]), 8) == spark(np.arange(3.0), 0) == ""


def test_the_ends_are_means_of_separate_values():
    assert ends(np.arange(60.0)) == (4.5, 54.5)
    assert ends(np.array([1.0, np.nan, 2.0])) == (1.0, 2.0)
    assert ends(np.array([5.0])) == (5.0, 5.0)
    assert np.isnan(ends(np.array([]))).all()


def test_without_a_terminal_it_is_printed_again_when_something_changed(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "one").mkdir()
    metrics = tmp_path / "one/metrics.jsonl"
    metrics.write_text('{"step": 1}\n')
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt
        if len(naps) == 2:
            metrics.write_text('{"step": 1}\n{"step": 2}\n')

    monkeypatch.setattr(watching.time, "sleep", sleep)
    watch(tmp_path, every=7.0)
    out = capsys.readouterr().out
    assert naps == [7.0] * 3
    assert [line for line in out.splitlines() if line.startswith("step")] == ["step 1", "step 2"]
    assert "\x1b" not in out


def test_an_empty_folder_says_so(tmp_path, capsys):
    watch(tmp_path, once=True)
    assert "no runs yet" in capsys.readouterr().out
    with pytest.raises(UserError, match="runs: none"):
        watch(tmp_path, run="one", once=True)


def test_what_the_page_does_not_know_is_refused(tmp_path):
    with pytest.raises(UserError, match="leave --run and --once out"):
        cli_watch.watch(tmp_path, once=True, page=True)
