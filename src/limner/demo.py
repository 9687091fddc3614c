"""The demonstration: recipes/tiny/vlrm.yaml from nothing to a report, with what it found in a few lines."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from limner import compare, config
from limner.paths import is_run
from limner.train import train


def demo(out: Path) -> Path:
    """Train the miniature captioner, measure it before and after, write the report.

    The scenes it is measured on are looked at for nothing else.

    Args:
        out: folder of the run; taken up where it stopped if it holds an unfinished run.

    Returns:
        The report.
    """
    console = Console()
    resume = out if is_run(out) else None
    if resume is None:
        recipe = config.load("tiny/vlrm", [f"run.output={out.parent}", f"run.name={out.name}"])
    else:
        recipe = config.load_resolved(out / "resolved.json")
    start = time.perf_counter()
    run = train(recipe, resume=resume)
    console.print(
        f"trained and measured in {(time.perf_counter() - start) / 60:.1f} minutes", highlight=False
    )
    console.print(
        compare.compare(run / "evaluation" / "before.json", run / "evaluation" / "after.json").table()
    )
    console.print(f"report: {(run / 'report.html').resolve()}", highlight=False, soft_wrap=True)
    return run / "report.html"
