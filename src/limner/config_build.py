"""From nested mappings to frozen dataclasses: strict, and all that is wrong at once."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from limner.component import available, did_you_mean, find
from limner.config_read import COMMAND_LINE, MISSING, origin
from limner.errors import UserError

_ABSENT: Any = object()
_JSON = TypeAdapter[Any](Any)


@dataclasses.dataclass(frozen=True)
class Component:
    """Marks a field that holds a component: `Annotated[Any, Component("rewards")]`."""

    group: str
    """One of `limner.component.CLASSES`."""


class Builder:
    """Builds one dataclass from a tree and gathers every error and every value on the way."""

    def __init__(self, given: Mapping[str, str], typed: Mapping[str, str], *, complete: bool):
        """Prepare to build.

        Args:
            given: Where values were written, by dotted path.
            typed: Values of the command line as they were typed, by dotted path.
            complete: Whether a missing value is an error; otherwise the component that misses it is None.
        """
        self.errors: list[str] = []
        """`path: value: what is wrong`, one a mistake."""
        self.settings: dict[str, Any] = {}
        """Every value as JSON by dotted path, defaults included."""
        self.origins: dict[str, str] = {}
        """Where each of them comes from."""
        self.missing: list[str] = []
        """Paths of the values that are `???`."""
        self._given = given
        self._typed = typed
        self._complete = complete

    def build(self, cls: type, tree: Mapping[str, Any], base: Any = None) -> Any:
        """An instance of `cls`; without meaning where `errors` is not empty afterwards.

        Args:
            cls: A dataclass.
            tree: Its settings.
            base: An instance that gives the settings which are absent, instead of the defaults.
        """
        return self._fields(cls, tree, "", base)

    def _fields(self, cls: type, tree: Mapping[str, Any], path: str, base: Any) -> Any:
        """The instance from its settings; what is absent comes from `base`, or else from the defaults."""
        fields = [f for f in dataclasses.fields(cls) if f.init and f.metadata.get("section", True)]
        hints = get_type_hints(cls, include_extras=True)
        names = [f.name for f in fields]
        for key in tree:
            if key not in names:
                self._error(
                    _join(path, key), tree[key], f"{did_you_mean(key, names)}; known here: {', '.join(names)}"
                )
        before = len(self.errors) + len(self.missing)
        values = {
            f.name: self._value(
                hints[f.name], tree.get(f.name, _ABSENT), _join(path, f.name), _default(f, base)
            )
            for f in fields
        }
        if path and len(self.errors) + len(self.missing) > before:
            return None
        try:
            return cls(**values)
        except (ValueError, UserError) as error:
            self.errors.append(f"{path}: {error}" if path else str(error))
            return None

    def _value(self, hint: Any, value: Any, path: str, default: Any) -> Any:
        inner, optional = _without_none(hint)
        section = dataclasses.is_dataclass(inner)
        if value is _ABSENT and default is _ABSENT and not section:
            return self._missing(path)
        if optional and (value is None or (value is _ABSENT and default is None)):
            return self._record(path, None, given=value is None)
        group = _group(inner)
        if group is not None:
            return self._component(group, value, path, None)
        if get_origin(inner) is not None and issubclass(_class(inner), Mapping):
            group = _group(get_args(inner)[1])
            if group is not None:
                return self._components(group, value, path)
        if section:
            tree = {} if value is _ABSENT else self._tree(value, path)
            base = default if dataclasses.is_dataclass(default) else None
            return None if tree is None else self._fields(cast(type, inner), tree, path, base)
        if value is _ABSENT:
            return self._record(path, default, given=False)
        return self._leaf(hint, value, path)

    def _components(self, group: str, value: Any, path: str) -> Any:
        tree = self._tree(value, path)
        if tree is None:
            return None
        built: dict[str, Any] = {}
        for name, settings in tree.items():
            where = _join(path, name)
            if "." in name:
                self._error(where, settings, "a name has no dots")
            elif settings is not None:
                built[name] = self._component(group, settings, where, name)
            elif origin(self._given, where) != COMMAND_LINE:
                self._error(
                    where, None, "write {} for default settings; only the command line removes with null"
                )
        if not built:
            self._record(path, {}, given=True)
        return built

    def _component(self, group: str, value: Any, path: str, default_kind: str | None) -> Any:
        tree = self._tree(value, path)
        if tree is None:
            return None
        kind = tree.get("kind", default_kind)
        where = _join(path, "kind")
        if kind in (None, MISSING):
            self._error(where, kind, f"missing: one of {', '.join(available(group))}, or module:Class")
            return None
        try:
            cls = find(group, str(kind))
        except UserError as error:
            self._error(where, kind, str(error))
            return None
        self._record(where, kind, given="kind" in tree)
        settings = {key: item for key, item in tree.items() if key != "kind"}
        return self._fields(cls, settings, path, None)

    def _leaf(self, hint: Any, value: Any, path: str) -> Any:
        if value == MISSING:
            return self._missing(path)
        adapter = TypeAdapter[Any](hint)
        try:
            # Strict JSON: no bool for an int, no text for a number; an int for a float, a list for a tuple.
            result = adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            typed = self._typed.get(path)
            if typed is None or value is None or not _accepts(adapter, typed):
                for detail in error.errors():
                    self._error(
                        _join(path, *map(str, detail["loc"])),
                        detail["input"],
                        _say(detail["msg"], hint, value),
                    )
                return None
            result = adapter.validate_python(typed, strict=True)
        return self._record(path, result, given=True)

    def _tree(self, value: Any, path: str) -> dict[str, Any] | None:
        if isinstance(value, dict):
            return {str(key): item for key, item in cast(dict[Any, Any], value).items()}
        self._error(path, value, "must be a mapping of settings")
        return None

    def _record(self, path: str, value: Any, *, given: bool) -> Any:
        self.settings[path] = _JSON.dump_python(value, mode="json")
        self.origins[path] = self._origin(path) if given else "default"
        return value

    def _origin(self, path: str) -> str:
        """Of the value, or of the first value in it: `watch.alarms.watch/words.max=9` gives a mapping."""
        within = (where for key, where in self._given.items() if f"{key}.".startswith(f"{path}."))
        return next(within, origin(self._given, path))

    def _missing(self, path: str) -> None:
        self.missing.append(path)
        self._record(path, MISSING, given=True)
        if self._complete:
            self.errors.append(f"{path}: missing: give it on the command line: {path}=...")

    def _error(self, path: str, value: Any, what: str) -> None:
        shown = json.dumps(value, default=str, ensure_ascii=False)
        self.errors.append(f"{path}: {shown if len(shown) <= 80 else shown[:77] + '...'}: {what}")


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _default(field: dataclasses.Field[Any], base: Any) -> Any:
    if base is not None:
        return getattr(base, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    return _ABSENT if field.default_factory is dataclasses.MISSING else field.default_factory()


def _without_none(hint: Any) -> tuple[Any, bool]:
    """The type beside None in `X | None`, and whether None is allowed; other types as they are."""
    if get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint):
        rest = [arg for arg in get_args(hint) if arg is not type(None)]
        return (rest[0] if len(rest) == 1 else hint), True
    return hint, False


def _group(hint: Any) -> str | None:
    if get_origin(hint) is not Annotated:
        return None
    return next((mark.group for mark in get_args(hint)[1:] if isinstance(mark, Component)), None)


def _class(hint: Any) -> type:
    """The class of a generic alias such as Mapping[str, float]; `object` where there is none."""
    origin = get_origin(hint)
    return origin if isinstance(origin, type) else object


def _accepts(adapter: TypeAdapter[Any], text: str) -> bool:
    try:
        adapter.validate_python(text, strict=True)
    except ValidationError:
        return False
    return True


def _say(message: str, hint: Any, value: Any) -> str:
    """What pydantic says, in our words and with the likeliest meant among fixed choices."""
    said = message.replace("Input should be", "must be")
    inner, _ = _without_none(hint)
    if get_origin(inner) is Literal and isinstance(value, str):
        return f"{said} ({did_you_mean(value, map(str, get_args(inner)))})"
    return f"{said}; put it in quotes" if said == "must be a valid string" and value is not None else said
