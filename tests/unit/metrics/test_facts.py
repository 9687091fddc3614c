"""Truth of captions of the miniature world, by hand."""

import numpy as np
import pytest

from limner.metrics.bootstrap import intervals
from limner.metrics.facts import fact_measures, truth_of
from limner.metrics.measures import MEASURES, ratios
from limner.world.captions import full, terse
from limner.world.scenes import Scene, Thing, scene

# A red star above a blue ring, on pink: 2 shapes, 2 colours, 1 relation, 1 background.
SCENE = Scene("pink", (Thing("star", "red", 0, 0, 0, 0), Thing("ring", "blue", 0, 1, 0, 0)))


@pytest.mark.parametrize(
    ("caption", "stated", "true", "relations", "relations_true", "coverage"),
    [
        ("a red star above a blue ring on a pink background", 6, 1, 1, 1, 1),
        ("A red star, above a blue ring; on a PINK background.", 6, 1, 1, 1, 1),
        ("a star", 1, 1, 0, np.nan, 1 / 6),
        ("a red star below a blue ring on a pink background", 6, 5 / 6, 1, 0, 5 / 6),
        ("a green circle", 2, 0, 0, np.nan, 0),
        ("something else", 0, np.nan, 0, np.nan, 0),
        ("", 0, np.nan, 0, np.nan, 0),
    ],
)
def test_by_hand(caption, stated, true, relations, relations_true, coverage):
    found = {name: values.item() for name, values in fact_measures([truth_of(caption, SCENE)]).items()}
    f1 = 2 * true * coverage / (true + coverage) if coverage else 0
    assert found == pytest.approx(
        {
            "facts_stated": stated,
            "facts_true": true,
            "relations_stated": relations,
            "relations_true": relations_true,
            "coverage": coverage,
            "facts_f1": f1,
        },
        nan_ok=True,
    )


def test_the_share_of_true_facts_is_pooled_over_all_facts():
    captions = ("a star", "a green square above a green circle", "hello")
    rows = fact_measures([truth_of(c, SCENE) for c in captions])
    found = intervals(ratios(rows))
    # One true fact of 1 + 5; a mean of the shares would say 1/2.
    assert found["facts_true"].value == pytest.approx(1 / 6)
    assert found["facts_true"].n == 3
    assert found["relations_true"].value == 0
    assert set(rows) <= set(MEASURES)


def test_places_of_facts_count_words_between_spaces():
    truth = truth_of('"A red star" - (above) a BLUE ring.', SCENE)
    assert [(fact.text, fact.words) for fact in truth.stated] == [
        *(("red star", (1, 2)), ("star", (2, 3)), ("star above ring", (4, 5))),
        *(("blue ring", (6, 7)), ("ring", (7, 8))),
    ]


def test_no_captions():
    assert all(len(values) == 0 for values in fact_measures([]).values())


def test_full_captions_are_perfect_and_terse_ones_true():
    scenes = [scene(0, index, "validation") for index in range(50)]
    rng = np.random.default_rng(0)
    complete = fact_measures([truth_of(full(s, rng), s) for s in scenes])
    assert complete["facts_true"].tolist() == complete["coverage"].tolist() == [1] * 50
    short = fact_measures([truth_of(terse(s, rng), s) for s in scenes])
    assert short["facts_true"].tolist() == [1] * 50
    assert short["coverage"].mean() < 0.4
