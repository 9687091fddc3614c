"""One question of a set: its images, how it is put to the answerer, and what is right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.answering.base import Conversation
from limner.errors import Reject
from limner.prism.answers import normalised
from limner.prism.scorers import Gold, check_parses
from limner.prism.sets import Kind
from limner.questions import LETTERS

INTRODUCTION = (
    "Here is a detailed caption of an image: {caption}. Please answer the question based on the caption."
)
"""The published sentence in front of a question."""
LETTER = "Answer with the letter of the right option."
"""Asked for behind a multiple-choice question whose file says nothing of the answer's form."""
BOXED = "Put the final answer into \\boxed{}."
"""The same for a question without options."""

IMAGE_MARK = re.compile(
    r"(?:<\|vision_start\|>)?<\|image_pad\|>(?:<\|vision_end\|>)?|<image(?:[ _]\d+)?>", re.I
)
"""Where an image stands in a prompt."""
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>|(?=<\|im_start\|>)|\Z)", re.DOTALL)
_OPTION = re.compile(r"^[ \t]*(?:[(\[]([A-Z])[)\]][.:]?|([A-Z])[.:)])[ \t]+(\S[^\n]*)", re.MULTILINE)
_PLACES = re.compile(r"\{(caption|question|instruction)\}")
_LETTER = re.compile(r"\s*[(\[]?([A-Za-z])[)\].:]*\s*")


@dataclass(frozen=True)
class Item:
    """One question."""

    id: str
    """Row of its file, "SET/ROW": stable while the file is."""
    images: tuple[Path, ...]
    """Its images, one or more."""
    turns: tuple[tuple[str, str], ...]
    """(role, text) of what is asked, without the caption. White space in front of the first text of the user
    is what stands between the published sentence and the question."""
    gold: Gold
    """What is right."""
    scorer: str
    """Name in `SCORERS`."""
    answer: object
    """The answer as it stands in the file, for the published scorer."""
    instruction: str = ""
    """In which form to answer; empty where the question says it."""

    @property
    def question(self) -> str:
        """What is asked, for people."""
        return "\n".join(text for role, text in self.turns if role == "user").strip()

    def conversation(self, caption: str, template: str | None = None) -> Conversation:
        """The question behind a caption of its image; the first turn of the user holds both.

        Args:
            caption: of the image, or "Image 1: ..." for several.
            template: text with {caption} and {question}, and perhaps {instruction}; as published if None.
        """
        messages: list[Mapping[str, Any]] = []
        told = False
        for role, text in self.turns:
            if role == "user" and not told:
                text, told = self._behind(caption, text, template), True
            messages.append({"role": role, "content": text})
        return messages

    def _behind(self, caption: str, text: str, template: str | None) -> str:
        if template is None:
            template = INTRODUCTION + "{question}" + ("\n{instruction}" if self.instruction else "")
        else:
            text = text.strip()
        parts = {"caption": caption, "question": text, "instruction": self.instruction}
        return _PLACES.sub(lambda match: parts[match[1]], template)


def turns_of(prompt: str) -> tuple[tuple[str, str], ...]:
    """(role, text) of a prompt: plain text, or Qwen's chat markup as the published files have it.

    Image marks are taken out: where the image stood, the caption stands now, in front of the question.

    Raises:
        Reject: nothing is asked.
    """
    if "<|im_start|>" in prompt:
        found = _TURN.findall(prompt)
    else:
        found = [("user", "\n" + IMAGE_MARK.sub("", prompt).strip())]
    turns = [(role, IMAGE_MARK.sub("", text).rstrip()) for role, text in found if role in ("system", "user")]
    if not any(role == "user" and text.strip() for role, text in turns):
        raise Reject("no question in `prompt`")
    return tuple((role, text) for role, text in turns if text.strip())


def options_in(prompt: str) -> tuple[str, ...]:
    """The options that a prompt shows a line each, "A. red" or "(A) red", from A on; else none."""
    found: list[str] = []
    for bracketed, bare, text in _OPTION.findall(prompt):
        letter = bracketed or bare
        if letter == "A":
            found = [text.strip()]  # the last list that begins with A: an example may stand before it
        elif found and len(found) < len(LETTERS) and letter == LETTERS[len(found)]:
            found.append(text.strip())
    return tuple(found)


def gold_of(answer: object, options: Sequence[str], kind: Kind) -> tuple[Gold, str]:
    """What is right, and the scorer that it takes.

    Args:
        answer: as the file has it: text, a number, or a list of accepted ones.
        options: texts of the options; empty where the question has none.
        kind: of the set.

    Raises:
        Reject: there is no answer, it is no option, there are fewer than two options, or it cannot be read.
    """
    answers = _texts(answer)
    letter = _LETTER.fullmatch(answers[0]) if len(answers) == 1 else None
    if not options and kind.scorer == "choice":
        options = ("",) * kind.letters
    if kind.scorer == "choice" or (options and kind.scorer == "math"):
        if len(options) < 2:
            raise Reject(f"{len(options)} options; a multiple-choice question needs two or more")
        return Gold((_right_letter(answers[0], letter, options),), tuple(options)), "choice"
    if kind.scorer in ("math", "relaxed"):
        for text in answers:
            check_parses(text)
    return Gold(answers, tuple(options)), kind.scorer


def _right_letter(answer: str, letter: re.Match[str] | None, options: Sequence[str]) -> str:
    if letter is not None:
        name = letter[1].upper()
        if name in LETTERS[: len(options)]:
            return name
    same = [k for k, option in enumerate(options) if option and normalised(option) == normalised(answer)]
    if same:
        return LETTERS[same[0]]
    raise Reject(f"the right answer {answer!r} is none of the {len(options)} options")


def _texts(answer: object) -> tuple[str, ...]:
    """Accepted answers as text."""
    given = answer if isinstance(answer, list | tuple) else [answer]
    if not given or not all(isinstance(one, str | int | float) for one in given):
        raise Reject("no answer" if answer in (None, [], ()) else f"an answer must be text: {answer!r}")
    texts = [str(one).strip() for one in given]
    if not all(texts):
        raise Reject("no answer: `answer` is empty")
    return tuple(texts)
