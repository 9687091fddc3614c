"""The sets that Prism asks: which scorer each takes, and how their files are named on the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from limner.component import did_you_mean
from limner.errors import UserError
from limner.paths import WORLD


@dataclass(frozen=True)
class Kind:
    """How one set is asked and scored. Holds nothing of its questions."""

    title: str
    """As tables name it."""
    scorer: Literal["choice", "math", "relaxed", "anls", "exact"]
    """Scorer of its questions without options; multiple-choice questions are scored by their letter."""
    published: Literal["math", "chart", "info"] = "math"
    """Rules of the published code for it."""
    letters: int = 0
    """Options of a question whose options stand in the image, not in its text."""


KINDS: Mapping[str, Kind] = {
    "chartqa": Kind("ChartQA", "relaxed", "chart"),
    "chartqapro": Kind("ChartQAPro", "relaxed", "chart"),
    "infovqa": Kind("InfoVQA", "anls", "info"),
    "mmmu_pro": Kind("MMMU-Pro", "math"),
    "mathverse": Kind("MathVerse", "math"),
    "charxiv": Kind("CharXiv", "relaxed", "chart"),
    "wemath": Kind("WeMath", "choice"),
    "mathvision": Kind("MathVision", "math"),
    "mmstar": Kind("MMStar", "choice"),
    "seed2k": Kind("SEED-2k", "choice"),
    "mmmu": Kind("MMMU", "math"),
    "visulogic": Kind("VisuLogic", "choice", letters=4),
    "choice": Kind("multiple choice", "choice"),
    "math": Kind("mathematics", "math"),
    "chart": Kind("charts", "relaxed", "chart"),
    "anls": Kind("ANLS", "anls", "info"),
    "exact": Kind("exact match", "exact"),
    "questions": Kind("questions of the data", "choice"),
}
"""The twelve published sets in the order of the published table, then the scorers for any other set."""

_BY_FILE = {
    "chartqapro": "chartqapro", "chartqa": "chartqa", "infovqa": "infovqa", "infographicvqa": "infovqa",
    "mmmupro": "mmmu_pro", "mmmu": "mmmu", "mathverse": "mathverse", "charxiv": "charxiv", "wemath": "wemath",
    "mathvision": "mathvision", "mathv": "mathvision", "mmstar": "mmstar", "seed": "seed2k",
    "visu": "visulogic",
}  # fmt: skip
"""What a file's name says of its kind, without case and marks: the first that it holds."""


@dataclass(frozen=True)
class Named:
    """One --set of the command line."""

    name: str
    """Of the set, in tables and files: the kind, with the file's name where two have the same kind."""
    path: str
    """The file, or the data whose questions are asked."""
    kind: str
    """Name in `KINDS`."""

    @property
    def rules(self) -> Kind:
        """How it is scored."""
        return KINDS[self.kind]


def named(given: list[str]) -> tuple[Named, ...]:
    """What `--set FILE[:kind] ...` means.

    Raises:
        UserError: there is none, a kind is unknown or cannot be told from a file's name, or one comes twice.
    """
    if not given:
        raise UserError("give --set FILE[:kind], the questions to ask; it may be repeated")
    found = [_path_and_kind(text) for text in given]
    kinds = [kind for _, kind in found]
    names = [kind if kinds.count(kind) == 1 else f"{kind}-{Path(path).stem}" for path, kind in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--set: {name} is given twice")
    return tuple(Named(name, path, kind) for name, (path, kind) in zip(names, found, strict=True))


def _path_and_kind(text: str) -> tuple[str, str]:
    path, mark, kind = text.rpartition(":")
    if mark and path != WORLD.removesuffix(":") and not Path(text).exists():
        kind = kind.lower().replace("-", "_")
        if kind not in KINDS:
            raise UserError(f"--set {text}: {did_you_mean(kind, KINDS)}; kinds of sets: {', '.join(KINDS)}")
        return path, kind
    if text.startswith(WORLD):
        return text, "questions"
    plain = re.sub(r"[^a-z0-9]", "", Path(text).stem.lower())
    for part, kind in _BY_FILE.items():
        if part in plain:
            return text, kind
    raise UserError(f"--set {text}: its name says no kind: write {text}:KIND, one of {', '.join(KINDS)}")
