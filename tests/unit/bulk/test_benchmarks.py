"""The benchmarks of captioning in bulk, at a size at which they say nothing of speed."""

import io
import sys
from pathlib import Path

import pytest
from transformers import Blip2ForConditionalGeneration

import tiny

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def captioner(tmp_path, benchmarks):
    """A small BLIP-2 whose captions end where they end."""
    import bulk_captions

    folder = tiny.blip2(tmp_path / "captioner")
    model = Blip2ForConditionalGeneration.from_pretrained(folder)
    bulk_captions.end_somewhere(model)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path, benchmarks):
    import bulk_captions

    bulk_captions.photographs(tmp_path / "photos", 6, width=96, height=64)
    return tmp_path / "photos"


def test_both_sides_write_the_same_captions(captioner, photos, capsys):
    import bulk_captions

    found = {}
    for side, batch in (("pipeline", 1), ("pipeline", 4), ("limner", 4)):
        captions = bulk_captions.SIDES[side](captioner, photos)(batch, 6)
        found[side, batch] = [{"seconds": 1.0, "cpu": 1.0, "captions": captions}]
    bulk_captions.show(found, 6)
    said = capsys.readouterr().out
    assert said.count("6 captions are the same") == 3
    assert "limner 1.00 times as fast" in said


def test_a_process_without_ray_says_its_rate(captioner, photos, monkeypatch, capsys):
    import bulk_ray

    monkeypatch.setattr(bulk_ray, "BATCH", 2)
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\n"))
    assert bulk_ray.rate("alone", 1, str(captioner), str(photos)) > 0
    assert capsys.readouterr().out == "ready\n"


def test_the_rate_is_that_of_the_time_when_all_are_busy(benchmarks):
    import bulk_ray

    beginning, end = [5.0] * 16 + [6.0] * 16, [16.0] * 16
    times = [*beginning, *(6.0 + number / 16 for number in range(1, 145)), *end]
    assert bulk_ray.steady(times, 2) == pytest.approx(16.0)
