import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.report import curves
from limner.report.files import Absent, RunFiles
from made_up_run import CHOSEN, make

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(FINITE, FINITE, st.integers(2, 6))
def test_ticks_are_round_even_and_cover_the_values(a, b, count):
    low, high = min(a, b), max(a, b)
    if high - low < 1e-6 * max(abs(low), abs(high)):
        high = low
    ticks = curves.nice(low, high, count)
    gaps = np.diff(ticks)
    slack = 1e-6 * max(abs(low), abs(high))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 2 * count + 3
    assert np.allclose(gaps, gaps[0], rtol=1e-3, atol=slack)


@given(st.lists(st.one_of(st.just(math.nan), FINITE), min_size=1, max_size=60), st.integers(0, 9))
def test_the_running_mean_is_the_mean_of_what_is_in_the_window(values, half):
    found = curves.running_mean(np.array(values), 2 * half + 1)
    for place, got in enumerate(found):
        reach = min(half, place, len(values) - 1 - place)
        window = [v for v in values[place - reach : place + reach + 1] if not math.isnan(v)]
        assert got == pytest.approx(np.mean(window), abs=1e-3) if window else math.isnan(got)


def test_every_logged_key_is_drawn_once_or_named(tmp_path):
    found = curves.build(RunFiles(make(tmp_path)))
    drawn = [chart.key for group in found.groups for chart in group.charts]
    assert sorted(drawn) == sorted(
        [
            "evaluate/clip_recall_r1",
            "loss/policy",
            "reward/itm",
            "reward/total",
            "watch/distinct",
            "watch/words",
        ]
    )
    assert found.flat == ("Cut by the length limit 0.0%", "Unscored 0.0%", "Refused steps 0")
    assert found.empty == ()


def test_the_chosen_checkpoint_stands_at_its_step(tmp_path):
    found = curves.build(RunFiles(make(tmp_path)))
    chart = found.groups[1].charts[0]
    places = {step: x for step, x, _, _ in json.loads(chart.hover)}
    assert found.chosen == CHOSEN
    assert chart.chosen is not None
    assert chart.chosen.at == places[CHOSEN]


@pytest.mark.parametrize(
    ("values", "ends"), [((0.963, 0.967), ("90%", "100%")), ((0.0, 0.01), ("0%", "10%"))]
)
def test_a_wobble_of_a_share_does_not_fill_the_chart(values, ends, tmp_path):
    rows = [{"step": step + 1, "watch/cut": value} for step, value in enumerate(values)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ticks = curves.build(RunFiles(tmp_path)).groups[0].charts[0].y_ticks
    assert (ticks[0].text, ticks[-1].text) == ends


def test_values_that_were_not_logged_leave_the_others_in_place(tmp_path):
    rows = [{"step": s, "loss/policy": None if s in (3, 4) else float(s)} for s in range(1, 41)]
    rows[1]["loss/policy"] = "not a number"
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chart = curves.build(RunFiles(tmp_path)).groups[0].charts[0]
    assert [step for step, *_ in json.loads(chart.hover)] == [1, *range(5, 41)]
    assert chart.line.count("L") == 36


def test_a_spike_survives_thinning(tmp_path):
    values = [math.sin(step / 50) for step in range(5000)]
    values[3333] = 40.0
    rows = [{"step": step + 1, "loss/policy": value} for step, value in enumerate(values)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chart = curves.build(RunFiles(tmp_path)).groups[0].charts[0]
    heights = [float(point.split()[1]) for point in chart.line[1:].split("L")]
    assert len(heights) <= 2 * curves.MOST
    assert min(heights) == pytest.approx(curves.TOP, abs=0.1)


def test_one_step_is_drawn_as_a_dot(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss/policy": 0.5}\n{"step": 2, "loss')
    found = curves.build(RunFiles(tmp_path))
    assert len(found.groups[0].charts[0].dots) == 1


def test_no_steps_is_said(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(Absent, match="no step yet"):
        curves.build(RunFiles(tmp_path))
