"""Stage "answerer": a small language model that answers multiple-choice questions from a caption alone.

It learns to answer by what the caption says (`limner.world.questions.answer`), true or false, and to choose
"can not answer" where the caption says nothing of it: it sees no picture and no scene. First it reads full
captions, then captions of every density, with wrong words, with things that are not there, in disorder, and
none at all. The questions of one caption go through side by side behind it, each seeing the caption and
itself only, in the default prompt of the reward `qa_accuracy`.

Answering takes steps: find what is asked for, find the option that says it, say its letter. Auxiliary heads,
thrown away, ask the middle layers for them. At last it learns to end behind the letter.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaForCausalLM

from limner.answering.draw import CANNOT_ANSWER
from limner.answering.prompt import OPTION, PROMPT
from limner.questions import LETTERS, Question
from limner.world import captions
from limner.world.answerer_model import (
    BOS,
    CONTENTS,
    EOS,
    PAD,
    PIECES,
    VOCABULARY,
    WIDTH,
    encode,
    model,
    save,
)
from limner.world.questions import answer, questions, read
from limner.world.scenes import COLOURS, SHAPES, Scene, random_scene
from limner.world.training import Report, Schedule, cross_entropy, fit
from limner.world.truth import RELATIONS

SCHEDULE = Schedule(steps=1200, lr=2e-3)
FULL_STEPS = 450
"""So many steps first on captions that say nearly everything."""
_BATCH, _ASKED = 16, 6
"""Captions a step, and questions a caption."""
_ENDED = 40
"""Captions from which the end is learned."""
_JOINTS = (*RELATIONS, "and")
Teller = Callable[[Scene, np.random.Generator], str]


def heard(scene: Scene, rng: np.random.Generator) -> str:
    """A caption as a captioner in training may write it: of any density, often false, or nothing."""
    kind = rng.choice(9, p=(0.2, 0.3, 0.08, 0.08, 0.04, 0.1, 0.05, 0.1, 0.05))
    told = captions.varied(scene, rng)
    if kind == 0:
        return captions.full(scene, rng if rng.random() < 0.5 else None)
    if kind == 2:
        return captions.terse(scene, rng)
    if kind == 3:
        count = int(rng.integers(1, len(scene.things) + 1))
        return captions.partial(scene, count, background=bool(rng.random() < 0.5), rng=rng)
    if kind == 4:
        return ""
    if kind == 5:
        return captions.noisy(told, rng, 0.15)
    if kind == 6:
        return captions.invent(scene, told, rng)
    if kind == 7:
        return _disordered(told.split(), rng)
    return captions.varied(random_scene(rng, pairs="any"), rng) if kind == 8 else told


def _first_heard(scene: Scene, rng: np.random.Generator) -> str:
    """A caption of the first steps."""
    if rng.random() < 0.15:
        return captions.varied(scene, rng)
    return captions.full(scene, rng if rng.random() < 0.3 else None)


def _disordered(words: list[str], rng: np.random.Generator) -> str:
    """Words left out, said twice, put elsewhere, or drawn from all words of the world."""
    for _ in range(rng.integers(1, 4)):
        place, what = int(rng.integers(len(words) + 1)), rng.integers(4)
        if what == 0 and words:
            del words[min(place, len(words) - 1)]
        elif what == 1:
            words = [*words[:place], *words[max(0, place - 3) :]]
        elif what == 2 and words:
            words.insert(place, words.pop(int(rng.integers(len(words)))))
        elif what == 3:
            words.insert(place, captions.WORDS[rng.integers(len(captions.WORDS))])
    return " ".join(words[:24])


_NO_COLOUR, _NO_SHAPE, _NO_JOINT = len(COLOURS), len(SHAPES), len(_JOINTS)
_AUXILIARY = {
    "colour": (1, len(COLOURS) + 1),
    "letter": (1, 5),
    "shape": (2, len(SHAPES) + 1),
    "joint": (2, len(_JOINTS) + 1),
    "here": (2, 2),
    "asked": (3, 0),
    "content": (4, 0),
    "again": (5, 0),
    "chosen": (5, 2),
}
"""Auxiliary heads: the layer whose states they read, and their classes; 0 stands for the words of CONTENTS.

