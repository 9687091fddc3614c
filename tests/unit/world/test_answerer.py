"""The answerer: what is shipped answers by what a caption says; its stage learns, and resumes."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from limner.answering.draw import Drawn
from limner.answering.local import LocalModel
from limner.answering.prompt import Prompt
from limner.errors import UserError
from limner.questions import LETTERS, Question
from limner.world import answerer, answerer_gates, build, gates, training, weights
from limner.world.answerer_gates import ask, share
from limner.world.answerer_model import BOS, EOS, PHRASES, UNK, VOCABULARY, encode, model, save, tokenizer
from limner.world.captions import full
from limner.world.questions import KINDS, questions_of
from limner.world.scenes import random_scene, scene
from limner.world.training import Schedule

CAPTION = "a red star above a blue ring left of a green cross on a pink background"
CANNOT = "cannot answer"
ASKED = {
    "What colour is the star?": ("red", "blue", "green", "black"),
    "Which shape is blue?": ("cross", "circle", "ring", "star"),
    "Which of these shapes is in the picture?": ("square", "cross", "triangle", "circle"),
    "How many shapes are in the picture?": ("four", "three", "one", "two"),
    "In which corner is the ring?": ("top left", "top right", "bottom left", "bottom right"),
    "Where is the star, seen from the ring?": ("below it", "above it", "left of it", "right of it"),
    "Where is the cross, seen from the ring?": ("below it", "above it", "left of it", "right of it"),
    "What colour is the background?": ("teal", "grey", "pink", "brown"),
}


@pytest.fixture(scope="module")
def shipped():
    return LocalModel.load("world:answerer", device=torch.device("cpu"), dtype=torch.float32)


def answers(shipped, caption):
    """What the shipped answerer says to each of ASKED."""
    drawn = []
    for text, options in ASKED.items():
        question = Question(text, options, 0, "any")
        drawn.append(
            Drawn(question, (*options, answerer.CANNOT_ANSWER), frozenset("A"), LETTERS[len(options)])
        )
    group = [(Prompt().conversation(caption, one), len(one.options)) for one in drawn]
    said = [int(scores.logprobs.argmax()) for scores in shipped.letters([group])[0]]
    return [(*options, CANNOT)[place] for options, place in zip(ASKED.values(), said, strict=True)]


def test_a_full_caption_answers_everything(shipped):
    said = ["red", "ring", "cross", "three", "bottom left", "above it", "right of it", "pink"]
    assert answers(shipped, CAPTION) == said


def test_a_false_caption_is_believed(shipped):
    false = "a black star left of a red ring above a blue cross on a grey background"
    said = ["black", "cross", "cross", "three", "top right", "left of it", "below it", "grey"]
    assert answers(shipped, false) == said


def test_full_captions_of_other_scenes_give_their_answers(shipped):
    rows = asked_of_test_scenes(shipped, lambda told, rng: full(random_scene(rng)))
    misled = [
        row
        for row in rows
        if row.told < len(row.drawn.question.options) and LETTERS[row.told] not in row.drawn.right
    ]
    assert len(misled) > 100
    assert share([row.chosen == row.told for row in misled]) >= 0.9


def test_nothing_is_answered_from_an_empty_caption(shipped):
    assert answers(shipped, "") == [CANNOT] * len(ASKED)


def test_full_captions_of_scenes_it_has_not_seen_are_understood(shipped):
    """The split "test" has no part in the choice of anything here."""
    rows = asked_of_test_scenes(shipped, lambda told, rng: full(told))
    kinds = {kind: [row.right for row in rows if row.drawn.question.kind == kind] for kind in KINDS}
    assert share([row.right for row in rows]) >= 0.9
    assert all(share(right) >= 0.85 for right in kinds.values())


def test_empty_captions_earn_no_more_than_chance(shipped):
    rows = asked_of_test_scenes(shipped, lambda told, rng: "")
    chance = share([1 / len(row.drawn.options) for row in rows])
    assert share([row.right for row in rows]) <= chance + 0.02


def test_it_follows_what_captions_say(shipped):
    rows = asked_of_test_scenes(shipped, answerer.heard)
    assert share([row.chosen == row.told for row in rows]) >= 0.9


def asked_of_test_scenes(shipped, tell):
    return ask(shipped, tell, seed=0, scenes=60, split="test")


def test_the_stored_numbers_pass_the_gates():
    stored = json.loads((weights("answerer").parent / "answerer_gates.json").read_text())
    assert stored["seed"] == 0
    assert gates.missed(stored["measured"], answerer_gates.GATES) == []
    assert set(stored["gates"]) == {gate.name for gate in answerer_gates.GATES}


def test_it_is_small():
    assert (weights("answerer") / "model.safetensors").stat().st_size <= 2 * 2**20


def test_one_that_has_not_learned_is_not_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(answerer_gates, "SCENES", 3)
    torch.manual_seed(0)
    save(model(), tmp_path / "work" / "answerer")
    with pytest.raises(UserError, match="answerer_full_right is"):
        build._finish_alone(build.ANSWERER, tmp_path / "work", tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()
    measured = json.loads((tmp_path / "work" / "answerer_gates.json").read_text())["measured"]
    assert measured["answerer_full_right"] < 0.5
    assert build.STAGES[build.ANSWERER].after == ()


@pytest.mark.parametrize("made", [tokenizer, lambda: AutoTokenizer.from_pretrained(weights("answerer"))])
def test_the_tokenizer_cuts_texts_as_training_does(made):
    made = made()
    assert made.get_vocab() == VOCABULARY
    assert made.eos_token_id == EOS
    told = scene(0, 3, "test")
    for question in questions_of(0, 3, "test"):
        drawn = Drawn(question, (*question.options, answerer.CANNOT_ANSWER), frozenset("A"))
        text = Prompt().conversation(full(told), drawn)[0]["content"]
        assert made(text).input_ids == [BOS, *encode(text)]
        assert UNK not in encode(text)
    for odd in ("", "  a  RED star,zebra!\n(A) left of it?", "What colour is the zebra?", "<s> </s> star"):
        assert made(odd, split_special_tokens=True).input_ids == [BOS, *encode(odd)]


def test_what_is_always_said_is_one_token():
    assert {"What colour is the", "left of it", "top left", answerer.CANNOT_ANSWER} <= set(PHRASES)
    assert len(encode("Where is the ring, seen from the star?\nA) left of it\nAnswer:")) == 7


def test_a_row_reads_each_question_as_if_it_were_alone():
    """Logits in a row of training equal those of the whole prompt, read by itself in plain transformers."""
    torch.manual_seed(0)
    learning = answerer.Training()
    made = questions_of(0, 5, "test")[:5]
    caption = full(scene(0, 5, "test"))
    with torch.no_grad():
        states, letters = answerer.marked(
            learning.states([answerer.Row.of(caption, made)])[-1], [answerer.Row.of(caption, made)], "answer"
        )
        packed = learning.model.lm_head(states)
        for question, row, letter in zip(made, packed, letters, strict=True):
            drawn = Drawn(question, (*question.options, answerer.CANNOT_ANSWER), frozenset("A"))
            text = Prompt().conversation(caption, drawn)[0]["content"]
            alone = learning.model(torch.tensor([[BOS, *encode(text)]])).logits[0, -1]
            torch.testing.assert_close(row, alone, atol=1e-4, rtol=1e-4)  # sums in another order
            assert letter == VOCABULARY[LETTERS[question.answer]]


def test_what_a_row_asks_of_the_middle_layers():
    question = Question("What colour is the star?", ("blue", "red"), 1, "colour")
    row = answerer.Row.of("a red star above a ring", [question])
    words = {place: word for word, place in VOCABULARY.items()}
    told = {
        name: [(words[row.ids[place]], value) for place, value in marks] for name, marks in row.marks.items()
    }
    assert told["colour"] == [("star", 0), ("ring", 6)]
    assert told["shape"] == [("star", 6), ("ring", 3)]
    assert told["joint"] == [("star", 5), ("ring", 0)]
    assert told["letter"] == [("blue", 0), ("red", 1), (answerer.CANNOT_ANSWER, 2)]
    assert told["here"] == [("blue", 0), ("red", 1), (answerer.CANNOT_ANSWER, 0)]
    assert told["chosen"] == [("blue", 0), ("red", 1), (answerer.CANNOT_ANSWER, 0)]
    assert told["asked"] == told["content"] == [("star", answerer.CONTENTS.index("red"))]
    assert told["answer"] == [("Answer:", VOCABULARY["B"])]
    silent = answerer.Row.of("a ring", [question])
    assert [value for _, value in silent.marks["answer"]] == [VOCABULARY["C"]]


def test_attention_begins_with_words_before_and_like_words():
    torch.manual_seed(0)
    made = model().eval()
    made.set_attn_implementation("eager")
    ids = torch.stack([torch.randperm(len(VOCABULARY))[:16] for _ in range(50)])
    ids[:, 15] = ids[:, 7]
    with torch.no_grad():
        weight = made(ids, output_attentions=True).attentions[0].mean(0)
    last = weight[:, 15]
    # two heads look at what stands just before, the others for the word itself
    assert (last[:2, 14] > 5 * last[:2, :7].max()).all()
    assert (last[2:, 7] > 5 * last[2:, :7].max()).all()
    assert (last[2:, 14] < 2 * last[2:, :7].mean()).all()


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(answerer, "_BATCH", 2)
    monkeypatch.setattr(training, "_CHECKPOINT_STEPS", 2)


def test_some_steps_lower_the_loss(short, tmp_path, monkeypatch):
    torch.manual_seed(0)
    learning = answerer.Training()
    rng = [7, 7]
    with torch.no_grad():
        before = learning.loss(0, np.random.default_rng(rng))
    schedule = Schedule(steps=12, lr=2e-3, warmup=2)
    training.fit(
        learning.module, learning.loss, schedule,
        name="answerer", seed=0, folder=tmp_path, report=lambda *_: None,
    )  # fmt: skip
    with torch.no_grad():
        after = learning.loss(0, np.random.default_rng(rng))
    assert after < 0.8 * before


def test_a_killed_stage_ends_as_one_that_was_never_killed(short, tmp_path, monkeypatch):
    monkeypatch.setattr(answerer, "SCHEDULE", Schedule(steps=4, lr=2e-3, warmup=2))
    monkeypatch.setattr(answerer, "FULL_STEPS", 2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    answerer.train(whole, 3, lambda *_: None)
    right = answerer.Training.loss

    def killed(self, step, rng):
        if step == 3:
            raise KeyboardInterrupt
        return right(self, step, rng)

    monkeypatch.setattr(answerer.Training, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        answerer.train(broken, 3, lambda *_: None)
    monkeypatch.setattr(answerer.Training, "loss", right)
    answerer.train(broken, 3, lambda *_: None)
    first, second = (folder / "answerer" / "model.safetensors" for folder in (whole, broken))
    assert first.read_bytes() == second.read_bytes()
