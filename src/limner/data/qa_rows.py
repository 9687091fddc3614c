"""Rows of question files, CapRL-QA-75K's and limner's own; what is wrong is said question by question."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from limner.data.annotations import Wrong
from limner.errors import Reject
from limner.questions import LETTERS, Question

Json = Mapping[str, object]
REJECTED = "rejected_questions"
"""Where a sample names its questions that cannot be used: `extra["rejected_questions"]`, sentences."""

_LETTERED = re.compile("\\s*[(\\[]?([A-Za-z])\\s*[).:\\]\u3001\uff0e\uff1a\uff09]\\s*(.*)", re.DOTALL)
_LETTER = re.compile(r"\W*([A-Za-z])\W*")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_MAGIC = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"II*\0", b"MM\0*", b"BM")
"""How files of the formats begin that limner opens."""
_LONGEST_PATH = 4096


class Choices(NamedTuple):
    """Options without the letters in front of them."""

    texts: tuple[str, ...]
    """As they are read."""
    places: Mapping[str, int]
    """From a letter to the place of its option."""


@dataclass(frozen=True)
class QuestionRow:
    """One row of a question file."""

    image: bytes | Path
    """The image file's content, or where it is."""
    questions: tuple[Question, ...]
    """Those that can be asked."""
    wrong: tuple[str, ...] = ()
    """Why the others cannot be: "question 2: ...", numbered from 1 as they stand in the row."""
    captions: tuple[str, ...] = ()
    """Reference captions, where the row has them."""
    prompt: str = ""
    """What the captioner was asked, by the published row."""
    data_source: str = ""
    """Where the image comes from, by the published row."""


def read(row: Json, root: Path, *, image: str = "image") -> QuestionRow:
    """A row as it stands in a file.

    Args:
        row: `{image, questions: [Question.plain()]}`, or the published
            `{image, prompt, data_source, reward_model: {ground_truth: [{question, choices, answer}]}}`.
        root: folder that paths of images start from.
        image: the key of the image: a path, base64, or `{bytes, path}`.

    Raises:
        Reject: it has no image, or not one question that can be asked.
    """
    entries = _entries(row)
    questions: list[Question] = []
    wrong: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            questions.append(question(entry))
        except Reject as reject:
            wrong.append(f"question {number}: {' '.join(reject.reason.split())}")
    if not questions:
        raise Wrong("no questions", "; ".join(["not one usable question", *wrong]))
    return QuestionRow(
        _image(row.get(image), root, image), tuple(questions), tuple(wrong), _captions(row.get("captions")),
        _prompt(row.get("prompt")), str(row.get("data_source") or ""),
    )  # fmt: skip


def question(entry: object) -> Question:
    """A question: {question, options, answer: 2} as limner has it, or {question, choices, answer: "C"}.

    Raises:
        Reject: it cannot be asked, or has no right answer.
    """
    entry = _parsed(entry)
    if not isinstance(entry, Mapping):
        raise Reject(f"must be a mapping with a question, its options and the answer: {str(entry)[:60]!r}")
    if "choices" not in entry:
        return Question.of(entry)
    text, given = entry.get("question"), entry.get("choices")
    if not isinstance(text, str):
        raise Reject(f"a question must have text in `question`: {text!r}")
    if (
        not isinstance(given, Sequence)
        or isinstance(given, str)
        or not all(isinstance(c, str) for c in given)
    ):
        raise Reject(f"{text!r}: `choices` must be a list of texts")
    if len(given) < 2:
        raise Reject(f"{text!r}: {len(given)} options; at least two are needed")
    choices = unlettered([str(choice) for choice in given])
    place = right(entry.get("answer"), choices)
    return Question(text, choices.texts, place, str(entry.get("kind") or ""))


def plain(question: Question) -> dict[str, object]:
    """A question as CapRL-QA-75K has it: {question, choices: ["A) ..."], answer: "C"}."""
    choices = [f"{letter}) {option}" for letter, option in zip(LETTERS, question.options, strict=False)]
    return {"question": question.text, "choices": choices, "answer": LETTERS[question.answer]}


