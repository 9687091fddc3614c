"""What is asked about each image: one text, or a template with the columns of its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from string import Formatter

from limner.bulk.media import ROW
from limner.errors import Reject, UserError
from limner.types import Sample

MAX_VALUE = 10_000
"""Most characters of a column that are put into a prompt."""


@dataclass(frozen=True)
class Prompt:
    """A prompt with {names} of columns in it."""

    template: str | None = None
    """The text; {column} stands for a column of the item's row, {id} for its id, {name} for the last part of
    that without suffix, {folder} for the part before the last, and {{ for a brace. None asks what
    the row has in its column `prompt`, or else as the captioner does."""

    def __post_init__(self) -> None:
        """Look at the names.

        Raises:
            UserError: a brace stands for nothing.
        """
        _ = self.names

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that it names."""
        try:
            parts = list(Formatter().parse(self.template or ""))
        except ValueError as error:
            raise UserError(f"--prompt: {error}; write {{{{ and }}}} for braces") from error
        names = tuple(name for _, name, _, _ in parts if name is not None)
        for name, (_, _, form, change) in zip(names, (p for p in parts if p[1] is not None), strict=True):
            if not name.replace("_", "").replace("-", "").replace(" ", "").isalnum() or form or change:
                raise UserError(
                    f"--prompt: {{{name}}} is no column's name; write {{{{ and }}}} for braces that are text"
                )
        return names

    def of(self, sample: Sample) -> str | Reject | None:
        """The prompt of a sample; a Reject where its row lacks a column."""
        if self.template is None:
            own = sample.extra.get("prompt")
            return own if isinstance(own, str) and own else None
        if not ("{" in self.template or "}" in self.template):
            return self.template
        row = sample.extra.get(ROW)
        path = PurePosixPath(sample.id)
        known: dict[str, object] = {"id": sample.id, "name": path.stem, "folder": path.parent.name}
        known |= dict(row) if isinstance(row, Mapping) else {}
        parts: list[str] = []
        for text, name, _, _ in Formatter().parse(self.template):
            parts.append(text)
            if name is not None:
                value = known.get(name)
                if value is None or value == "":
                    return Reject(f"nothing in the column {name!r}, which the prompt names")
                if isinstance(value, Sequence) and not isinstance(value, str):
                    value = ", ".join(map(str, value))
                parts.append(str(value)[:MAX_VALUE])
        return "".join(parts)
