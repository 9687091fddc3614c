"""Names of measures and groups, and how values are written."""

from pathlib import Path

import pytest

from limner.errors import UserError
from limner.metrics.bootstrap import Interval
from limner.metrics.captions import caption_measures
from limner.metrics.measures import GROUPS, MEASURES, chosen, written, written_interval


def test_every_measure_is_in_one_group():
    assert sorted(name for members in GROUPS.values() for name in members) == sorted(MEASURES)
    assert set(caption_measures(["a"])) == set(GROUPS["captions"])


def test_groups_and_measures_may_be_mixed():
    assert chosen(["captions", "clip_recall_r1"]) == {
        "clip_recall": ("clip_recall_r1",),
        "captions": GROUPS["captions"],
    }


def test_every_measure_and_group_is_documented():
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text("utf8")
    table = page[page.index("## Measures") : page.index("### CLIP recall")]
    table = table.replace("`_r5`", "`clip_recall_r5`").replace("`_r10`", "`clip_recall_r10`")
    assert [name for name in [*MEASURES, *GROUPS] if f"`{name}`" not in table] == []


def test_a_pooled_measure_brings_its_weight():
    assert chosen(["facts_true"]) == {"facts": ("facts_stated", "facts_true")}


def test_a_wrong_name_is_refused_with_the_likeliest():
    with pytest.raises(UserError, match=r"no 'clip_recal', did you mean 'clip_recall'"):
        chosen(["clip_recal"])


def test_values_as_people_read_them():
    assert written("clip_recall_r1", 0.6125) == "61.3%"
    assert written("distinct_captions", 812.0000001) == "812"
    assert written("lm_logprob", -2.5) == "-2.500"
    assert written("itm", float("nan")) == "-"
    assert written_interval("facts_true", Interval(0.5, 0.4, 0.61, 9)) == "[40.0, 61.0]"
    assert written_interval("itm", Interval(float("nan"), float("nan"), float("nan"), 0)) == "-"
