"""Rules, candidates, rewards that choose among them, mergers, and the page of a dry run."""

import pytest
import torch
from PIL import Image

import bulk_jobs
import tiny
from limner import captioners
from limner.bulk import inputs
from limner.bulk.choose import Chooser, Draft, Rules, repeats
from limner.bulk.judge import rewards_of
from limner.bulk.page import dry_run
from limner.caption import Choice, caption
from limner.data.world import Source as World
from limner.decoding import Decoding
from limner.errors import Reject, UserError
from limner.types import Sample
from limner.vision_language import load_itm
from server import ChatServer

DRAWN = Decoding(top_k=10, max_new_tokens=8)


@pytest.mark.parametrize(
    ("rules", "text", "why"),
    [
        ({"include": ("red car",)}, "A Red car.", ""),
        ({"include": ("red car",)}, "a red sports car", "'red car' is not in it"),
        ({"include": ("car",)}, "a carpet", "'car' is not in it"),
        ({"forbid": ("an image of",)}, "An image  of a dog", "'an image of' is in it"),
        ({"forbid": ("close-up",)}, "a close up", ""),
        ({"min_words": 3}, "a dog, !", "2 words, fewer than 3"),
        ({"max_words": 2}, "a dog's day", "3 words, more than 2"),
        ({"max_repeats": 2}, "very very big", ""),
        ({"max_repeats": 2}, "a dog and a dog and a dog and", "the same words 3 times in a row"),
        ({"max_repeats": 1}, "", ""),
    ],
)
def test_rules(rules, text, why):
    assert Rules(**rules).broken_by(text) == why


def test_repeats():
    assert [repeats(text.split()) for text in ("", "a", "a b a b a", "a a a", "a b c d")] == [0, 1, 2, 3, 1]
    for wrong in ({"min_words": 5, "max_words": 4}, {"include": ("  ",)}, {"forbid": ("",)}):
        with pytest.raises(UserError):
            Rules(**wrong)


class Scripted:
    """Gives what was written down, one list a call; what it was asked is kept."""

    shaped = mixes = False

    def __init__(self, *rounds):
        self.rounds, self.asked = list(rounds), []

    def tokens(self):
        return 0, 0

    def drafts(self, samples, prompt, *, count, seed):
        self.asked.append(([sample.id for sample in samples], count, seed))
        made = self.rounds.pop(0)
        return [made[sample.id] for sample in samples]


def test_what_keeps_no_rule_is_drawn_again_and_rejected_in_the_end():
    good, bad, worse = Draft("a dog runs", 0.1), Draft("dog", 9.0), Draft("cat", 8.0)
    first = {"a": [bad, good], "b": [bad, worse], "c": [bad, bad], "d": Reject("no caption: garbage")}
    second = {"b": [good, Draft("a dog sleeps", 0.2)], "c": [worse, bad]}
    scripted = Scripted(first, second, {"c": [bad, bad]})
    chooser = Chooser(scripted, 2, Rules(include=("dog",), min_words=2))
    results = chooser.write([Sample(id, ()) for id in "abcd"], None)
    assert results[0].caption == "a dog runs"
    assert results[0].more == {"candidates": ["dog", "a dog runs"], "score": 0.1}
    assert results[1].caption == "a dog sleeps"
    assert results[2].reason == "no caption keeps the rules: 1 words, fewer than 2: dog"
    assert results[3].reason == "no caption: garbage"
    assert [ids for ids, _, _ in scripted.asked] == [list("abcd"), ["b", "c"], ["c"]]
    assert len({seed for _, _, seed in scripted.asked}) == 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    return str(tiny.blip2(tmp_path_factory.mktemp("model") / "blip2"))


