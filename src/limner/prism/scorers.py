"""Scorers: how right a reply is, by the rules of the benchmark that asks.

They differ from those of the published evaluation where that is defective; `published` reproduces it, and
docs/prism.md lists the differences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limner.answering.letters import read_letter
from limner.errors import Reject, UserError
from limner.prism.answers import answer_of, listed, marked_answer, normalised, number, without_thoughts
from limner.questions import LETTERS

TOLERANCE = 0.05
"""Relative to the gold number: within it an answer read off a chart is right (ChartQA, arXiv 2203.10244)."""
SCALES = (1.0, 0.01, 100.0)
"""An answer is right at any of these: 0.35 for 35%, 35 for 0.35."""
ANLS_THRESHOLD = 0.5
"""A similarity below this counts 0 (Biten et al., arXiv 1905.13648)."""
_MATHEMATICAL = re.compile(r"[0-9\\=<>^+*/]|^\s*\$?\s*[A-Za-z]\s*\$?\s*$")
_RATIO = re.compile(r"\s*\d+(?:\.\d+)?\s*:\s*\d+(?:\.\d+)?\s*")


@dataclass(frozen=True)
class Gold:
    """What is right."""

    answers: tuple[str, ...]
    """Accepted answers, one or more; the letter of an option for a multiple-choice question."""
    options: tuple[str, ...] = ()
    """Texts of the options in the order shown; empty texts where only their number is known."""


@dataclass(frozen=True)
class Verdict:
    """What a scorer says of one reply."""

    score: float
    """0..1."""
    answer: str | None
    """What the reply gave as its answer; None where no answer was found in it, which is wrong."""


def choice(reply: str, gold: Gold) -> Verdict:
    r"""1 where the reply chooses the right option.

    The letter in \boxed{} or <answer> counts before the rest of the reply; an option's text counts as its
    letter. Options that say the same as the right one are right as well.
    """
    said = without_thoughts(reply)
    # NUL stands in no reply: an option whose text is unknown is never chosen by its text
    options = [text or f"\0{place}" for place, text in enumerate(gold.options)]
    marked = marked_answer(said)
    letter = read_letter(marked, options) if marked is not None else None
    letter = letter or read_letter(said, options)
    if letter is None:
        return Verdict(0.0, None)
    meant, chosen = (normalised(options[LETTERS.index(name)]) for name in (gold.answers[0], letter))
    return Verdict(float(letter == gold.answers[0] or meant == chosen != ""), letter)


def exact(reply: str, gold: Gold) -> Verdict:
    """1 where the answer and a gold answer are the same text, normalised."""
    return _any(reply, gold, lambda answer, right: normalised(answer) == normalised(right))


def relaxed(reply: str, gold: Gold) -> Verdict:
    """1 where the answer is within 5% of the GOLD number at scale 1, .01 or 100, or is the same text.

    A gold answer that is a list of several needs all of them, in its order. What is no number on both sides
    is compared as text and, where it is mathematical, by math-verify.
    """

    def match(answer: str, right: str) -> bool:
        numbers = number(answer) is not None and number(right) is not None
        return relaxed_match(answer, right) or (not numbers and math_match(answer, right))

    return _any(reply, gold, match)


def mathematics(reply: str, gold: Gold) -> Verdict:
    """1 where the answer equals a gold answer as mathematics (math-verify), or is the same text."""
    return _any(reply, gold, math_match)


def anls(reply: str, gold: Gold) -> Verdict:
    """The normalised Levenshtein similarity to the nearest gold answer; 0 where it is below .5."""
    answer = answer_of(reply)
    if answer is None:
        return Verdict(0.0, None)
    best = max(similarity(answer, right) for right in gold.answers)
    return Verdict(best if best >= ANLS_THRESHOLD else 0.0, answer)


SCORERS: Mapping[str, Callable[[str, Gold], Verdict]] = {
    "choice": choice, "math": mathematics, "relaxed": relaxed, "anls": anls, "exact": exact
}  # fmt: skip
"""Every scorer by its name."""


def relaxed_match(answer: str, gold: str) -> bool:
    """Whether an answer is a gold answer, 5% of the gold number allowed.

    Args:
        answer: what was answered.
        gold: what is right: 5% are of this one.
    """
    many = listed(gold)
    if many is not None and len(many) > 1:
        parts = listed(answer) or [part.strip() for part in answer.split(",")]
        return len(parts) == len(many) and all(map(relaxed_match, parts, many))
    said, right = number(answer), number(gold)
    if said is None or right is None:
        return normalised(answer) == normalised(gold)
    allowed = TOLERANCE * abs(right) * (1 + 1e-12)  # the limit itself is allowed, whatever its rounding
    return any(abs(said * scale - right) <= allowed for scale in SCALES)


def math_match(answer: str, gold: str) -> bool:
    """Whether an answer is a gold answer as mathematics.

    A gold answer that is words is compared as text: math-verify would read it as a product of its letters, in
    which "no" is "on".
    """
    return normalised(answer) == normalised(gold) or (_is_mathematical(gold) and _verified(answer, gold))


def check_parses(gold: str) -> None:
    """Refuse a gold answer that math-verify cannot read: the published scorer calls every answer to it right.

    Raises:
        Reject: it is mathematical and cannot be read.
    """
    if _is_mathematical(gold) and not _parsed(gold):
        raise Reject(f"the right answer {gold!r} cannot be read as mathematics")


def similarity(answer: str, gold: str) -> float:
    """1 - Levenshtein distance / the longer length, of texts in lower case with single spaces."""
    a, b = (" ".join(text.strip().lower().split()) for text in (answer, gold))
    longest = max(len(a), len(b))
    return 1 - distance(a, b) / longest if longest else 1.0


def distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The Levenshtein distance: fewest insertions, deletions and replacements."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (left != right))
    return row[-1]


def _any(reply: str, gold: Gold, match: Callable[[str, str], bool]) -> Verdict:
    answer = answer_of(reply)
    if answer is None:
        return Verdict(0.0, None)
    return Verdict(float(any(match(answer, right) for right in gold.answers)), answer)


def _is_mathematical(gold: str) -> bool:
    return bool(_MATHEMATICAL.search(gold)) and not _RATIO.fullmatch(gold)


def _verified(answer: str, gold: str) -> bool:
    right, said = _parsed(gold), _parsed(answer)
    if not right or not said:
        return False
    from math_verify import verify

    return bool(verify(right, said))


def _parsed(text: str) -> list[Any]:
    """What math-verify reads; nothing where it reads nothing."""
    verifier = math_verify()
    configs = [verifier.LatexExtractionConfig(), verifier.ExprExtractionConfig()]
    plain = text.strip().strip("$").strip()
    return verifier.parse(f"${plain}$", extraction_mode="first_match", extraction_config=configs)


def math_verify() -> Any:
    """The package that compares mathematics.

    Raises:
        UserError: it is not installed.
    """
    try:
        import math_verify as package
    except ImportError as error:
        raise UserError("Prism needs math-verify for these answers: pip install 'limner[prism]'") from error
    return package