def unlettered(choices: Sequence[str]) -> Choices:
    """Options without "A)", "(b)", "C." in front, where these are letters of options and not their text.

    They are where every option has one and together they are the first letters of the alphabet, in any
    order, or where two options or more have the letter of their place.
    """
    found = [_LETTERED.fullmatch(choice) for choice in choices]
    letters = [match.group(1).upper() if match else "" for match in found]
    own = [letter == place for letter, place in zip(letters, LETTERS, strict=False)]
    if sorted(letters) == list(LETTERS[: len(choices)]):
        lettered = [True] * len(choices)
    elif sum(own) >= 2:
        lettered = own
    else:
        return Choices(
            tuple(choice.strip() for choice in choices), dict(zip(LETTERS, range(len(choices)), strict=False))
        )
    texts = [
        match.group(2).strip() if match and is_lettered else choice.strip()
        for choice, match, is_lettered in zip(choices, found, lettered, strict=True)
    ]
    names = [letters[n] if lettered[n] else LETTERS[n] for n in range(len(choices))]
    return Choices(tuple(texts), {letter: place for place, letter in enumerate(names)})


def right(answer: object, choices: Choices) -> int:
    """Place of the right option: by its letter, its letter and text, or its text.

    Raises:
        Reject: there is no answer, it is outside the options, or it says two things.
    """
    if not isinstance(answer, str) or not answer.strip():
        raise Reject("without a right answer" if not answer else f"the answer must be a letter: {answer!r}")
    texts = [same_text(option) for option in choices.texts]
    alone = _LETTER.fullmatch(answer)
    by_text = [place for place, text in enumerate(texts) if text == same_text(answer)]
    if alone:
        letter = alone.group(1).upper()
        if letter not in choices.places and not by_text:
            raise Reject(
                f"the answer {answer.strip()!r} is outside of the options A to {max(choices.places)}"
            )
        return choices.places[letter] if letter in choices.places else by_text[0]
    if by_text:
        return by_text[0]
    lettered = _LETTERED.fullmatch(answer)
    place = choices.places.get(lettered.group(1).upper()) if lettered else None
    if lettered is None or place is None:
        raise Reject(f"the answer {_short(answer)!r} is none of the options")
    said = same_text(lettered.group(2))
    if said in texts and texts[place] != said:
        raise Reject(f"the answer {_short(answer)!r} has the letter of one option and the text of another")
    return place


def same_text(text: str) -> str:
    """What two texts share that differ in nothing but case, blanks and the full stop at their end."""
    return " ".join(text.casefold().split()).rstrip(".。").strip() or text.strip()


def _short(text: str) -> str:
    return text.strip() if len(text.strip()) <= 60 else text.strip()[:60] + "..."


def _entries(row: Json) -> Sequence[object]:
    held = row.get("questions")
    if held is None:
        reward = _parsed(row.get("reward_model"))
        held = reward.get("ground_truth") if isinstance(reward, Mapping) else None
    held = _parsed(held)
    if isinstance(held, Mapping):
        held = [held]
    if held is None or not isinstance(held, Sequence) or isinstance(held, str | bytes):
        raise Wrong("shape", "no list of questions under `questions` or `reward_model.ground_truth`")
    return held


def _parsed(value: object) -> object:
    """JSON inside of JSON, as some files have it; anything else as it is."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _image(value: object, root: Path, key: str) -> bytes | Path:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        content = value.get("bytes")
        value = value.get("path") if content is None else content
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        raise Wrong("shape", f"no image under {key!r}")
    if value.startswith("data:"):
        value = value.partition(",")[2]
    elif "://" in value[:20]:
        raise Wrong("shape", f"{_short(value)} is an address on the network; only files are read")
    elif len(value) < _LONGEST_PATH and "\0" not in value and (root / value).is_file():
        return root / value
    return _decoded(value) or root / value[:_LONGEST_PATH]


def _decoded(text: str) -> bytes | None:
    """The file that a text is in base64; None where it is none."""
    if not _BASE64.fullmatch(text):
        return None
    try:
        content = base64.b64decode(text)
    except binascii.Error:
        return None
    return content if content.startswith(_MAGIC) else None


def _captions(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if value is None:
        return ()
    if isinstance(value, Sequence) and all(isinstance(caption, str) for caption in value):
        return tuple(map(str, value))
    raise Wrong("shape", "`captions` is neither a text nor a list of texts")


def _prompt(value: object) -> str:
    """What the user says in the published row's messages, without the place holder of the image."""
    value = _parsed(value)
    if isinstance(value, str):
        return value.replace("<image>", "").strip()
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        return ""
    said = [m.get("content") for m in value if isinstance(m, Mapping) and m.get("role", "user") == "user"]
    return "\n".join(text.replace("<image>", "").strip() for text in said if isinstance(text, str))
