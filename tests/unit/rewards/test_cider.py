"""CIDEr as a reward against pycocoevalcap, and the mistakes of published code that it must not have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocoevalcap.cider.cider_scorer import CiderScorer, cook_refs, cook_test

from limner import config
from limner.captioners.base import Policy
from limner.data.jsonl import Source
from limner.errors import UserError
from limner.metrics.cider import DocumentFrequencies
from limner.rewards.base import plain
from limner.rewards.cider import Consensus, Reward
from limner.score import Judge
from limner.types import Rollouts, Sample

TRAINING = {
    "v0": ("a man plays the guitar", "someone plays a guitar on a stage", "a man is on a stage"),
    "v1": ("a dog runs over the grass", "a brown dog runs"),
    "v2": ("a woman cooks rice", "a woman is in a kitchen", "someone cooks"),
    "v3": ("two men play football", "men play on the grass", "a football match"),
    "v4": ("a cat sleeps on a chair",),
}
CANDIDATES = (
    "a man plays a guitar on the stage",
    "a dog",
    "a brown dog runs over the grass",
    "someone is on a chair",
)
POLICY: Policy = None  # type: ignore[assignment]  # the reward asks nothing of it


@pytest.fixture
def data(jsonl) -> Source:
    return jsonl(TRAINING)


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[Mapping[str, tuple[str, ...]]], Source]:
    """Writes a data source of samples with references."""

    def write(references: Mapping[str, tuple[str, ...]]) -> Source:
        Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
        rows = [
            {"id": id, "image": "picture.png", "captions": list(texts)} for id, texts in references.items()
        ]
        (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Source(path=str(tmp_path / "data.jsonl"))

    return write


def rolled(*ids: str, captions: tuple[str, ...] = CANDIDATES) -> Rollouts:
    """The candidates of each sample: all G for every id."""
    samples = [Sample(id, (), TRAINING.get(id, ())) for id in ids]
    return plain(captions * len(ids), samples=samples)


def published(candidate: str, references: tuple[str, ...], corpus=TRAINING) -> float:
    """CIDEr of one caption by pycocoevalcap, with the document frequencies of a corpus."""
    scorer = CiderScorer()
    for texts in corpus.values():
        scorer += (texts[0], list(texts))
    scorer.compute_doc_freq()
    scorer.ctest[0], scorer.crefs[0] = cook_test(candidate), cook_refs(references)
    return float(scorer.compute_cider()[0])


def test_equals_pycocoevalcap_with_document_frequencies_of_the_training_set(data: Source) -> None:
    values = Reward().load(POLICY, data)(rolled("v1", "v0")).values
    expected = [published(text, TRAINING[id]) for id in ("v1", "v0") for text in CANDIDATES]
    assert values.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-7)  # float32 in Part
    assert max(expected) > 1


def test_candidates_and_references_are_not_swapped(data: Source) -> None:
    """Repeated words tell: a candidate's n-gram counts as often as the reference has it, at most."""
    stuttered = "a man a man plays a man plays"
    value = float(Reward().load(POLICY, data)(rolled("v0", captions=(stuttered,))).values[0])
    swapped = np.mean([published(reference, (stuttered,)) for reference in TRAINING["v0"]])
    assert value == pytest.approx(published(stuttered, TRAINING["v0"]), rel=1e-6)
    assert abs(value - float(swapped)) > 0.05


def test_every_reference_counts(data: Source) -> None:
    reward = Reward().load(POLICY, data)
    whole = float(reward(rolled("v0")).values[0])
    each = [published(CANDIDATES[0], (reference,)) for reference in TRAINING["v0"]]
    assert whole == pytest.approx(np.mean(each), rel=1e-6)
    assert abs(whole - each[0]) > 0.05, "the first reference alone would be told apart"


def test_rare_words_are_rare_in_the_training_set_not_in_the_batch(data: Source) -> None:
    """Of two samples every word that both have weighs nothing, and a word of one weighs log 2."""
    values = Reward().load(POLICY, data)(rolled("v0", "v1")).values
    pair = {id: TRAINING[id] for id in ("v0", "v1")}
    of_the_batch = [published(text, TRAINING[id], pair) for id in pair for text in CANDIDATES]
    assert not np.allclose(values.numpy(), of_the_batch, atol=0.05)
    alone = torch.cat([Reward().load(POLICY, data)(rolled(id)).values for id in pair])
    torch.testing.assert_close(values, alone, rtol=0, atol=0)


def test_a_file_of_frequencies_gives_what_the_data_gives(data: Source, tmp_path: Path) -> None:
    tokens = [[text.split() for text in texts] for texts in TRAINING.values()]
    DocumentFrequencies.of(tokens).save(tmp_path / "df.json.gz")
    reward = Reward(df=str(tmp_path / "df.json.gz"))
    counted = Reward().load(POLICY, data)(rolled("v0", "v3")).values
    for source in (data, None):
        torch.testing.assert_close(
            reward.load(POLICY, source)(rolled("v0", "v3")).values, counted, rtol=0, atol=0
        )


def test_without_references_unscored_without_words_zero(data: Source) -> None:
    reward = Reward().load(POLICY, data)
    values = reward(rolled("v0", "nothing", captions=("a man", "", " . "))).values
    assert values[:3].isfinite().all()
    assert values[1:3].tolist() == [0.0, 0.0]
    assert values[3:].isnan().all()
    assert reward(rolled("nothing")).values.isnan().all()


def test_capitals_and_punctuation_do_not_count(data: Source) -> None:
    reward = Reward().load(POLICY, data)
    values = reward(rolled("v1", captions=("A brown dog runs!", "a brown dog runs"))).values
    assert values[0] == values[1] > 1


def test_what_cannot_be_used_is_said(jsonl) -> None:
    with pytest.raises(UserError, match="name a file of `limner data df`"):
        Reward().load(POLICY, None)
    with pytest.raises(UserError, match="two samples with references; of its 2 samples 1 have some"):
        Reward().load(POLICY, jsonl({"a": ("one", "two"), "b": ()}))
    with pytest.raises(UserError, match="absent"):
        Reward(df="absent.json").load(POLICY, None)


def test_greedy_captions_are_scored_by_the_same_rewards(data: Source) -> None:
    judge = Judge.load({"cider": Reward(weight=2.0)}, POLICY, data=data)
    greedy = rolled("v0", "nothing", captions=("a man plays",))
    scores = judge(rolled("v0", "nothing").replace(greedy=greedy))
    assert scores.greedy is not None
    assert float(scores.greedy[0]) == pytest.approx(2 * published("a man plays", TRAINING["v0"]), rel=1e-6)
    assert scores.greedy[1].isnan()
    assert scores.scored.tolist() == [True] * 4 + [False] * 4
    assert judge(rolled("v0")).greedy is None


def test_no_java_is_started(data: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published code starts a JVM twice a step."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a process was started")

    for name in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.system"):
        monkeypatch.setattr(name, refuse)
    assert Reward().load(POLICY, data)(rolled("v0", "v1")).values.isfinite().all()


def test_vectors_of_references_are_made_once(data: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = Reward().load(POLICY, data)
    assert isinstance(reward, Consensus)
    monkeypatch.setattr("limner.rewards.cider.Scorer", None)
    assert reward(rolled(*TRAINING)).values.isfinite().all()


def test_a_recipe_says_cider() -> None:
    recipe = config.load("tiny/vlrm", ["rewards.cider.df=df.json", "rewards.cider.weight=0.5"])
    assert recipe.rewards["cider"] == Reward(df="df.json", weight=0.5)
    assert "references" in recipe.rewards["cider"].needs
