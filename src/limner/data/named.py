"""From what a person types on the command line to a data source."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from limner import component, paths
from limner.config_build import Builder, Component
from limner.config_read import put
from limner.data.base import Source
from limner.errors import UserError

_SETTINGS = "kind="


def source(path: str) -> Source:
    """The source that a path or settings mean.

    Args:
        path: a folder, an image file, a .jsonl file, `world:SPLIT` for scenes of the miniature world, or
            settings as in a recipe: `kind=msrvtt path=msrvtt/ split=test frames=8`.

    Returns:
        The source; settings that are not given have their defaults. Whether there is anything in it shows
        when its ids are asked for.

    Raises:
        UserError: the settings are not those of a data source.
    """
    if path.startswith(_SETTINGS):
        return built(shlex.split(path))
    settings = paths.source(path)
    return component.find("data", settings.pop("kind"))(**settings)


@dataclass(frozen=True)
class _Recipe:
    data: Annotated[Source, Component("data")]


def built(settings: Sequence[str]) -> Source:
    """The source of these settings.

    Args:
        settings: `kind=msrvtt`, `path=msrvtt/`, ... as after `data.` in a recipe's overrides.

    Raises:
        UserError: everything that is wrong with them, one line each.
    """
    tree, origins, typed = put({}, {}, [f"data.{setting}" for setting in settings])
    builder = Builder(origins, typed, complete=True)
    recipe = builder.build(_Recipe, tree)
    if builder.errors:
        raise UserError("\n".join([f"{' '.join(settings)}: {len(builder.errors)} to mend:", *builder.errors]))
    return recipe.data
