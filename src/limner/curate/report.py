"""What is wrong with a set of questions: letters, questions that need no image, duplicates, rejects."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from limner.curate import page
from limner.curate.chance import chi_square
from limner.curate.filter import VERDICTS
from limner.curate.parse import REASONS
from limner.curate.settings import Files, Settings
from limner.data.qa_rows import same_text
from limner.data.rows import GrowingRows
from limner.questions import LETTERS

Row = Mapping[str, Any]
_TOP = 10
_CATEGORIES = (
    ("count", r"\bhow many\b|\bnumber of\b"),
    ("colour", r"\bcolou?rs?\b"),
    ("text", r"\b(?:written|text|words?|letters?|reads?|says?|title|label(?:led|ed)?)\b"),
    ("position", r"\b(?:where|left|right|above|below|behind|next to|position|located|(?:fore|back)ground)\b"),
    ("action", r"\bdoing\b|\b(?:holding|wearing|happening|action|activity)\b"),
    ("size", r"\b(?:larger?|largest|smaller|smallest|tallest|size|biggest)\b"),
    ("time or weather", r"\b(?:weather|time of day|season|lighting)\b"),
    ("material or pattern", r"\b(?:material|made of|pattern|texture|shape)\b"),
    ("person", r"\bwho\b"),
    ("existence", r"^(?:is|are|does|do|which of the following)\b"),
)  # fmt: skip


def category(row: Row) -> str:
    """What a question asks for: what its writer said, else the first of a list of words that is in it."""
    if row.get("kind"):
        return str(row["kind"]).lower()
    text = str(row["question"]).lower()
    return next((name for name, words in _CATEGORIES if re.search(words, text)), "other")


def summary(files: Files, settings: Settings) -> dict[str, Any]:
    """Everything that is counted, as JSON; what was not run is left out."""
    raw, questions = _rows(files.raw, "id", "text"), _rows(files.questions, "id", "question")
    rejected, answers = _rows(files.rejected, "id", "reason"), _rows(files.answers, "key")
    scored = _rows(files.scored, "id", "question")
    found: dict[str, Any] = {
        "images": {"with text": len(raw), "rejected": len(_rows(files.rejects, "id", "reason"))},
        "questions": {"parsed": len(questions), "rejected": len(rejected)},
        "rejected": dict(Counter(str(row["reason"]) for row in rejected).most_common()),
        "right letters": _letters_of(questions),
        "longest option is right": _longest(questions),
        "duplicates": _duplicates(questions),
        "categories": _categories(scored or questions),
    }
    if scored:
        verdicts = Counter(str(row["verdict"]) for row in scored)
        found["verdicts"] = {name: verdicts[name] for name in VERDICTS}
        found["thresholds"] = {"draws": settings.draws, "seen": settings.seen, "unseen": settings.unseen}
        for side, key in (("with image", True), ("without image", False)):
            asked = [row for row in answers if bool(row["with_image"]) is key]
            found[f"answers {side}"] = _answered(asked)
        found["right without image"] = _shares([row["without_image"] for row in scored])
        found["right with image"] = _shares([row["with_image"] for row in scored])
    return found


def write(files: Files, settings: Settings) -> None:
    """Write report.json and report.html, and print the table."""
    found = summary(files, settings)
    text = json.dumps(_finite(found), indent=1, ensure_ascii=False) + "\n"
    (files.folder / "report.json").write_text(text, encoding="utf-8")
    (files.folder / "report.html").write_text(
        page.render(files, found, _rows(files.scored, "id", "question")), encoding="utf-8", errors="replace"
    )
    Console().print(table(found))


def table(found: Mapping[str, Any]) -> Table:
    """The counts, for people."""
    made = Table("questions", "", show_edge=False)
    made.columns[1].justify = "right"
    made.add_row("images with text", f"{found['images']['with text']:,}")
    made.add_row("images without", f"{found['images']['rejected']:,}")
    made.add_row("questions read", f"{found['questions']['parsed']:,}")
    for reason, count in found["rejected"].items():
        made.add_row(f"  rejected: {REASONS.get(reason, reason)}", f"{count:,}")
    for name, count in found.get("verdicts", {}).items():
        made.add_row(f"  {name}: {VERDICTS[name]}", f"{count:,}")
    letters = found["right letters"]
    made.add_row("right letters", "  ".join(f"{k} {n}" for k, n in letters["counts"].items()))
    made.add_row("  by chance (chi-square)", _p(letters["p"]))
    made.add_row("the longest option is right", _share(found["longest option is right"]["share"]))
    made.add_row("  by chance", _share(found["longest option is right"]["expected"]))
    made.add_row("questions with the text of another image's", f"{found['duplicates']['across images']:,}")
    if "right without image" in found:
        made.add_row("right answers with the image", _share(found["right with image"]["share"]))
        made.add_row("right answers without the image", _share(found["right without image"]["share"]))
    return made


def _rows(path: Any, *keys: str) -> list[Row]:
    return list(GrowingRows(path, keys).existing) if path.exists() else []


def _letters_of(questions: Sequence[Row]) -> dict[str, Any]:
    """Letters of the right options as written, against as many of each."""
    counts = Counter(LETTERS[row["answer"]] for row in questions)
    return _against([len(row["options"]) for row in questions], counts)


def _against(sizes: Sequence[int], counts: Counter[str]) -> dict[str, Any]:
    expected: dict[str, float] = defaultdict(float)
    for size in sizes:
        for letter in LETTERS[:size]:
            expected[letter] += 1 / size
    test = chi_square(counts, expected)
    return {
        "counts": {letter: counts[letter] for letter in sorted(expected)},
        "expected": {letter: round(expected[letter], 2) for letter in sorted(expected)},
        "chi_square": test.statistic, "freedom": test.freedom, "p": test.p,
    }  # fmt: skip


def _answered(asked: Sequence[Row]) -> dict[str, Any]:
    """Letters that were chosen among shuffled options; a model without a habit chooses all alike."""
    offered = [_own(row) for row in asked]
    chosen = Counter(row["chosen"] for row, size in zip(asked, offered, strict=True) if _within(row, size))
    sizes = [size for row, size in zip(asked, offered, strict=True) if _within(row, size)]
    found = _against(sizes, chosen)
    unread = sum(row["chosen"] is None for row in asked)
    return {
        **found,
        "asked": len(asked),
        "none of the above": len(asked) - unread - len(sizes),
        "no option": unread,
    }


def _own(row: Row) -> int:
    """How many options are the question's own."""
    return len(row["options"]) - (
        bool(row["with_image"]) and str(row["options"][-1]).startswith("None of the above")
    )