At a shape in the caption, its colour, the shape before it, and how it is joined to that one. At an option,
its letter, whether the caption has its word, and whether it is the right one. At the end of the question,
what the right option says: early where it takes one look, later where it takes two; and again behind the
options.
"""


@dataclass(frozen=True)
class Row:
    """A caption and its questions as one row of tokens."""

    ids: list[int]
    """What all questions share, then each question with its options, up to where the letter stands."""
    own: list[int]
    """Number of the question a token belongs to; 0 for the shared part."""
    places: list[int]
    """Position of each token in its own prompt."""
    marks: dict[str, list[tuple[int, int]]]
    """What is to be told at which place of the row, by name: (place, class). See `_AUXILIARY`."""

    @classmethod
    def of(cls, caption: str, asked: Sequence[Question]) -> "Row":
        """The default prompts of some questions about a caption."""
        before, between, behind = re.split(r"\{question\}|\{options\}", PROMPT.replace("{caption}", caption))
        shared = [BOS, *encode(before)]
        row = cls(shared.copy(), [0] * len(shared), list(range(len(shared))), {})
        row._mark_shapes(PIECES.findall(before))
        told, within = read(caption), set(shared)
        for number, question in enumerate(asked, 1):
            start, right = len(row.ids), answer(told, question)
            wanted = len(question.options) if right is None else right
            options = (*question.options, CANNOT_ANSWER)
            content = CONTENTS.index(options[wanted])
            row.ids.extend(encode(question.text))
            if question.kind in ("colour", "count", "background"):
                row.mark("asked", content)
            if question.kind != "existence":  # it cannot be known before the options are read
                row.mark("content", content)
            row.ids.extend(encode(between))
            for place, option in enumerate(options):
                row.ids.extend(encode(OPTION.format(letter=LETTERS[place], text=option)))
                row.mark("letter", place)
                row.mark("here", int(row.ids[-1] in within))
                row.mark("chosen", int(place == wanted))
            row.ids.extend(encode(behind))
            row.mark("again", content)
            row.mark("answer", VOCABULARY[LETTERS[wanted]])
            row.own.extend([number] * (len(row.ids) - start))
            row.places.extend(range(len(shared), len(shared) + len(row.ids) - start))
        return row

    def mark(self, name: str, value: int, place: int = -1) -> None:
        """Note what is to be told at a place; by default at the last."""
        self.marks.setdefault(name, []).append((place % len(self.ids), value))

    def _mark_shapes(self, words: Sequence[str]) -> None:
        """Note what is said of each shape in the caption."""
        shape, joint = _NO_SHAPE, _NO_JOINT
        for place, word in enumerate(words):
            if word in _JOINTS and shape != _NO_SHAPE:
                joint = _JOINTS.index(word)
            elif word in SHAPES:
                colour = words[place - 1] if place else ""
                said = list(COLOURS).index(colour) if colour in COLOURS else _NO_COLOUR
                self.mark("colour", said, place + 1)
                self.mark("shape", shape, place + 1)
                self.mark("joint", joint, place + 1)
                shape, joint = SHAPES.index(word), _NO_JOINT


class Training:
    """The answerer and its auxiliary heads."""

    def __init__(self) -> None:
        self.model = model()
        self.heads = nn.ModuleDict(
            {name: nn.Linear(WIDTH, classes) for name, (_, classes) in _AUXILIARY.items() if classes}
        )
        self.contents = torch.tensor([VOCABULARY[content] for content in CONTENTS])
        self.module = nn.ModuleList([self.model, self.heads])

    def loss(self, step: int, rng: np.random.Generator) -> torch.Tensor:
        """Cross-entropy of the letters, and of the auxiliary heads."""
        tell: Teller = _first_heard if step < FULL_STEPS else heard
        rows = []
        for _ in range(_BATCH):
            scene = random_scene(rng, pairs="any")
            rows.append(Row.of(tell(scene, rng), _some(questions(scene, rng), rng)))
        layers = self.states(rows)
        states, letters = marked(layers[-1], rows, "answer")
        loss = cross_entropy(self.model.lm_head(states), letters)
        for name, (layer, _) in _AUXILIARY.items():
            states, classes = marked(layers[layer], rows, name)
            if len(classes):
                loss = loss + 0.5 * cross_entropy(self.told(name, states), classes)
        return loss

    def told(self, name: str, states: torch.Tensor) -> torch.Tensor:
        """Logits of an auxiliary head; a word of CONTENTS is told as the model would say it."""
        if name in self.heads:
            return self.heads[name](states)
        return self.model.model.norm(states) @ self.model.lm_head.weight[self.contents].T

    def states(self, rows: Sequence[Row]) -> tuple[torch.Tensor, ...]:
        """Hidden states of every layer, each (rows, L, width); a question sees the caption and itself."""
        longest = max(len(row.ids) for row in rows)
        ids, own, places = (
            torch.tensor([[*values, *[fill] * (longest - len(values))] for values in columns])
            for columns, fill in (
                ([row.ids for row in rows], PAD),
                ([row.own for row in rows], -1),
                ([row.places for row in rows], 0),
            )
        )
        seen = (own[:, None, :] == 0) | (own[:, None, :] == own[:, :, None])
        mask = (seen & torch.ones(longest, longest, dtype=torch.bool).tril())[:, None]
        return self.model.model(
            input_ids=ids,
            position_ids=places,
            attention_mask=mask,
            use_cache=False,
            output_hidden_states=True,
        ).hidden_states


def _some(made: Sequence[Question], rng: np.random.Generator) -> list[Question]:
    """Questions of a scene, those of rare kinds more often than others."""
    kinds = [question.kind for question in made]
    weights = np.array([kinds.count(kind) ** -0.5 for kind in kinds])
    chosen = rng.choice(len(made), min(_ASKED, len(made)), replace=False, p=weights / weights.sum())
    return [made[place] for place in chosen]


def marked(states: torch.Tensor, rows: Sequence[Row], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """States at the marked places of all rows, (places, width), and the classes there."""
    flat = [(number, *mark) for number, row in enumerate(rows) for mark in row.marks.get(name, ())]
    where, places, classes = torch.tensor(flat, dtype=torch.long).view(-1, 3).unbind(1)
    return states[where, places], classes


def train(work: Path, seed: int, report: Report) -> None:
    """Train into work/answerer."""
    torch.manual_seed(1000 * seed + 10)
    training = Training()
    name = "answerer"
    fit(training.module, training.loss, SCHEDULE, name=name, seed=seed, folder=work, report=report)
    teach_end(training.model, np.random.default_rng([seed, 10, 1]))
    save(training.model, work / name)


@torch.no_grad()
def teach_end(trained: LlamaForCausalLM, rng: np.random.Generator) -> None:
    """Make the model end behind the letter, and not before it.

    Only the row of </s> is changed, which is never read, so letters keep their order. It is a logistic
    regression on the last states: 0 where the letter is to come, 1 behind it.
    """
    states = []
    for _ in range(_ENDED):
        scene = random_scene(rng, pairs="any")
        caption = heard(scene, rng)
        for question in _some(questions(scene, rng), rng):
            row = Row.of(caption, [question])
            ids = torch.tensor([[*row.ids, row.marks["answer"][0][1]]])
            states.append(trained.model(input_ids=ids).last_hidden_state[0, -2:])
    x, wanted = torch.cat(states), torch.tensor([0.0, 1.0]).repeat(len(states))
    others = trained.lm_head(x).index_fill(1, torch.tensor(EOS), -torch.inf).logsumexp(1)
    end = torch.zeros(WIDTH, requires_grad=True)
    optimiser = torch.optim.LBFGS([end], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        with torch.enable_grad():
            value = F.binary_cross_entropy_with_logits(x @ end - others, wanted) + 1e-4 * end.square().sum()
            value.backward()
        return value.detach()

    optimiser.step(loss)
    trained.lm_head.weight[EOS] = end
