"""Prism's second stage: a language model that sees the caption alone answers; kept in answers.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limner.answering.base import Asker
from limner.data.rows import GrowingRows
from limner.errors import UserError
from limner.prism.captions import Captions, Told
from limner.prism.items import Item
from limner.prism.writers import digest

MAX_NEW_TOKENS = 2048
TEMPERATURE = 1.0
"""The published sampling of answers."""
NO_CAPTION = "no caption"
"""Why a question without a caption has no answer."""


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How questions are answered."""

    name: str = ""
    """The answerer, as it was named."""
    checkpoint: str = ""
    """What tells its weights from others of the same name."""
    template: str | None = None
    """Text with {caption} and {question}; the published sentence if None."""
    max_new_tokens: int = MAX_NEW_TOKENS
    """The longest answer."""
    temperature: float = TEMPERATURE
    """0 is greedy."""
    seed: int = 0
    """Of the sampling; every caption's answer is drawn with another one."""
    batch: int = 64
    """Questions that are asked before their answers are written down."""

    def __post_init__(self) -> None:
        """Refuse a template in which nothing is asked; one without the caption asks blind, to compare with.

        Raises:
            UserError: it has no {question}.
        """
        if self.template is not None and "{question}" not in self.template:
            raise UserError(f"--template: must hold {{question}}, and {{caption}}: {self.template!r}")


@dataclass(frozen=True)
class Answer:
    """What was answered to one question from one caption."""

    reply: str | None
    """What the answerer wrote; None where it wrote nothing."""
    error: str = ""
    """Why it wrote nothing; empty where it did."""


@dataclass(frozen=True)
class _Task:
    key: str
    item: Item
    draw: int
    caption: str


class AnswerFile:
    """answers.jsonl: replies by what was asked of whom."""

    def __init__(self, path: Path, asker: Asker, answering: Answering):
        """Take up what an earlier job left; what failed then is asked again.

        Raises:
            UserError: the file holds something else.
        """
        self.asker, self.answering = asker, answering
        self._rows = GrowingRows(path, ("key", "item"))
        self.known: dict[str, str] = {}
        """Replies by key."""
        for row in self._rows.existing:
            if isinstance(row.get("reply"), str):
                self.known[str(row["key"])] = str(row["reply"])

    def ask(self, items: Sequence[Item], captions: Captions, *, done: Told) -> Mapping[str, list[Answer]]:
        """The answers to every question, n each, in the order of its captions.

        Args:
            items: the questions.
            captions: of their images.
            done: is told how many answers there are more.
        """
        answers = {item.id: [Answer(None, NO_CAPTION)] * captions.count for item in items}
        tasks = [
            _Task(self._key(item, draw, text), item, draw, text)
            for draw in range(captions.count)
            for item in items
            if (text := captions.of(item)[draw]) is not None
        ]
        todo = [task for task in tasks if task.key not in self.known]
        done(len(tasks) - len(todo))
        errors: dict[str, str] = {}
        for group in self._groups(todo):
            errors |= self._ask(group)
            done(len(group))
        for task in tasks:
            reply = self.known.get(task.key)
            answers[task.item.id][task.draw] = Answer(reply, "" if reply is not None else errors[task.key])
        return answers

    def _groups(self, tasks: Sequence[_Task]) -> list[list[_Task]]:
        """Batches of one draw each: equal prompts in one request would be answered once."""
        groups: list[list[_Task]] = []
        for task in tasks:
            if not groups or groups[-1][0].draw != task.draw or len(groups[-1]) == self.answering.batch:
                groups.append([])
            groups[-1].append(task)
        return groups

    def _ask(self, group: Sequence[_Task]) -> dict[str, str]:
        """Ask, write down, and give the reasons of those that were not answered, by key."""
        replies = self.asker.ask(
            [task.item.conversation(task.caption, self.answering.template) for task in group],
            max_new_tokens=self.answering.max_new_tokens,
            temperature=self.answering.temperature,
            seed=self.answering.seed + group[0].draw,
        )
        rows: list[dict[str, object]] = []
        errors: dict[str, str] = {}
        for task, reply in zip(group, replies, strict=True):
            row: dict[str, object] = {"key": task.key, "item": task.item.id, "caption": task.draw}
            rows.append(row | {"reply": reply.text} | ({"error": reply.error} if reply.text is None else {}))
            if reply.text is None:
                errors[task.key] = reply.error or "no answer"
            else:
                self.known[task.key] = reply.text
        self._rows.append(rows)
        return errors

    def _key(self, item: Item, draw: int, caption: str) -> str:
        how = self.answering
        asked = [dict(message) for message in item.conversation(caption, how.template)]
        return digest(
            [how.name, how.checkpoint, how.max_new_tokens, how.temperature, how.seed, draw, item.id, asked]
        )