def _within(row: Row, size: int) -> bool:
    return row["chosen"] is not None and row["chosen"] in LETTERS[:size]


def _longest(questions: Sequence[Row]) -> dict[str, float]:
    """How often the right option is longer than all others, and how often it would be by chance."""
    hits, chance = 0, 0.0
    for row in questions:
        lengths = sorted(len(option) for option in row["options"])
        if lengths[-1] > lengths[-2]:
            hits += len(row["options"][row["answer"]]) == lengths[-1]
            chance += 1 / len(lengths)
    total = len(questions) or math.nan
    return {"share": hits / total, "expected": chance / total}


def _duplicates(questions: Sequence[Row]) -> dict[str, Any]:
    images: dict[str, Counter[str]] = defaultdict(Counter)
    for row in questions:
        images[same_text(row["question"])][row["id"]] += 1
    shared = {text: len(where) for text, where in images.items() if len(where) > 1}
    top = sorted(shared.items(), key=lambda pair: (-pair[1], pair[0]))[:_TOP]
    return {
        "within an image": sum(count - 1 for where in images.values() for count in where.values()),
        "across images": sum(sum(images[text].values()) for text in shared),
        "most frequent": [{"question": text, "images": count} for text, count in top],
    }


def _categories(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, _ in Counter(map(category, rows)).most_common():
        mine = [row for row in rows if category(row) == name]
        found[name] = {"questions": len(mine)}
        if "verdict" in mine[0]:
            found[name]["kept"] = sum(row["verdict"] == "kept" for row in mine)
    return found


def _shares(pairs: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Right answers of all, and how many questions had 0, 1, ... right."""
    answered = sum(pair[1] for pair in pairs)
    counts = Counter(pair[0] for pair in pairs if pair[1])
    return {
        "share": sum(pair[0] for pair in pairs) / answered if answered else math.nan,
        "questions by right answers": {str(k): counts[k] for k in range(max(counts, default=0) + 1)},
    }


def _finite(value: Any) -> Any:
    """NaN as null, which JSON has."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _p(p: float) -> str:
    return "too few to say" if math.isnan(p) else f"p = {p:.2g}"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"
