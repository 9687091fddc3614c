"""The marks by which a model sets questions, options and answers apart, in one line of its output."""

from __future__ import annotations

import re
from typing import NamedTuple

from limner.questions import LETTERS

ALPHABETS = (
    LETTERS,
    "\u0410\u0411\u0412\u0413\u0414\u0415\u0416\u0417",  # Cyrillic, from A
    "\u2460\u2461\u2462\u2463\u2464\u2465\u2466\u2467",  # digits in circles
    "\uff21\uff22\uff23\uff24\uff25\uff26\uff27\uff28",  # wide Latin
)
"""Letters that options are given, in their order."""
_LETTER = {letter: LETTERS[place] for letters in ALPHABETS for place, letter in enumerate(letters)}
_LETTER |= {letter.lower(): latin for letter, latin in _LETTER.items()}
_ONE = "[" + "".join(re.escape(letter) for letter in _LETTER) + "]"
_CLOSE = ")\\].:\u3001\uff0e\uff1a\uff09"

ANSWER = re.compile(
    r"(?:(?:the|la|le|die|das|the\s+only)\s+)?"
    r"(?:(?:correct|right|richtige|bonne|true|best|\u6b63\u786e|\u6b63\u78ba|"
    r"\u043f\u0440\u0430\u0432\u0438\u043b\u044c\u043d\u044b\u0439)\s*)?"
    r"(?:answers?|ans|option|choice|key|antwort|l\u00f6sung|r\u00e9ponse|respuesta|risposta|resposta|soluci\u00f3n|"
    r"\u7b54\u6848|\u7b54\u3048|\u6b63\u89e3|\uc815\ub2f5|\ub2f5|\u043e\u0442\u0432\u0435\u0442|"
    r"\u0627\u0644\u0625\u062c\u0627\u0628\u0629|\u0909\u0924\u094d\u0924\u0930)"
    r"(?:\s*key)?(?:\s*(?:correct[ae]?|corretta|to\s+(?:question\s*)?\d+|\d+))?"
    r"\s*(?:\([^)]{0,30}\)\s*)?(?:is\b\s*[:\uff1a]?|ist\b\s*:?|[:\uff1a=]|\s[-\u2013\u2014]\s)\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)
"""A line that says which option is right; its group is what it says."""
ANSWER_INSIDE = re.compile(
    r"\s[(\[]?(?=(?:the\s+)?(?:correct\s+|right\s+)?(?:answer|ans|\u7b54\u6848)\s*[:\uff1a])", re.IGNORECASE
)
IGNORED = re.compile(
    r"(?:explanation|rationale|reason(?:ing)?|justification|difficulty|note|hint|skill|source|erkl\u00e4rung|"
    r"explication|explicaci\u00f3n|\u89e3\u6790|\u89e3\u91ca|\u89e3\u8aac)\b\s*[:\uff1a]",
    re.IGNORECASE,
)
KIND = re.compile(r"(?:question\s+)?(?:type|category|kind|aspect)\s*[:\uff1a]\s*(.{1,60})", re.IGNORECASE)
OPTIONS = re.compile(
    r"(?:options?|choices?|answers?|optionen|opciones|\u9009\u9879)\s*[:\uff1a]", re.IGNORECASE
)
"""A line that only announces options."""
QUESTION = re.compile(
    r"(?:(?:multiple[- ]choice\s+)?(?:question|frage|pregunta|domanda|pergunta|"
    r"\u95ee\u9898|\u554f\u984c|\u95ee|\u9898\u76ee|\u8cea\u554f|\ubb38\uc81c|\uc9c8\ubb38|\u0432\u043e\u043f\u0440\u043e\u0441)\s*"
    r"(?:n(?:o|r|\u00b0)?\.?|#|number)?\s*(\d*)\s*(?:\([^)]{1,40}\)\s*)?(?:[:.)\uff1a\u3001]|[-\u2013\u2014]\s|$)"
    r"|(?:q|mcq)\s*\.?\s*(\d*)\s*[:.)\uff1a\u3001\-]"
    r"|q(\d+)\s)"
    r"\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)
"""A line that begins a question by name."""
NUMBER = re.compile("[(\\[]?(\\d{1,3})\\s*[" + _CLOSE + "]{1,2}(?!\\d)\\s*(.*)", re.DOTALL)
"""A line that begins with a number: a question or an option."""
BULLET = re.compile(
    "(?:[-+*\u2022\u2013\u2014\u25e6\u25aa\u25cf\u00b7\u25cb\u25a1]|\\[ \\])\\s+(.*)", re.DOTALL
)
_OPTION = re.compile(
    "(?:option\\s+)?([(\\[\uff08]?)(" + _ONE + ")\\s*([" + _CLOSE + "])\\s*(.*)", re.DOTALL | re.IGNORECASE
)
_CIRCLED = re.compile("([\u2460-\u2467])\\s*(.*)", re.DOTALL)
_CORRECT = re.compile(
    "\\s*(?:[(\\[]\\s*(?:the\\s+)?(?:correct|right)(?:\\s+(?:answer|option|choice))?\\s*[)\\]]"
    "|(?:<-+|\u2190|-->?)\\s*(?:correct|right|answer).{0,20}"
    "|[\u2713\u2714\u2705\u2611]\ufe0f?(?:\\s*correct)?)\\s*$",
    re.IGNORECASE,
)
_CORRECT_BEFORE = re.compile("\\s*(?:[\u2713\u2714\u2705\u2611]\ufe0f?|\\[[xX]\\])\\s*")
_BOLD_WHOLE = re.compile(r"\s*(?:[-+\u2022]\s+)?(?:\*\*|__)(?!\s)(.+?)(?:\*\*|__)\s*")
_UNDERLINED = re.compile(r"(?<![\w_])__(?=[^\s_])(.+?)(?<=[^\s_])__(?![\w_])")
_SLANTED = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*]+?)(?<=[^\s*])\*(?![\w*])")
RULE = re.compile(r"[-=_*\s~]{3,}|\u2014+")


