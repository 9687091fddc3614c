"""Where things are that a recipe or a command names: models, recipes, data."""

from __future__ import annotations

import os
from pathlib import Path

from limner.component import did_you_mean
from limner.errors import UserError

WORLD = "world:"
"""A path with this prefix names a part of the miniature world: `world:captioner`, `world:test`."""
FOREIGN = "llamafactory"
"""A folder of this name among the recipes holds settings of another program."""
_CLIPS = "videos-"
"""A split of the miniature world with this prefix is one of its clips."""


def is_run(path: str | Path) -> bool:
    """Whether it is the folder of a run."""
    return (Path(path) / "resolved.json").is_file()


def resolve(path: str) -> str:
    """The folder of `world:captioner`, a model of the miniature world; other paths and hub names unchanged.

    Raises:
        UserError: The miniature world has no such model, or it has not been built.
    """
    if not path.startswith(WORLD):
        return path
    from limner.world import MODELS, weights

    name = path.removeprefix(WORLD)
    if name not in MODELS:
        raise UserError(
            f"{path}: {did_you_mean(name, MODELS)}; models of the miniature world: {', '.join(MODELS)}"
        )
    folder = weights(name)
    if not folder.is_dir():
        raise UserError(f"{path}: {folder} is missing; `limner world build` makes it")
    return str(folder)


def recipes() -> Path:
    """The folder of the shipped recipes: inside the installed package, or in the checkout beside `src`."""
    package = Path(__file__).parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parents[1] / "recipes"


def recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one with or without `recipes/` and `.yaml`.

    Raises:
        UserError: No such file and no such shipped recipe.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    stem = name.removeprefix("recipes/").removesuffix(".yaml")
    if stem not in shipped:
        raise UserError(
            f"{name}: no such file, and {did_you_mean(stem, shipped)}; "
            f"shipped recipes: {', '.join(sorted(shipped))}"
        )
    return recipes() / f"{stem}.yaml"


def shipped_recipes() -> dict[str, str]:
    """Every shipped recipe by name, with the first line of its header comment."""
    found: dict[str, str] = {}
    for file in sorted(recipes().rglob("*.yaml")):
        if FOREIGN in file.parts:
            continue
        with file.open(encoding="utf8") as lines:
            found[file.relative_to(recipes()).with_suffix("").as_posix()] = lines.readline().strip("# \n")
    return found


def source(path: str) -> dict[str, str]:
    """Kind and settings of the data source that a path means.

    Args:
        path: `world:SPLIT` for scenes of the miniature world, `world:videos-SPLIT` for its clips, a `.jsonl`
            file, a `.parquet` file (images with questions), an image or video file, or a folder. A folder is
            one of videos if it and the folders in it hold video files and no images (GIF and WebP files
            count as images here).
    """
    if path.startswith(WORLD):
        split = path.removeprefix(WORLD)
        clips = split.startswith(_CLIPS)
        return {"kind": "world_videos" if clips else "world", "split": split.removeprefix(_CLIPS)}
    found = Path(path).expanduser()
    if found.is_dir():
        return {"kind": "videos" if _holds_videos(found) else "folder", "path": path}
    if found.suffix.lower() in (".jsonl", ".parquet"):
        return {"kind": "jsonl" if found.suffix.lower() == ".jsonl" else "caption_qa", "path": path}
    return {"kind": "videos" if found.suffix.lower() in _video_suffixes() else "folder", "path": path}


def _holds_videos(folder: Path) -> bool:
    """Whether there are video files in a folder or below it, and no images."""
    from limner.data.media import SUFFIXES

    videos = False
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        suffixes = {os.path.splitext(name)[1].lower() for name in files if not name.startswith(".")}
        if not suffixes.isdisjoint(SUFFIXES):
            return False
        videos = videos or not suffixes.isdisjoint(_video_suffixes())
    return videos


def _video_suffixes() -> frozenset[str]:
    from limner.data import media, video

    return frozenset(video.SUFFIXES) - frozenset(media.SUFFIXES)
