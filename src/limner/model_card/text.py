"""Text that goes into a card: nothing of this machine, and no markup but the card's own."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LONGEST = 600
"""Characters of a caption that are shown."""
ENDPOINT = "(an endpoint)"
"""Stands for an address that the run asked."""
_MARKUP = re.compile(r"([\\`*_\[\]|~$])")


def plain(text: str) -> str:
    """A text in one line of Markdown, or in a cell of a table, as it is; a long one is cut."""
    line = " ".join(text.split())
    if len(line) > LONGEST:
        line = line[:LONGEST].rstrip() + " …"
    return _MARKUP.sub(r"\\\1", html.escape(line, quote=False))


def fenced(text: str, language: str) -> str:
    """A block of code, whatever is in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def public(value: Any, key: str = "") -> Any:
    """A setting as it may be published: a path outside the current folder by its last part, no address.

    Args:
        value: a value of a recipe, as JSON.
        key: its name.
    """
    if isinstance(value, Mapping):
        return {inner: public(one, str(inner)) for inner, one in value.items()}
    if isinstance(value, list):
        return [public(one, key) for one in value]
    if not isinstance(value, str):
        return value
    if key == "base_url" or value.startswith(("http://", "https://")):
        return ENDPOINT
    path = Path(value)
    if "\n" not in value and (path.is_absolute() or path.parts[:1] in (("..",), ("~",))):
        return path.name or "..."
    return value