class OptionMark(NamedTuple):
    """One option in a line."""

    letter: str
    """Its Latin letter."""
    text: str
    """Its text; empty where that stands in the next line."""
    close: str
    """The sign behind the letter."""


def plain(line: str) -> str:
    """A line without the marks of Markdown: headings, quotes, bold, code."""
    line = re.sub(r"^(?:\s*>)+", "", line)
    line = re.sub(r"^\s*#{1,6}\s+", "", line).replace("**", "").replace("`", "")
    line = _SLANTED.sub(r"\1", _UNDERLINED.sub(r"\1", line))
    return line.replace("\u00a0", " ").replace("\u3000", " ").strip().strip("\u200b\ufeff").strip()


def is_bold(line: str) -> bool:
    """Whether all of a line's text is set in bold."""
    match = _BOLD_WHOLE.fullmatch(line)
    return match is not None and "**" not in match[1]


def marked_right(text: str) -> tuple[str, bool]:
    """An option's text without "(correct)" or a tick, and whether there was one."""
    before = _CORRECT_BEFORE.match(text)
    bare = _CORRECT.sub("", text[before.end() :] if before else text).strip()
    return bare, bare != text.strip()


def latin(letter: str) -> str:
    """The Latin letter of the same place; empty for anything that is no option's letter."""
    return _LETTER.get(letter, "")


def option(line: str) -> OptionMark | None:
    """The option that a line begins with."""
    bullet = BULLET.fullmatch(line)
    line = bullet[1] if bullet else line
    if ticked := _CORRECT_BEFORE.match(line):
        line = f"{line[ticked.end() :]} (correct)"
    circled = _CIRCLED.fullmatch(line)
    if circled:
        return OptionMark(latin(circled[1]), circled[2].strip(), circled[1])
    match = _OPTION.fullmatch(line)
    if match is None:
        return None
    opened, letter, close, text = match.groups()
    if close == ":" and text.startswith("//"):
        return None  # a drive or an address
    if letter.islower() and not (opened or close in ")]."):
        return None
    return OptionMark(latin(letter), text.strip(), close)


def inline(line: str) -> tuple[str, list[OptionMark]]:
    """Options that stand behind one another in one line: what is before them, and the options.

    Returns:
        The line and nothing where there are not two options in it that follow each other from A on.
    """
    starts: list[tuple[int, int, str]] = []
    at = 0
    for wanted in LETTERS:
        found = re.compile(f"(?:^|(?<=[\\s,;|/]))[(\\[]?{wanted}[).\\]:](?=\\s*\\S)").search(line, at)
        if found is None:
            break
        starts.append((found.start(), found.end(), found[0][-1]))
        at = found.end()
    if len(starts) < 2:
        return line, []
    ends = [start for start, _, _ in starts[1:]] + [len(line)]
    texts = [line[stop:end].strip() for (_, stop, _), end in zip(starts, ends, strict=True)]
    for separator in ",;|/":
        if all(text.endswith(separator) for text in texts[:-1]):
            texts = [text.removesuffix(separator).strip() for text in texts]
            break
    marks = [
        OptionMark(LETTERS[place], text, close)
        for place, (text, (_, _, close)) in enumerate(zip(texts, starts, strict=True))
    ]
    return line[: starts[0][0]].strip().removesuffix("-").strip(), marks
