"""The tables of docs/configuration.md, from the dataclasses; run as a program it rewrites the page."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import TypeAdapter

from limner import component
from limner.config import Recipe
from limner.config_build import Component

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
MARK = "<!-- From here on written by tests/configuration_docs.py -->\n"
SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


def page() -> str:
    """The whole page: what a person wrote above the mark, the tables below it."""
    written = PAGE.read_text(encoding="utf8").partition(MARK)[0]
    return written + MARK + "\n".join(tables()) + "\n"


def tables() -> Iterator[str]:
    """Every section of a recipe, then every component."""
    yield "\n## Sections\n"
    yield from rows(Recipe, "")
    for field in settings_of(Recipe):
        section = sections(Recipe).get(field.name)
        if section is not None:
            yield f"\n### {field.name}\n\n{first_line(section)}\n"
            yield from rows(section, f"{field.name}.", default_of(field))
    for group, name in component.CLASSES.items():
        yield f"\n## Components: {group}\n"
        for kind in component.available(group):
            cls = component.find(group, kind)
            yield f"\n### {group}: {kind}\n\n{first_line(cls)}\n"
            assert cls.__name__ == name
            yield from rows(cls, "")


def settings_of(cls: type) -> list[dataclasses.Field[Any]]:
    """The fields that a recipe can give."""
    return [field for field in dataclasses.fields(cls) if field.init and field.metadata.get("section", True)]


def sections(cls: type) -> dict[str, type]:
    """Fields that are sections of settings themselves."""
    hints = get_type_hints(cls, include_extras=True)
    found = {
        name: next((h for h in (hint, *get_args(hint)) if dataclasses.is_dataclass(h)), None)
        for name, hint in hints.items()
    }
    return {name: hint for name, hint in found.items() if isinstance(hint, type)}


def rows(cls: type, prefix: str, base: Any = None) -> Iterator[str]:
    """A table of the settings of a dataclass, those of sections inside it after it."""
    base = base if dataclasses.is_dataclass(base) else None
    fields = settings_of(cls)
    if not fields:
        yield "No settings."
        return
    hints, meanings, below = get_type_hints(cls, include_extras=True), docs(cls), sections(cls)
    yield "| setting | type | default | meaning |\n|---|---|---|---|"
    for field in fields:
        default = getattr(base, field.name) if base is not None else default_of(field)
        assert meanings.get(field.name), (
            f"{cls.__module__}.{cls.__name__}.{field.name} has no sentence under it"
        )
        cells = (f"`{prefix}{field.name}`", kind_of(hints[field.name]), shown(default), meanings[field.name])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    for name, section in below.items():
        if prefix or cls is not Recipe:
            yield f"\n`{prefix}{name}`: {first_line(section)}\n"
            yield from rows(
                section, f"{prefix}{name}.", next(default_of(f) for f in fields if f.name == name)
            )


def docs(cls: type) -> dict[str, str]:
    """The sentence under each field, inherited ones too."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[node.target.id] = " ".join(str(after.value.value).split())
    return found


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field; MISSING where it must be given."""
    return field.default_factory() if callable(field.default_factory) else field.default


def shown(default: Any) -> str:
    """A default as one writes it in a recipe."""
    if default is dataclasses.MISSING:
        return "must be given"
    if dataclasses.is_dataclass(default):
        return "its own defaults"
    return f"`{json.dumps(TypeAdapter(Any).dump_python(default, mode='json'))}`"


def kind_of(hint: Any) -> str:
    """The type of a setting in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        if any(isinstance(mark, Component) for mark in args[1:]):
            return "component of " + next(mark.group for mark in args[1:] if isinstance(mark, Component))
        limits = [f"{SIGNS[type(mark)]} {limit(mark)}" for mark in args[1:] if type(mark) in SIGNS]
        return " ".join([kind_of(args[0]), " and ".join(limits)]).strip()
    if origin in (Union, types.UnionType):
        return " or ".join(kind_of(arg) for arg in args)
    if origin is Literal:
        return " or ".join(f"`{arg}`" for arg in args)
    if origin is tuple:
        return f"list of {kind_of(args[0])}"
    if origin is not None:
        return f"mapping to {kind_of(args[1])}"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
    names[Any] = "anything"
    return "section" if dataclasses.is_dataclass(hint) else names[hint]


def limit(mark: Any) -> float:
    """The number of a limit."""
    return next(getattr(mark, name) for name in ("ge", "gt", "le", "lt") if hasattr(mark, name))


def first_line(cls: type) -> str:
    """What a class says of itself."""
    return (cls.__doc__ or "").partition("\n")[0]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf8")
