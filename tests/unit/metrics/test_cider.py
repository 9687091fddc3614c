"""CIDEr-D against pycocoevalcap, CIDEr against a plain reading of the paper, frequencies and the scorer."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from limner.errors import UserError
from limner.metrics.cider import DocumentFrequencies, Scorer, cider
from random_captions import ROUNDING, Caption, Pair, captions, hunt, pairs, peer, split

L = math.log


def vectors(caption: Caption, idf: Mapping[tuple[str, ...], float], unseen: float) -> list[dict]:
    """For each length of n-grams their entries."""
    words = " ".join(caption).split()
    grams = [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for n in (1, 2, 3, 4)]
    return [{gram: times * idf.get(gram, unseen) for gram, times in each.items()} for each in grams]


def plain_cider(given: list[Pair]) -> list[float]:
    """CIDEr of the paper (equations 1 to 3) in dictionaries, times 10."""
    held = Counter(
        gram
        for _, references in given
        for gram in {gram for text in references for each in vectors(text, {}, 1.0) for gram in each}
    )
    unseen = L(len(given))
    idf = {gram: unseen - L(images) for gram, images in held.items()}
    scores = []
    for candidate, references in given:
        total = 0.0
        for reference in references:
            pair = zip(vectors(candidate, idf, unseen), vectors(reference, idf, unseen), strict=True)
            for mine, theirs in pair:
                norms = math.hypot(*mine.values()) * math.hypot(*theirs.values())
                dot = sum(entry * theirs.get(gram, 0.0) for gram, entry in mine.items())
                total += dot / norms / 4 if norms else 0.0
        scores.append(10 * total / len(references))
    return scores


def has_words(given: list[Pair]) -> bool:
    return any(" ".join(text).split() for _, references in given for text in references)


@hunt
@given(pairs)
def test_cider_d_equals_pycocoevalcap(given: list[Pair]):
    assume(has_words(given))  # pycocoevalcap fails where no reference has a word
    candidates, references = split(given)
    corpus, images = peer(Cider(), candidates, references)
    ours = cider(candidates, references)
    np.testing.assert_allclose(ours, images, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(ours.mean(), corpus, rtol=0, atol=ROUNDING)


@hunt
@given(pairs)
def test_cider_equals_the_paper_in_dictionaries(given: list[Pair]):
    ours = cider(*split(given), d=False)
    np.testing.assert_allclose(ours, plain_cider(given), rtol=0, atol=ROUNDING)


def test_both_by_hand():
    # log(2) for everything but "a", which both images hold. One word: 2 of the candidate's against 1;
    # two words: "a cat" of "a cat", "cat cat". The reference has no three words.
    given = ([["a", "cat", "cat"], []], [[["a", "cat"]], [["a", "dog"]]])
    assert cider(*given, d=False)[0] == pytest.approx(10 * (1 + math.sqrt(0.5)) / 4, abs=1e-12)
    clipped = 10 * (0.5 + math.sqrt(0.5)) / 4 * math.exp(-1 / 72)
    assert cider(*given)[0] == pytest.approx(clipped, abs=1e-12)


def test_given_frequencies_by_hand():
    frequencies = DocumentFrequencies(100, {"a": 50, "cat": 10, "dog": 20, "a dog": 4})
    for word, other in (("cat", 10), ("zebra", 1)):
        score = cider([["a", "dog"]], [[["a", word]]], frequencies=frequencies)[0]
        norms = math.hypot(L(2), L(5)) * math.hypot(L(2), L(100 / other))
        assert score == pytest.approx(10 / 4 * L(2) ** 2 / norms, abs=1e-12)
    score = cider([["a", "dog", "cat"]], [[["a", "dog", "cat"]]], frequencies=frequencies)[0]
    assert score == pytest.approx(10 * 3 / 4, abs=1e-12)
    # "a" is in none of the references, but half of the corpus has it.
    score = cider([["dog", "a", "dog"]], [[["cat", "dog"]]], frequencies=frequencies, d=False)[0]
    norms = math.hypot(2 * L(5), L(2)) * math.hypot(L(10), L(5))
    assert score == pytest.approx(10 / 4 * 2 * L(5) ** 2 / norms, abs=1e-12)


@hunt
@given(pairs, st.booleans())
def test_frequencies_of_the_references_change_nothing(given: list[Pair], d: bool):
    candidates, references = split(given)
    frequencies = DocumentFrequencies.of(references)
    expected = cider(candidates, references, d=d)
    ours = cider(candidates, references, frequencies=frequencies, d=d)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=ROUNDING)


@hunt
@given(pairs, st.lists(st.tuples(st.integers(0, 1), captions), max_size=8), st.booleans())
def test_a_row_of_the_scorer_does_not_depend_on_the_others(
    given: list[Pair], asked: list[tuple[int, Caption]], d: bool
):
    references = {f"video{number}": texts for number, (_, texts) in enumerate(given)}
    frequencies = DocumentFrequencies(50, {"a": 20, "a b": 7, "b": 19, "dog": 3})
    scorer = Scorer(references, frequencies, d=d)
    ids = [f"video{number}" for number, _ in asked]
    scores = scorer.score(ids, [caption for _, caption in asked])
    alone = [
        cider([caption], [references[id]], frequencies=frequencies, d=d)[0]
        for id, (_, caption) in zip(ids, asked, strict=True)
    ]
    np.testing.assert_allclose(scores, alone, rtol=0, atol=ROUNDING)


@hunt
@given(pairs)
def test_document_frequencies_count_images(given: list[Pair]):
    _, references = split(given)
    held = Counter(
        " ".join(gram)
        for texts in references
        for gram in {gram for text in texts for each in vectors(text, {}, 1.0) for gram in each}
    )
    frequencies = DocumentFrequencies.of(references)
    assert frequencies.documents == len(references)
    assert frequencies.counts == {gram: images for gram, images in held.items() if images > 1}


@pytest.mark.parametrize("name", ["df.json", "df.json.gz"])
def test_frequencies_are_saved_and_loaded(tmp_path: Path, name: str):
    frequencies = DocumentFrequencies.of([[["a", "caf\u00e9"]], [["a", "caf\u00e9"], ["b"]], [["b", "1/2"]]])
    frequencies.save(tmp_path / name)
    first = (tmp_path / name).read_bytes()
    assert DocumentFrequencies.load(tmp_path / name) == frequencies
    frequencies.save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == first
    assert (first[:2] == b"\x1f\x8b") == name.endswith(".gz")


@pytest.mark.parametrize(
    "content",
    [b"", b"[1]", b"{}", b"\x80\x03}q\x00", b"\x1f\x8bno", b'{"format": "limner document frequencies 1"}'],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "df.json").write_bytes(content)
    with pytest.raises(UserError, match=r"df\.json is no file of document frequencies; `limner data df`"):
        DocumentFrequencies.load(tmp_path / "df.json")


@pytest.mark.parametrize("images", ["0", "4", '"2"', "1.5"])
def test_impossible_counts_are_refused(tmp_path: Path, images: str):
    text = f'{{"format": "limner document frequencies 1", "documents": 3, "counts": {{"a b": {images}}}}}'
    (tmp_path / "df.json").write_text(text)
    with pytest.raises(UserError, match=r"'a b' cannot occur in .* of 3 images"):
        DocumentFrequencies.load(tmp_path / "df.json")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"none\.json cannot be read: No such file"):
        DocumentFrequencies.load(tmp_path / "none.json")


def test_one_image_is_refused_without_frequencies():
    one = ([["a", "dog"]], [[["a", "dog"]]])
    assert peer(Cider(), *one)[1].tolist() == [0.0]  # the trap
    with pytest.raises(UserError, match="every score is 0"):
        cider(*one)
    with pytest.raises(UserError, match="every score is 0"):
        cider(*one, frequencies=DocumentFrequencies(1, {}))
    assert cider(*one, frequencies=DocumentFrequencies(9, {}))[0] == pytest.approx(5.0)


def test_an_empty_caption_scores_nothing_or_is_refused():
    candidates, references = [[], ["a", "b"]], [[["a"]], [["a", "b"], []]]
    scores = cider(candidates, references)
    assert scores[0] == 0
    assert scores[1] == pytest.approx(cider(candidates, [[["a"]], [["a", "b"]]])[1] / 2)
    with pytest.raises(UserError, match="no words in candidate 0"):
        cider(candidates, references, empty="refuse")


def test_what_the_scorer_refuses():
    with pytest.raises(UserError, match="at least one image"):
        Scorer({})
    with pytest.raises(UserError, match="no references: image v2;"):
        Scorer({"v1": [["a"]], "v2": []})
    scorer = Scorer({"v1": [["a"]], "v2": [["b"]]})
    with pytest.raises(UserError, match=r"no references are known for 'v3' \(1 such ids\)"):
        scorer.score(["v1", "v3"], [["a"], ["a"]])
    with pytest.raises(UserError, match="2 ids and 1 candidates"):
        scorer.score(["v1", "v2"], [["a"]])
    with pytest.raises(UserError, match="candidate 0 is a text"):
        scorer.score(["v1"], ["a"])
    assert scorer.score([], []).shape == (0,)
