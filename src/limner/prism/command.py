"""What `limner evaluate prism` does: run both stages, print the table, write the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from limner.prism.result import PrismResult
from limner.prism.stages import prism
from limner.report import prism as prism_page
from limner.report import single


def run(sets: Sequence[str], **settings: Any) -> PrismResult:
    """Evaluate, print, and write.

    Args:
        sets: FILE[:kind] each.
        settings: those of `limner.prism.stages.prism`.

    Raises:
        UserError: something given cannot be used.
    """
    found = prism(sets, **settings)
    out = settings["where"].out
    single.write(prism_page.page(found), out / "prism.html")
    Console().print(found.result.table())
    Console(stderr=True).print(f"written to {out}", markup=False)
    return found.result
