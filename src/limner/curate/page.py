"""The contamination report as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from limner.curate.filter import VERDICTS
from limner.curate.parse import REASONS
from limner.curate.settings import Files
from limner.data.media import open_image
from limner.errors import Reject
from limner.questions import LETTERS

EXAMPLES = 4
"""Questions of each verdict that are shown."""
_SIDE = 320


@dataclass(frozen=True)
class Bar:
    """One bar of a chart."""

    name: str
    """What it counts."""
    text: str
    """Its number."""
    width: float
    """Its length in per cent."""
    mark: float | None = None
    """Where chance would end, in per cent."""


@dataclass(frozen=True)
class Example:
    """A question with its picture."""

    picture: str
    """As a data: address; empty where it does not open."""
    question: str
    """Its text."""
    options: Sequence[tuple[str, str, bool]]
    """(letter, text, whether it is right)."""
    said: str
    """How it was answered."""
    id: str
    """Of the image."""


def render(files: Files, found: Mapping[str, Any], scored: Sequence[Mapping[str, Any]]) -> str:
    """The page; it loads nothing from anywhere.

    Args:
        files: where the pictures are.
        found: what `limner.curate.report.summary` counted.
        scored: rows of scored.jsonl.
    """
    letters = {
        "Right options as written": found["right letters"],
        "Answers with the image": found.get("answers with image"),
        "Answers without the image": found.get("answers without image"),
    }
    environment = Environment(
        loader=PackageLoader("limner.curate", "template"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    style = PackageLoader("limner.report", "page").get_source(environment, "style.css")[0]
    by_verdict = {name: [row for row in scored if row["verdict"] == name] for name in VERDICTS}
    return environment.get_template("page.html.jinja").render(
        style=Markup(style),
        name=files.folder.resolve().name,
        found=found,
        verdicts=bars(found.get("verdicts", {}), VERDICTS),
        rejected=bars(found["rejected"], REASONS),
        letters={title: (_letters(one), _sentence(one)) for title, one in letters.items() if one},
        right={
            title: bars({f"{k} right": n for k, n in found[key]["questions by right answers"].items()}, {})
            for title, key in (("With the image", "right with image"), ("Without it", "right without image"))
            if key in found
        },
        categories=bars(
            {name: one["questions"] for name, one in found["categories"].items()}, {}, found["categories"]
        ),
        examples={
            f"{name}: {VERDICTS[name]}": [_example(files, row) for row in rows[:EXAMPLES]]
            for name, rows in by_verdict.items()
            if rows
        },
    )


def bars(
    counts: Mapping[str, int], names: Mapping[str, str], kept: Mapping[str, Mapping[str, int]] | None = None
) -> list[Bar]:
    """Bars as long as their counts."""
    most = max(counts.values(), default=0) or 1
    return [
        Bar(
            f"{key}: {names[key]}" if key in names and names[key] != key else key,
            f"{count:,}" + (f", {kept[key]['kept']:,} kept" if kept and "kept" in kept[key] else ""),
            round(100 * count / most, 1),
        )
        for key, count in counts.items()
    ]


def _letters(found: Mapping[str, Any]) -> list[Bar]:
    most = max([*found["counts"].values(), *found["expected"].values()], default=0) or 1
    return [
        Bar(letter, f"{count:,}, by chance {found['expected'][letter]:,.0f}", round(100 * count / most, 1),
            round(100 * found["expected"][letter] / most, 1))
        for letter, count in found["counts"].items()
    ]  # fmt: skip


def _sentence(found: Mapping[str, Any]) -> str:
    p = found["p"]
    said = (
        "Too few to test."
        if p != p
        else f"As uneven by chance in {p:.2g} of cases (chi-square {found['chi_square']:.1f}, "
        f"{found['freedom']} degrees of freedom)."
    )
    if "asked" in found:
        said += f" Of {found['asked']:,} replies {found['none of the above']:,} chose none of the above"
        said += f" and {found['no option']:,} named no option."
    return said


def _example(files: Files, row: Mapping[str, Any]) -> Example:
    seen, unseen = row["with_image"], row["without_image"]
    options = [(LETTERS[n], text, n == row["answer"]) for n, text in enumerate(row["options"])]
    said = f"right {seen[0]} of {seen[1]} times with the image, {unseen[0]} of {unseen[1]} without"
    return Example(_picture(files, str(row["image"])), row["question"], options, said, row["id"])


def _picture(files: Files, path: str) -> str:
    try:
        image = open_image(files.folder / path, max_side=_SIDE)
    except Reject:
        return ""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
