"""Under which licence a trained model may be passed on: what its base model's card says, or what is given."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import RepoCard
from transformers.utils.hub import cached_file

from limner.paths import WORLD, resolve

FIELDS = ("license", "license_name", "license_link")
"""What Hugging Face's cards say of it."""
_HUB = re.compile(r"[\w.\-]+(/[\w.\-]+)?")


@dataclass(frozen=True)
class Licence:
    """The licence, and the base model as Hugging Face names it."""

    license: str | None
    """Hugging Face's short name; None where nobody said."""
    name: str | None
    """Name of a licence that has no short name."""
    link: str | None
    """Where its text is."""
    given: bool
    """Whether it was given at the export; otherwise the base model's card says it."""
    base: str | list[str] | None
    """Hub id of the base model; None where it has none that is known."""


def of(base: str, given: str | None) -> Licence:
    """The licence of what was trained from a base model.

    Args:
        base: `captioner.path`.
        given: the short name given at the export, which goes first.
    """
    local = base.startswith(WORLD) or Path(base).exists()
    said = _said(base)
    # a folder's own card may name the hub's model that it was made from
    hub = said.get("base_model") if local else base if _HUB.fullmatch(base) else None
    known = isinstance(hub, list) or (isinstance(hub, str) and _HUB.fullmatch(hub))
    own = {field: value for field in FIELDS if isinstance(value := said.get(field), str)}
    if given is not None:
        own = {"license": given}
    return Licence(*map(own.get, FIELDS), given=given is not None, base=hub if known else None)


def _said(base: str) -> dict[str, Any]:
    """What the front matter of the base model's card says; nothing where there is no card to be had."""
    found = cached_file(
        resolve(base), "README.md", _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False, _raise_exceptions_for_gated_repo=False,
    )  # fmt: skip
    if found is None:
        return {}
    try:
        return RepoCard(Path(found).read_text(encoding="utf8", errors="replace")).data.to_dict()
    except (ValueError, yaml.YAMLError):  # a card whose front matter is none
        return {}
