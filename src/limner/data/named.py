"""From what a person types on the command line to a data source."""

from limner import component, paths
from limner.data.base import Source


def source(path: str) -> Source:
    """The source that a path means.

    Args:
        path: a folder, an image file, a .jsonl file, or `world:SPLIT` for scenes of the miniature world.

    Returns:
        A source with default settings. Whether there is anything in it shows when its ids are asked for.
    """
    settings = paths.source(path)
    return component.find("data", settings.pop("kind"))(**settings)
