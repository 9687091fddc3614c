"""Captions: true where they should be, wrong in exactly one place where they should be."""

import numpy as np
import pytest

from limner.world import captions
from limner.world.captions import (
    WORDS,
    corrupt,
    false_relation,
    full,
    has_held_out_pair,
    invent,
    noisy,
    terse,
    varied,
)
from limner.world.scenes import Scene, Thing, scene
from limner.world.truth import check

SCENES = [scene(3, index, "train") for index in range(400)]
TWO = Scene("pink", (Thing("star", "red", 0, 0, 0, 0), Thing("ring", "blue", 1, 1, 0, 0)))


def test_the_grammar_on_one_scene():
    assert full(TWO) == "a red star above a blue ring on a pink background"
    said = {full(TWO, np.random.default_rng(number)) for number in range(20)}
    assert said == {full(TWO), "a red star left of a blue ring on a pink background"}


@pytest.mark.parametrize("maker", [varied, terse, full])
def test_captions_are_true_and_use_known_words(maker):
    rng = np.random.default_rng(0)
    for told in SCENES:
        caption = maker(told, rng)
        assert check(told, caption).share_true == 1
        assert set(caption.split()) <= set(WORDS)
        assert len(caption.split()) <= 23


def test_full_captions_state_everything():
    rng = np.random.default_rng(0)
    for told in SCENES:
        assert check(told, full(told)).coverage == 1
        assert check(told, full(told, rng)).coverage == 1
        assert check(told, varied(told, rng, density=1.0)).coverage == 1


def test_bad_prefixes_come_at_the_stated_rate():
    rng = np.random.default_rng(0)
    said = [varied(told, rng, bad_rate=0.25) for told in SCENES for _ in range(5)]
    share = np.mean([caption.startswith(captions.BAD_PREFIXES) for caption in said])
    assert abs(share - 0.25) < 0.03
    assert not any("of a a " in caption or "image" in caption for caption in map(full, SCENES))


def test_terse_captions_are_terse():
    rng = np.random.default_rng(0)
    said = [terse(told, rng) for told in SCENES]
    assert np.mean([len(caption.split()) for caption in said]) < 3.5
    assert np.mean([check(told, caption).coverage for told, caption in zip(SCENES, said, strict=True)]) < 0.3


def test_corrupt_exchanges_one_word_and_makes_it_false():
    rng = np.random.default_rng(0)
    for told in SCENES:
        before = varied(told, rng)
        after = corrupt(before, rng, told)
        changed = sum(a != b for a, b in zip(before.split(), after.split(), strict=True))
        assert changed == 1
        assert check(told, after).share_true < 1
    assert corrupt("on a", rng) == "on a"


def test_false_relation_is_false_and_the_rest_stays_true():
    rng = np.random.default_rng(0)
    for told in SCENES:
        wrong = false_relation(told, full(told, rng), rng)
        if len(told.things) == 1:
            assert wrong is None
            continue
        false = [fact for fact in check(told, wrong).stated if not fact.true]
        assert [fact.kind for fact in false] == ["relation"]
        assert "below" not in wrong
    assert false_relation(TWO, "a star and a ring", rng) is None


def test_an_invented_thing_is_one_false_thing_more_before_the_background():
    rng = np.random.default_rng(0)
    for told in SCENES:
        before = varied(told, rng)
        after = invent(told, before, rng)
        assert len(after.split()) >= len(before.split()) + 3
        false = [fact for fact in check(told, after).stated if not fact.true]
        assert "shape" in {fact.kind for fact in false}
        assert check(told, after).coverage == check(told, before).coverage
        if before.endswith("background"):
            assert after.split()[-4:] == before.split()[-4:]
    with pytest.raises(ValueError, match="names nothing"):
        invent(TWO, "on a pink background", rng)


def test_noise_has_its_rate():
    rng = np.random.default_rng(0)
    before = [full(told) for told in SCENES]
    after = [noisy(caption, rng, 0.1) for caption in before]
    assert [noisy(caption, rng, 0.0) for caption in before] == before
    exchangeable = sum(len(check(told, caption).stated) for told, caption in zip(SCENES, before, strict=True))
    changed = sum(
        a != b for x, y in zip(before, after, strict=True) for a, b in zip(x.split(), y.split(), strict=True)
    )
    assert abs(changed / exchangeable - 0.1) < 0.03


def test_held_out_pairs_are_found_in_captions():
    assert has_held_out_pair("a circle and a red star")
    assert not has_held_out_pair("a red circle and a star")
