"""Keeps the questions that need the image and can be answered from it.

Each question is asked n times with shuffled options, with the image ("None of the above" as one more option)
and without it. No answer is not a wrong answer: a question that was not answered often enough is unscored.
Without the image a reply that names no option is an answer that is not right: nobody saw the image.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from limner.answering.base import Asker
from limner.answering.draw import Drawn, number, same, shuffled
from limner.answering.letters import read_letter
from limner.answering.prompt import OPTION
from limner.curate import askers
from limner.curate.settings import Files, Settings
from limner.data.media import open_image
from limner.data.rows import GrowingRows, Row, line_of
from limner.errors import Reject, UserError
from limner.questions import Question

NONE = "None of the above"
VERDICTS = {
    "kept": "right with the image and not without it",
    "not seen": "not answered right often enough with the image",
    "guessed": "answered right too often without the image",
    "not seen, guessed": "both",
    "unscored": "not answered often enough to tell",
}
"""What becomes of a question, by the word in scored.jsonl."""
_ORDERS = 50


class Entry(NamedTuple):
    """A row of questions.jsonl."""

    id: str
    image: str
    number: int
    question: Question

    @property
    def key(self) -> str:
        """What tells it from all others, whatever is written anew."""
        text = json.dumps([self.id, self.question.plain()], sort_keys=True)
        return hashlib.sha256(text.encode("utf8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Counts:
    """How a question was answered on one side."""

    right: int = 0
    """Right answers."""
    answered: int = 0
    """Answers."""

    @property
    def share(self) -> float:
        """Share of right answers; NaN of none."""
        return self.right / self.answered if self.answered else float("nan")


def entries(files: Files) -> list[Entry]:
    """The questions that parse wrote.

    Raises:
        UserError: there are none, or a row is none.
    """
    try:
        lines = files.questions.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return [
            Entry(str(row["id"]), str(row["image"]), int(row["number"]), Question.of(row)) for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, Reject) as error:
        raise UserError(
            f"{files.questions}: no questions to read ({error}); run --stage parse first"
        ) from error


def ask(files: Files, asker: Asker, text_asker: Asker, settings: Settings) -> None:
    """Ask every question as often as it was not asked yet, and write what is kept.

    Args:
        files: where questions are read and answers are appended.
        asker: answers with the image.
        text_asker: answers without it.
        settings: how often, and which are kept.

    Raises:
        UserError: a model cannot be asked at all, or an image is gone.
    """
    questions = entries(files)
    rows = GrowingRows(files.answers, ("key",))
    tried, settled = _state(rows.existing, settings)
    by_image: dict[str, list[Entry]] = defaultdict(list)
    for entry in questions:
        by_image[entry.image].append(entry)
    images = list(by_image)
    for start in range(0, len(images), settings.batch):
        part = images[start : start + settings.batch]
        pending = [entry for image in part for entry in by_image[image]]
        pictures: dict[str, bytes] = {}
        for draw in range(settings.draws):
            for side, answers in ((True, asker), (False, text_asker)):
                todo = [entry for entry in pending if (entry.key, side, draw) not in settled]
                if todo and side and not pictures:
                    pictures = {image: _picture(files.folder / image) for image in part}
                while todo:
                    got = _round(todo, side, draw, answers, settings, pictures, tried)
                    rows.append(got)
                    for row in got:
                        tried[_of(row)] += 1
                        if row["chosen"] is not None or not side:
                            settled.add(_of(row))
                    answered = {str(row["key"]) for row in got}
                    # what got no reply at all is left to the next start; what named no option is asked again
                    todo = [
                        e for e in todo
                        if e.key in answered and (e.key, side, draw) not in settled
                        and tried[(e.key, side, draw)] < settings.tries
                    ]  # fmt: skip
    write(files, settings)


def _round(
    todo: Sequence[Entry],
    side: bool,
    draw: int,
    asker: Asker,
    settings: Settings,
    pictures: dict[str, bytes],
    tried: Counter[tuple[str, bool, int]],
) -> list[dict[str, object]]:
    """Ask some questions once; rows of those that got a reply. Asked again, another seed is used."""
    rows: list[dict[str, object]] = []
    by_try: dict[int, list[Entry]] = defaultdict(list)
    for entry in todo:
        by_try[tried[(entry.key, side, draw)]].append(entry)
    for attempt, group in by_try.items():
        drawn = [order(entry.question, draw, settings.seed, entry.id, none=side) for entry in group]
        conversations = [
            askers.message(shown(one), pictures[entry.image] if side else None)
            for entry, one in zip(group, drawn, strict=True)
        ]
        replies = asker.ask(
            conversations, max_new_tokens=settings.answer_tokens, temperature=settings.answer_temperature,
            seed=number(settings.seed, draw, attempt),
        )  # fmt: skip
        for entry, one, reply in zip(group, drawn, replies, strict=True):
            if reply.text is not None:
                letter = read_letter(reply.text, one.options)
                said = {"options": list(one.options), "right": sorted(one.right)}
                said |= {"chosen": letter, "text": reply.text}
                place = {"key": entry.key, "id": entry.id, "number": entry.number}
                rows.append({**place, "with_image": side, "draw": draw, **said})
    return rows


def order(question: Question, draw: int, seed: int, id: str, *, none: bool) -> Drawn:
    """The options as they are shown at a draw; no order comes twice while there are others."""
    rng = random.Random(number(seed, id, question.text))
    offered = none and not any(same(option) == same(NONE) for option in question.options)
    extra = NONE if offered and len(question.options) < 25 else None
    drawn = [shuffled(question, rng, extra)]
    for _ in range(_ORDERS * draw):
        fresh = shuffled(question, rng, extra)
        if len(drawn) <= draw and fresh.options not in {one.options for one in drawn}:
            drawn.append(fresh)
    return drawn[draw % len(drawn)]


def shown(drawn: Drawn) -> str:
    """A question as it is asked."""
    template = (Path(__file__).parent / "prompts" / "answer.txt").read_text(encoding="utf-8").strip()
    options = "\n".join(
        OPTION.replace("{letter}", letter).replace("{text}", text, 1)
        for letter, text in zip(drawn.letters, drawn.options, strict=True)
    )
    before, _, after = template.partition("{question}")
    return before + drawn.question.text + after.replace("{options}", options, 1)


def _picture(path: Path) -> bytes:
    try:
        return askers.encoded(open_image(path, max_side=1024))
    except Reject as reject:
        raise UserError(f"{path}: {reject.reason}; the image is needed to ask about it") from None


def _of(row: Row) -> tuple[str, bool, int]:
    return str(row["key"]), bool(row["with_image"]), int(str(row["draw"]))


def _state(
    rows: Iterable[Row], settings: Settings
) -> tuple[Counter[tuple[str, bool, int]], set[tuple[str, bool, int]]]:
    """How often each was asked, and what need not be asked again."""
    tried: Counter[tuple[str, bool, int]] = Counter()
    settled: set[tuple[str, bool, int]] = set()
    for row in rows:
        tried[_of(row)] += 1
        if row["chosen"] is not None or not row["with_image"] or tried[_of(row)] >= settings.tries:
            settled.add(_of(row))
    return tried, settled


def counts(rows: Iterable[Row], draws: int) -> dict[tuple[str, bool], Counts]:
    """Answers of each question on each side, a draw counted once, of the first `draws` draws."""
    last: dict[tuple[str, bool, int], bool | None] = {}
    for row in rows:
        place = _of(row)
        if place[2] < draws and last.get(place) is None:
            chosen = row["chosen"]
            unread = None if place[1] else False
            last[place] = unread if chosen is None else chosen in cast("list[str]", row["right"])
    found: dict[tuple[str, bool], Counts] = {}
    for (key, side, _), right in last.items():
        if right is not None:
            was = found.get((key, side), Counts())
            found[(key, side)] = Counts(was.right + right, was.answered + 1)
    return found


def verdict(seen: Counts, unseen: Counts, settings: Settings) -> str:
    """What becomes of a question, one of `VERDICTS`."""
    if min(seen.answered, unseen.answered) < settings.draws:
        return "unscored"
    reasons = ["not seen"] * (not seen.share > settings.seen) + ["guessed"] * (
        not unseen.share < settings.unseen
    )
    return ", ".join(reasons) or "kept"


def write(files: Files, settings: Settings) -> None:
    """Write scored.jsonl and kept.jsonl from the answers there are."""
    found = counts(GrowingRows(files.answers, ("key",)).existing, settings.draws)
    scored: list[dict[str, Any]] = []
    kept: dict[str, dict[str, Any]] = {}
    for entry in entries(files):
        seen, unseen = (found.get((entry.key, side), Counts()) for side in (True, False))
        said = verdict(seen, unseen, settings)
        plain = entry.question.plain()
        scored.append({
            "id": entry.id, "image": entry.image, "number": entry.number, **plain,
            "with_image": [seen.right, seen.answered], "without_image": [unseen.right, unseen.answered],
            "verdict": said,
        })  # fmt: skip
        if said == "kept":
            row = kept.setdefault(entry.id, {"id": entry.id, "image": entry.image, "questions": []})
            row["questions"].append(plain)
    replace(files.scored, scored)
    replace(files.kept, kept.values())


def replace(path: Path, rows: Iterable[Row]) -> None:
    """Write a JSONL file whole."""
    beside = path.with_name(path.name + ".partial")
    try:
        beside.write_text("".join(map(line_of, rows)), encoding="utf-8", newline="\n")
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
