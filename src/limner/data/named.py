"""From what a person types on the command line to a data source."""

from pathlib import Path

from limner.data import folder, jsonl, world
from limner.data.base import Source
from limner.paths import WORLD


def source(text: str) -> Source:
    """The source that a path means.

    Args:
        text: a folder, an image file, a .jsonl file, or `world:SPLIT` for scenes of the miniature world.

    Returns:
        A source with default settings. Whether there is anything in it shows when its ids are asked for.
    """
    if text.startswith(WORLD):
        return world.Source(split=text.removeprefix(WORLD))
    if Path(text).suffix.lower() == ".jsonl" and not Path(text).expanduser().is_dir():
        return jsonl.Source(path=text)
    return folder.Source(path=text)