def test_the_best_of_several_by_a_reward(model, tmp_path):
    """The reward that `limner score` would give is the largest among the candidates."""
    out = tmp_path / "captions.jsonl"
    rewards = rewards_of(["length", "repeats weight=0.1"])
    choice = Choice(candidates=4, rewards=rewards)
    options = {"model": model, "decoding": DRAWN, "batch": 3, "device": "cpu", "choice": choice}
    assert caption(World(split="validation", count=5), out, **options).written == 5
    rows = bulk_jobs.rows(out)
    assert all(len(row["candidates"]) == 4 and row["caption"] in row["candidates"] for row in rows)
    from limner.rewards.base import plain
    from limner.score import Judge

    policy = captioners.load(model)
    judge = Judge.load(rewards, policy)
    for row in rows:
        values = judge(plain(row["candidates"])).totals
        assert row["score"] == pytest.approx(values.nan_to_num(-9).max().item(), abs=1e-5)
    first = out.read_bytes()
    out.unlink()
    caption(World(split="validation", count=5), out, **options)
    assert out.read_bytes() == first  # a killed job draws what it would have drawn


def test_rewards_that_cannot_be(model):
    with pytest.raises(UserError, match="needs references"):
        rewards_of(["cider"])
    with pytest.raises(UserError, match="did you mean"):
        rewards_of(["lenght"])
    assert rewards_of([]) == {}


def test_a_language_model_merges_the_candidates(model, tmp_path):
    merged = {"when": "Descriptions:", "steps": [{"answer": "a merged  caption"}]}
    out = tmp_path / "captions.jsonl"
    with ChatServer(tmp_path / "server", [merged]) as server:
        choice = Choice(candidates=3, merge=server.base_url, merge_name="m", rules=Rules(min_words=3))
        options = {"model": model, "decoding": DRAWN, "batch": 2, "device": "cpu", "choice": choice}
        assert caption(World(split="validation", count=2), out, **options).written == 2
        asked = [body["messages"][0]["content"] for body in server.requests()]
        rows = bulk_jobs.rows(out)
        assert {row["caption"] for row in rows} == {"a merged caption"}
        for row in rows:
            assert any(all(f"- {text}" in said for text in row["candidates"]) for said in asked)
        strict = Choice(candidates=3, merge=server.base_url, merge_name="m", rules=Rules(min_words=9))
        report = caption(World(split="test", count=1), tmp_path / "b.jsonl", **{**options, "choice": strict})
    assert (report.written, report.rejected) == (0, 1)


def test_best_of_several_at_an_endpoint_by_a_reward_without_a_captioner(tmp_path):
    bulk_jobs.photos(tmp_path / "photos", 2)
    long = {"when": "", "steps": [{"answer": "a dog"}] * 2 + [{"answer": "a dog on a lawn"}]}
    with ChatServer(tmp_path / "server", [long]) as server:
        choice = Choice(candidates=2, rewards=rewards_of(["itm path=world:itm"]))
        caption(
            inputs.source(str(tmp_path / "photos")), tmp_path / "c.jsonl", model=server.base_url,
            model_name="m", decoding=DRAWN, batch=8, choice=choice, device="cpu",
        )  # fmt: skip
        assert {body["temperature"] for body in server.requests()} == {1.0}
        assert len({body["seed"] for body in server.requests()}) == 2
    rows = bulk_jobs.rows(tmp_path / "c.jsonl")
    assert len(rows) == 2
    matcher = load_itm("world:itm")
    for row in rows:
        with Image.open(tmp_path / row["image"]) as photo:
            features = matcher.encode([photo.convert("RGB")])
        logits = matcher.match(features, row["candidates"])
        assert row["score"] == pytest.approx(logits.max().item(), rel=1e-5)
        assert row["caption"] == row["candidates"][int(logits.argmax())]


def test_a_dry_run_writes_a_page_and_nothing_else(model, tmp_path):
    bulk_jobs.photos(tmp_path / "photos", 20, broken=[2])
    source = inputs.source(str(tmp_path / "photos"))
    said = dry_run(
        source, tmp_path / "out" / "captions.jsonl", model=model, decoding=DRAWN, prompt=None,
        choice=Choice(rules=Rules(max_repeats=9)), device="cpu",
    )  # fmt: skip
    assert "8 of 20 samples" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["captions-dry-run.html"]
    page = (tmp_path / "out" / "captions-dry-run.html").read_text()
    assert page.count("data:image/png;base64,") == 7
    assert "rejected: " in page
