"""The scorer of CapRL's published evaluation, defects included, to hold its numbers against ours.

Written anew from what that code does; docs/prism.md says answer by answer where it differs from `scorers`.
"""

from __future__ import annotations

import ast
import re
from typing import Any, Literal

from limner.prism.scorers import ANLS_THRESHOLD, SCALES, TOLERANCE, distance, math_verify

Rules = Literal["math", "chart", "info"]
"""Which rules the published code takes: it looks for "char" and "info" in the path of the file."""

_IN_TAGS = re.compile(r"</think>\s*<answer>.*?\\boxed{(.*)}.*?</answer>", re.DOTALL)


def published(reply: str, answer: object, *, rules: Rules) -> float:
    """The published score of one reply.

    Args:
        reply: what the answerer wrote.
        answer: the row's answer as it stands in the file.
        rules: of the set.
    """
    mathematics = _mathematics(reply, f"${answer}$")
    if rules == "math":
        return mathematics
    return max(_chart(reply, str(answer), with_anls=rules == "info"), mathematics)


def _mathematics(reply: str, gold: str) -> float:
    """1 for an unparsable gold answer, whatever the reply is; the answer stands where the gold belongs."""
    right = _parsed(gold)
    if not right:
        return 1.0
    said = _boxed(reply)
    verify = math_verify().verify
    return max(float(verify(said, right)), float(verify(_parsed(f"${said}$"), right)))


def _chart(reply: str, gold: str, *, with_anls: bool) -> float:
    """5% of the PREDICTION, for any of the gold answers; with ANLS as well."""
    parsed = _parsed(f"${_boxed(reply)}$")
    said = str(parsed[-1]) if parsed else ""
    golds = _alternatives(gold)
    try:
        tried = [str(scale * float(said)) for scale in SCALES]
    except ValueError:
        tried = [said.strip()]
    score = float(any(_close(text, right) for text in tried for right in golds))
    if not with_anls:
        return score
    best = max(_similarity(said, right) for right in golds)
    return max(score, best if best >= ANLS_THRESHOLD else 0.0)


def _close(prediction: str, gold: str) -> bool:
    """With the two in each other's place: the tolerance is relative to what was predicted."""
    said, right = _number(prediction), _number(gold)
    if right is not None and said:
        return abs(right - said) / abs(said) <= TOLERANCE
    return prediction.lower() == gold.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _similarity(answer: str, gold: str) -> float:
    """Over the longer length before white space is taken out."""
    a, b = (" ".join(text.strip().lower().split()) for text in (answer, gold))
    longest = max(len(answer), len(gold))
    return 1 - distance(a, b) / longest if longest else 1.0


def _alternatives(gold: str) -> list[str]:
    """The elements of what reads as a list. The published code runs the text; here it is only read."""
    try:
        found = ast.literal_eval(gold)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [gold]
    return [str(part) for part in found] if isinstance(found, list) and found else [gold]


def _boxed(reply: str) -> str:
    """From the first brace to the last, and only within the tags that CapRL-Eval-3B was taught to write."""
    found = _IN_TAGS.findall(reply)
    return found[-1] if found else ""


def _parsed(text: str) -> list[Any]:
    verifier = math_verify()
    configs = [verifier.LatexExtractionConfig()]
    return verifier.parse(text, extraction_mode="first_match", extraction_config=configs)
