"""What is on the page: settings only, no torch and no Gradio."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PATH = "/page"
"""Where the page is on the server."""
WORLD_RECIPE = "tiny/vlrm"
"""Whose rewards are shown for a captioner of the miniature world where none are named."""


@dataclass(frozen=True)
class Page:
    """What the page shows beside the served captioner's captions."""

    compare: str | None = None
    """A second captioner, loaded beside the first, whose captions stand beside its own."""
    rewards: str | None = None
    """A recipe or a run whose rewards are shown; None takes those of the served run, or of the miniature
    world, and "none" shows none."""
    gallery: str = "world:test"
    """Pictures or videos to choose from: what `limner.data.named.source` reads."""
    runs: Path | None = None
    """A folder of runs, for the tab that follows them; None has no such tab."""
