"""What a language model's reply gives as its answer, and the numbers and texts that answers are."""

from __future__ import annotations

import ast
import math
import re
import unicodedata

_BOXED = r"\boxed"
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_SAID = re.compile(r"\banswer(?:\s+is)?\s*:?\s+(?=\S)([^\n]+)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=\d)[,\u00a0\u202f](?=\d{3}(?!\d))")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")


def answer_of(reply: str) -> str | None:
    r"""The answer that a reply comes to.

    In this order: what stands in its last \boxed{}; in its last <answer> tag; behind its last "answer is" or
    "Answer:"; its last line. Thoughts in <think> tags are left out, also where they never end.

    Returns:
        The answer without white space around it; None where nothing was said.
    """
    said = without_thoughts(reply)
    marked = marked_answer(said)
    if marked is not None:
        return marked
    named = _SAID.findall(said)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    found = named[-1] if named else lines[-1] if lines else ""
    return found.replace("**", "").strip().rstrip(".").strip() or None


def marked_answer(said: str) -> str | None:
    r"""What stands in the last \boxed{} or, where there is none, in the last <answer> tag; else None."""
    inside = boxed(said)
    if inside is None:
        tags = _ANSWER.findall(said)
        inside = tags[-1] if tags else None
    return (inside or "").strip() or None


def without_thoughts(reply: str) -> str:
    """The reply behind its last </think>; nothing of one that was cut while it thought."""
    _, end, said = reply.rpartition("</think>")
    if end:
        return said
    return said.partition("<think>")[0]


def boxed(text: str) -> str | None:
    r"""What stands between the braces of the last \boxed{...}; braces inside it are balanced.

    None where there is none, or where its brace is never closed.
    """
    start = text.rfind(_BOXED)
    while start >= 0:
        inside = _in_braces(text, start + len(_BOXED))
        if inside is not None:
            return inside
        start = text.rfind(_BOXED, 0, start)
    return None


def _in_braces(text: str, start: int) -> str | None:
    opened = re.compile(r"\s*\{").match(text, start)
    if opened is None:
        return None
    depth = 1
    for place in range(opened.end(), len(text)):
        if text[place] in "{}" and text[place - 1] != "\\":
            depth += 1 if text[place] == "{" else -1
        if depth == 0:
            return text[opened.end() : place]
    return None


def number(text: str) -> float | None:
    """The number that a text is, and nothing else: "1,250", "$3.5", "-12%", "4e3".

    A percentage is the number in front of its sign; charts are read at the scales 1, .01 and 100 anyway.
    """
    plain = re.sub(r"\\(?=[%$])|\\[,;!]", "", unicodedata.normalize("NFKC", text)).strip().strip("$€£¥ ")
    plain = _THOUSANDS.sub("", plain.removesuffix("%").strip().replace("\N{MINUS SIGN}", "-"))
    if not _NUMBER.fullmatch(plain):
        return None
    value = float(plain)
    return value if math.isfinite(value) else None


def normalised(text: str) -> str:
    r"""A text without what says nothing: case, white space, LaTeX's \text, quotes and marks around it."""
    plain = _WRAPPED.sub(r"\1", unicodedata.normalize("NFKC", text)).replace("\\%", "%").replace("\\$", "$")
    return " ".join(plain.casefold().strip(" \t\r\n$.,;:!?\"'`*()\u201c\u201d\u2018\u2019").split())


def listed(text: str) -> list[str] | None:
    """The elements of a list written as text, "[2010, 2014]" or "['a', 'b']"; None where it is none.

    It is read, never run.
    """
    plain = text.strip()
    if not (plain.startswith("[") and plain.endswith("]")):
        return None
    try:
        found = ast.literal_eval(plain)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = [part.strip() for part in plain[1:-1].split(",")]  # [USA, China], without quotes
    return [str(part).strip() for part in found] if found else None
