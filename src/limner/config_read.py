"""Reads a recipe's text: YAML, overrides on top, and for every value where it was written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from limner import paths
from limner.errors import UserError

Tree = dict[str, Any]
"""Nested mappings with values at the leaves."""
COMMAND_LINE = "command line"
MISSING = "???"
"""Stands in a recipe for a value that every run must give."""
_TOLD = ("data", "evaluate.data", "evaluate.test")
"""Sections whose path tells their kind."""


@dataclass(frozen=True)
class Given:
    """What was given, before it is checked."""

    path: str = ""
    """The recipe's file."""
    text: str = ""
    """Its text."""
    overrides: tuple[str, ...] = ()
    """What the command line puts on top."""
    tree: Tree = field(default_factory=Tree)
    """Both together."""
    origins: Mapping[str, str] = field(default_factory=dict[str, str])
    """Where each node of the tree was written, by dotted path."""
    typed: Mapping[str, str] = field(default_factory=dict[str, str])
    """Values of overrides as they were typed, by dotted path: text stays text where text is wanted."""


def read(path: Path, overrides: Sequence[str]) -> Given:
    """Read a recipe's file and put overrides on top.

    Raises:
        UserError: The file is not UTF-8 YAML with sections, or an override is not `section.setting=value`.
    """
    shown = _shown(path)
    try:
        text = path.read_text(encoding="utf8")
        # In a YAML flow mapping a bare ??? is a syntax error; recipes write {path: ???}.
        quoted = re.sub(r":\s\?\?\?(?=\s*[,}])", ": '???'", text)
        config = OmegaConf.create(quoted)
        root = cast(yaml.Node, yaml.compose(quoted, Loader=yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
    except UnicodeDecodeError as error:
        raise UserError(f"{shown}: is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise UserError(f"{shown}: is not YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{shown}: must be a mapping of sections: captioner, data, rewards, ...")
    tree = cast(Tree, OmegaConf.to_container(config))
    origins = {key: f"{shown}:{line}" for key, line in _lines(root, "")}
    tree, origins, typed = put(tree, origins, overrides)
    try:
        tree = cast(Tree, OmegaConf.to_container(OmegaConf.create(tree), resolve=True))
    except OmegaConfBaseException as error:
        raise UserError(f"{shown}: {error}") from error
    for where in _TOLD:
        _tell_kind(tree, where, origins)
    return Given(shown, text, tuple(overrides), tree, origins, typed)


def put(
    tree: Tree, origins: Mapping[str, str], overrides: Sequence[str]
) -> tuple[Tree, dict[str, str], dict[str, str]]:
    """Put overrides on a tree, in place.

    Returns:
        The tree, the origins with the overrides' own, and the values of the overrides as they were typed.

    Raises:
        UserError: An override is not `section.setting=value`, or its section is a plain value.
    """
    origins, typed = dict(origins), dict[str, str]()
    # A kind comes first: it drops the settings of the kind before.
    for key, value in sorted(map(_parse, overrides), key=lambda item: not item[0].endswith(".kind")):
        _put(tree, key, _parse_value(value))
        origins = {k: o for k, o in origins.items() if not f"{k}.".startswith(f"{key}.")} | {
            key: COMMAND_LINE
        }
        typed[key] = value
    return tree, origins, typed


def origin(origins: Mapping[str, str], path: str) -> str:
    """Where a given value was written: at its own path, or at the section it came with."""
    while path and path not in origins:
        path = path.rpartition(".")[0]
    return origins.get(path, "default")


def nested(flat: Mapping[str, Any]) -> Tree:
    """The tree of values given by dotted path."""
    tree: Tree = {}
    for key, value in flat.items():
        _put(tree, key, value)
    return tree


def _shown(path: Path) -> str:
    """Shipped recipes by their place among the recipes, other files as they were named."""
    shipped = paths.recipes()
    return f"recipes/{path.relative_to(shipped).as_posix()}" if path.is_relative_to(shipped) else str(path)


def _tell_kind(tree: Tree, where: str, origins: dict[str, str]) -> None:
    """Add the kind that a data section's path means, where the recipe names none."""
    section: Any = tree
    for key in where.split("."):
        section = cast(Tree, section).get(key) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        return
    settings = cast(Tree, section)
    if "kind" not in settings and isinstance(settings.get("path"), str):
        told = paths.source(settings.pop("path"))
        settings.update(told)
        origins.update({f"{where}.{key}": origin(origins, f"{where}.path") for key in told})


def _lines(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, int]]:
    pairs = cast(list[tuple[yaml.ScalarNode, yaml.Node]], node.value)
    for key_node, value_node in pairs:
        key = f"{prefix}{key_node.value}"
        yield key, value_node.start_mark.line + 1
        if isinstance(value_node, yaml.MappingNode):
            yield from _lines(value_node, f"{key}.")


def _parse(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"{override}: write overrides as section.setting=value, for example update.lr=1e-4")
    return key, value


def _parse_value(text: str) -> Any:
    try:
        return cast(Tree, OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"])))["value"]
    except yaml.YAMLError:  # *.png and @home are no YAML but fine as text
        return text


def _put(tree: Tree, key: str, value: Any) -> None:
    """Set a value by dotted path; another `kind` drops the settings of the kind before."""
    *sections, last = key.split(".")
    node = tree
    for section in sections:
        below = node.get(section)
        if below is None:
            below = node[section] = Tree()
        if not isinstance(below, dict):
            raise UserError(f"{key}: {section} is {below!r}, it has no settings")
        node = cast(Tree, below)
    if last == "kind" and _kind(node, sections) not in (None, value):
        node.clear()
    node[last] = value


def _kind(settings: Tree, sections: Sequence[str]) -> str | None:
    """The kind of a component: given, the reward's name, or what the path of data tells."""
    if settings.get("kind") or not sections:
        return settings.get("kind")
    if sections[0] == "rewards":
        return sections[-1]
    told = ".".join(sections) in _TOLD and isinstance(settings.get("path"), str)
    return paths.source(settings["path"])["kind"] if told else None
