"""From the name in a recipe to the class in a file: the file's stem is the name, nothing is registered.

`itm` in `rewards:` is the class `Reward` of `limner/rewards/itm.py`; other people's code is named
`my_module:MyReward`. Only the named module is imported; listings read the files without importing them.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from limner.errors import UserError

CLASSES = {
    "captioners": "Captioner",
    "rewards": "Reward",
    "advantages": "Advantage",
    "objectives": "Objective",
    "data": "Source",
}
"""The packages that hold components, and the one public class of each of their files."""


def find(group: str, kind: str) -> type:
    """The class a recipe names.

    Args:
        group: One of `CLASSES`.
        kind: A file's stem, or `module:Class` for code outside this package (the current folder is
            searched last).

    Returns:
        A frozen dataclass whose fields are the component's settings.

    Raises:
        UserError: Nothing has this name, or what has it is no dataclass.
    """
    if ":" in kind:
        return _outside(kind)
    file = Path(__file__).parent / group / f"{kind}.py"
    # only this file is read: parsing all of a group took most of the time in which a recipe loads
    if group not in CLASSES or not kind.isidentifier() or not file.is_file() or _said(file, group) is None:
        known = available(group)
        raise UserError(f"{did_you_mean(kind, known)}; {group} on disk: {', '.join(known) or 'none'}")
    return getattr(importlib.import_module(f"limner.{group}.{kind}"), CLASSES[group])


def available(group: str) -> dict[str, str]:
    """Every component of a group on disk, with the first line of its class's docstring; imports nothing.

    Raises:
        UserError: No such group.
    """
    if group not in CLASSES:
        raise UserError(f"{did_you_mean(group, CLASSES)}; groups: {', '.join(CLASSES)}")
    found: dict[str, str] = {}
    for path in sorted((Path(__file__).parent / group).glob("*.py")):
        said = _said(path, group)
        if said is not None:
            found[path.stem] = said
    return found


def _said(path: Path, group: str) -> str | None:
    """First line of the docstring of a file's component; None where it has none."""
    if path.stem == "base":
        return None
    for node in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(node, ast.ClassDef) and node.name == CLASSES[group]:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence about an unknown name, with the likeliest meant."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"there is no {name!r}" + (f", did you mean {near[0]!r}?" if near else "")


def _outside(kind: str) -> type:
    module_name, _, class_name = kind.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(
                f"{kind}: the module {module_name} needs {error.name}, which is not installed"
            ) from error
        raise UserError(
            f"{kind}: there is no module {module_name} here or among the installed packages"
        ) from error
    found = vars(module).get(class_name)
    if not isinstance(found, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise UserError(f"{kind}: in {module_name} {did_you_mean(class_name, classes)}")
    if not dataclasses.is_dataclass(found):
        raise UserError(f"{kind}: must be a frozen dataclass whose fields are its settings")
    return found
