"""Reads a model's output line by line into drafts of questions: what is a question, an option, an answer."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Literal

from limner.curate import marks
from limner.curate.marks import OptionMark
from limner.questions import LETTERS

Style = Literal["", "letter", "number", "bullet", "line"]
_KEY = re.compile(r"(?:(?:correct\s+)?answers?(?:\s+keys?)?|keys?)\s*:?\s*", re.IGNORECASE)
_KEYS = re.compile(
    r"(?:^|[\s,;])(?:q\s*)?(\d{1,2})\s*[.):\-\u2013]\s*[(\[]?([A-Za-z])\b[)\]]?", re.IGNORECASE
)
_ENDS_A_QUESTION = ("?", "\uff1f", "\u061f")


@dataclass
class Option:
    """An option as it is read."""

    lines: list[str]
    """Its text, in lines."""
    letter: str = ""
    """Its Latin letter; empty where it has none."""
    right: bool = False
    """Marked as right where it stands."""
    bold: bool = False
    """All in bold."""

    @property
    def text(self) -> str:
        """Its text."""
        return " ".join(filter(None, self.lines))


@dataclass
class Draft:
    """A question as it is read."""

    lines: list[str]
    """Its text, in lines."""
    options: list[Option] = field(default_factory=list[Option])
    """As they stand."""
    said: list[str] = field(default_factory=list[str])
    """What stands behind "Answer:"."""
    kind: str = ""
    """What stands behind "Type:"."""
    style: Style = ""
    """How its options are marked."""
    number: int | None = None
    """Its number, where it has one."""

    @property
    def text(self) -> str:
        """The question."""
        return " ".join(filter(None, self.lines))

    @property
    def shown(self) -> str:
        """All of it, for people."""
        lines = [self.text, *(f"{option.letter}) {option.text}" for option in self.options)]
        return "\n".join([*lines, *(f"Answer: {said}" for said in self.said)])[:500]

    @property
    def numbered(self) -> bool:
        """Whether options have numbers."""
        return self.style == "number"

    def settled(self) -> Draft:
        """With letters for options that have none, and options that were taken for lines of a text."""
        lines, options = list(self.lines), [dataclasses.replace(option) for option in self.options]
        if not options and len(lines) > 2 and lines[0].endswith(_ENDS_A_QUESTION):
            options, lines = [_option_of(line) for line in lines[1:]], lines[:1]
        last = self.said[0].strip("()[]. ") if len(self.said) == 1 else ""
        if options and last and last == LETTERS[len(options) :][:1] and len(options[-1].lines) == 2:
            options.append(Option([options[-1].lines.pop()]))
        used = {option.letter for option in options}
        for place, option in enumerate(options):
            if not option.letter and LETTERS[place % 26] not in used:
                option.letter = LETTERS[place % 26]
        return dataclasses.replace(self, lines=lines, options=options)


def _option_of(line: str) -> Option:
    text, right = marks.marked_right(line)
    return Option([text], right=right)


class Reader:
    """Goes through a text from top to bottom."""

    def __init__(self) -> None:
        """Nothing read yet."""
        self.drafts: list[Draft] = []
        self._draft: Draft | None = None
        self._over = True
        """Whether lines of text no longer belong to the last question."""
        self._awaits = False
        """Whether the next line says the answer."""
        self._loose: list[str] = []
        """Lines before options that no question begins."""
        self._blank = False

    def read(self, text: str) -> list[Draft]:
        """All drafts, the answers of a key at the end put to them."""
        for raw in text.split("\n"):
            line = marks.plain(raw)
            if not line:
                self._blank = True
                continue
            if not self._key(line) and not self._answer(line):
                self._line(line, bold=marks.is_bold(raw))
            self._blank = False
        return [draft for draft in self.drafts if draft.options or draft.said or _asks(draft)]

    def _line(self, line: str, *, bold: bool) -> None:
        if marks.RULE.fullmatch(line) or marks.IGNORED.match(line):
            self._over = True
        elif (kind := marks.KIND.fullmatch(line)) is not None:
            self._kind(kind[1].strip())
        elif marks.OPTIONS.fullmatch(line):
            self._loose = self._loose[-1:]
        elif not self._next(line) and (question := marks.QUESTION.fullmatch(line)) is not None:
            number = next(filter(None, question.groups()[:3]), "")
            self._begin(question[4], int(number) if number else None)
        elif not self._numbered(line, bold=bold) and not self._options(line, bold=bold):
            self._text(line, bold=bold)

    def _next(self, line: str) -> bool:
        """Whether a line is the option that comes next by its letter: "Q) ..." may be one."""
        mark, draft = marks.option(line), self._draft
        if mark is None or draft is None or self._over or draft.style != "letter":
            return False
        return mark.letter == LETTERS[len(draft.options) :][:1]

    def _begin(self, text: str, number: int | None = None) -> None:
        self._draft = Draft([], number=number)
        self.drafts.append(self._draft)
        self._over, self._awaits, self._loose = False, False, []
        before, found = marks.inline(text)
        if before:
            self._draft.lines.append(before)
        self._add(found, bold=False)

    def _kind(self, kind: str) -> None:
        if self._draft is not None:
            self._draft.kind = kind

    def _key(self, line: str) -> bool:
        """Whether a line is (of) a key of answers at the end: "1. B, 2. C"."""
        found = _KEYS.findall(line)
        rest = _KEYS.sub("", _KEY.sub("", line, count=1)).strip(" ,;.|")
        if (
            not self.drafts
            or not found
            or rest
            or not (len(found) > 1 or all(d.said for d in self.drafts[-1:]) or self._awaits)
        ):
            return False
        numbers = [draft.number for draft in self.drafts]
        taken = False
        for number, letter in found:
            place = numbers.index(int(number)) if int(number) in numbers else int(number) - 1
            if 0 <= place < len(self.drafts) and not self.drafts[place].said:
                self.drafts[place].said.append(letter.upper())
                taken = True
        return taken

    def _answer(self, line: str) -> bool:
        """Whether a line says which option is right."""
        draft = self._draft
        bullet = marks.BULLET.fullmatch(line)
        match = marks.ANSWER.fullmatch(bullet[1] if bullet else line)
        if draft is None or match is None:
            if draft is not None and draft.options and not draft.said and self._bare(line, draft):
                return True
            inside = marks.ANSWER_INSIDE.search(line) if match is None else None
            if inside is None:
                return False
            self._line(line[: inside.start()].rstrip(" (["), bold=False)
            return self._answer(line[inside.end() :].strip().removesuffix(")"))
        if not match[1]:
            self._awaits = not draft.said
            return not marks.OPTIONS.fullmatch(line) or bool(draft.options)
        draft.said.append(match[1])
        self._over, self._awaits = True, False
        return True

    def _bare(self, line: str, draft: Draft) -> bool:
        """Whether a line is the answer without the word: behind "Answer:", a letter alone, or "A: B"."""
        letters = [option.letter for option in draft.options]
        short = re.fullmatch(r"A\s*[:.]\s*(.+)", line)
        alone = line.strip("()[].: ")
        if self._awaits:
            draft.said.append(line)
        elif len(alone) == 1 and alone in letters and len(letters) > 1:
            draft.said.append(alone)
        elif short and len(letters) > 1 and "A" in letters:
            draft.said.append(short[1])
        else:
            return False
        self._over, self._awaits = True, False
        return True

    def _numbered(self, line: str, *, bold: bool) -> bool:
        match, draft = marks.NUMBER.fullmatch(line), self._draft
        if match is None:
            return False
        number, rest = int(match[1]), match[2]
        asked = rest.rstrip("*").endswith(_ENDS_A_QUESTION)
        open_ = draft is not None and not draft.said and draft.text and not asked
        if open_ and draft is not None and draft.style in ("", "number") and number == len(draft.options) + 1:
            self._add([OptionMark("", rest, ".")], bold=bold, style="number")
        else:
            self._begin(rest, number)
        return True

    def _options(self, line: str, *, bold: bool) -> bool:
        before, found = marks.inline(line)
        if found and (before or len(found) > 1):
            if before:
                self._text(before, bold=False)
            self._start_loose()
            self._add(found, bold=False)
            return True
        mark = marks.option(line)
        if mark is not None and self._fits(mark):
            self._start_loose()
            self._fill(mark.letter)
            self._add([mark], bold=bold or line.startswith("**"))
            return True
        bullet = marks.BULLET.fullmatch(line)
        draft = self._draft
        if bullet and draft is not None and draft.text and not self._over and draft.style in ("", "bullet"):
            self._add([OptionMark("", bullet[1], "")], bold=bold, style="bullet")
            return True
        return False

    def _fits(self, mark: OptionMark) -> bool:
        """Whether a letter can be that of the next option here: "A." may begin a sentence, too."""
        draft = self._draft
        if draft is None or self._over:
            return mark.letter == "A" and bool(self._loose)
        if draft.style not in ("", "letter"):
            return False
        return bool(draft.text or mark.letter == "A") and (bool(draft.options) or mark.letter in "AB")

    def _fill(self, letter: str) -> None:
        """Take the line before an option as the option whose letter was left out."""
        draft = self._draft
        if draft is None or not letter or letter != LETTERS[len(draft.options) + 1 :][:1]:
            return
        if not draft.options and len(draft.lines) > 1:
            draft.options.append(Option([draft.lines.pop()], LETTERS[0]))
        elif draft.options and len(draft.options[-1].lines) == 2:
            draft.options.append(Option([draft.options[-1].lines.pop()], LETTERS[len(draft.options)]))

    def _add(self, found: list[OptionMark], *, bold: bool, style: Style = "letter") -> None:
        for mark in found:
            assert self._draft is not None
            text, right = marks.marked_right(mark.text)
            self._draft.options.append(Option([text] if text else [], mark.letter, right, bold))
            self._draft.style = style

    def _start_loose(self) -> None:
        """Begin a question with the text before options that nothing marked as one."""
        if self._draft is None or self._over:
            self._begin(self._loose[-1] if self._loose else "")

    def _text(self, line: str, *, bold: bool) -> None:
        draft = self._draft
        asks = line.endswith(_ENDS_A_QUESTION)
        if draft is None or self._over or (draft.options and asks and self._blank):
            if asks:
                self._begin(line)
            else:
                self._loose = [*self._loose[-2:], line]
                self._over = True
        elif draft.options:
            draft.options[-1].lines.append(marks.marked_right(line)[0])
        else:
            draft.lines.append(line)


def _asks(draft: Draft) -> bool:
    return bool(draft.number is not None or draft.text.endswith(_ENDS_A_QUESTION)) and bool(draft.text)
