"""What the scripts that run recipes of the miniature world share: finished runs, and cells of tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from limner import compare


def parser(doc: str | None, *whats: str) -> argparse.ArgumentParser:
    """Arguments that all of the scripts take: what to do, where results are, and threads."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("what", choices=whats)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    return made


def once(out: Path, name: str, run: Callable[[], Mapping[str, object]]) -> None:
    """Run what has no row yet, and write its row: a killed call goes on where it was."""
    row = out / f"{name}.json"
    if not row.exists():
        row.write_text(json.dumps(run(), indent=1))


def finished(out: Path) -> list[dict[str, Any]]:
    """The rows of all finished runs."""
    return [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]


def compared(folder: Path) -> dict[str, Any]:
    """The test samples before a run and after it, paired; see `by_measure`."""
    return compare.compare(
        folder / "evaluation" / "before.json", folder / "evaluation" / "after.json"
    ).plain()


def by_measure(both: Mapping[str, Any]) -> dict[str, Any]:
    """Differences of `compared` by the measure's name."""
    return {row["measure"]: row for row in both["differences"]}


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def arrow(row: Mapping[str, Any], scale: float = 1, digits: int = 1) -> str:
    """Before and after."""
    return f"{scale * row['a']:.{digits}f} -> {scale * row['b']:.{digits}f}"


def interval(change: Mapping[str, float], scale: float = 100, digits: int = 1) -> str:
    """A change with its interval, by default in points."""
    value, low, high = (scale * change[key] for key in ("value", "low", "high"))
    return f"{value:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
