"""From what a person types on the command line to a source of images and videos."""

from __future__ import annotations

import os

from limner import paths
from limner.bulk import files, remote, rows, shards, tables
from limner.data import named
from limner.data.base import Source
from limner.errors import UserError

_TABLES = (".jsonl", ".csv", ".tsv", ".parquet")


def source(path: str, *, image: str | None = None) -> Source:
    """The source that a path, an address, a pattern or settings mean.

    Args:
        path: a folder, an image or video, a pattern of such files, a .jsonl, .csv, .tsv or .parquet file, a
            data set of `datasets` on disk, shards of WebDataset (a .tar, a folder of them, a pattern or
            range), `world:SPLIT`, or settings as in a recipe: `kind=msrvtt path=msrvtt/ frames=8`.
        image: the column with the image, for tables.

    Raises:
        UserError: the settings are not those of a data source, or a column is named where there is none.
    """
    made = _source(path, image)
    if image is not None and not isinstance(made, rows.Source):
        raise UserError(f"{path}: is no table, so it has no column {image!r}; leave --image out")
    return made


def _source(path: str, image: str | None) -> Source:
    if path.startswith((paths.WORLD, "kind=")):
        return named.source(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _TABLES or tables.is_data_set(path):
        return rows.Source(path, image=image)
    if suffix == ".tar" or shards.is_folder(path):
        return shards.Source(path)
    if remote.is_address(path) or files.is_pattern(path):
        return files.Source(path)
    if os.path.isdir(os.path.expanduser(path)) and paths.source(path)["kind"] == "folder":
        return files.Source(path)  # images and videos together
    return named.source(path)
