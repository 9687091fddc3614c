"""Sources whose items stand in annotation files, with their media found by name in folders."""

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from limner.data import base, video
from limner.data.annotations import Item, Wrong, file_name
from limner.errors import UserError
from limner.types import Sample

WithoutReferences = Literal["reject", "keep"]


@dataclass(frozen=True, kw_only=True)
class Listed(base.Source):
    """A source whose annotation files say what must be there, so that what is missing is known.

    Rows that cannot be used are items too: they are rejected, named by their place.
    """

    @abstractmethod
    def item(self, index: int) -> Item:
        """What the annotations say of an item.

        Raises:
            Reject: its row is wrong, or nobody captioned it.
        """

    @abstractmethod
    def look(self, index: int) -> tuple[Path, Item]:
        """Where an item's media are, and what is known about it. Opens no media.

        Raises:
            Reject: its row is wrong, nobody captioned it, or its media are not there.
        """

    def references(self, index: int) -> tuple[str, ...]:
        """All captions of an item, whether its media are there or not.

        Raises:
            Reject: its row is wrong, or nobody captioned it.
        """
        return tuple(self.item(index).references)

    @property
    @abstractmethod
    def folders(self) -> tuple[Path, ...]:
        """Where the media are.

        Raises:
            UserError: there is no such folder.
        """

    @abstractmethod
    def strays(self) -> Sequence[Path]:
        """Media in `folders` that no annotation file lists, for any split."""


@dataclass(frozen=True, kw_only=True)
class Gathered(Listed):
    """A source that keeps all of its annotations in memory."""

    @abstractmethod
    def listing(self) -> dict[str, Item]:
        """All items by id, in order; called once.

        Raises:
            UserError: a file is missing or is none of its kind.
        """

    @abstractmethod
    def file(self, id: str, item: Item) -> Path:
        """Where the media of an item are. Opens nothing.

        Raises:
            Reject: they are not there.
        """

    def item(self, index: int) -> Item:
        """What the annotations say of an item.

        Raises:
            Reject: its row is wrong, or nobody captioned it.
        """
        item = self._items[self._ids[index]]
        if item.wrong is not None:
            raise Wrong(item.wrong.kind, item.wrong.reason)
        return item

    def ids(self) -> Sequence[str]:
        """The ids of the authors; a row without one is named by its place.

        Raises:
            UserError: a file or folder is missing, a file is none of its kind, or nothing is listed.
        """
        return self._ids

    def look(self, index: int) -> tuple[Path, Item]:
        """Where an item's media are, and what is known about it. Opens no media.

        Raises:
            Reject: its row is wrong, nobody captioned it, or its media are not there.
        """
        item = self.item(index)
        return self.file(self._ids[index], item), item

    @cached_property
    def _items(self) -> dict[str, Item]:
        items = self.listing()
        if not items:
            raise UserError(f"{self}: lists nothing")
        assert self.folders  # a folder that is not there is said at once
        return items

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        return tuple(self._items)


@dataclass(frozen=True, kw_only=True)
class Videos(Listed, base.VideoSource):
    """Videos that annotation files list."""

    videos: str | None = None
    """Folder of the videos; null looks for the usual names beside the annotations."""
    without_references: WithoutReferences = "reject"
    """What becomes of a video that nobody captioned: `keep` captions it all the same."""

    def read(self, index: int) -> Sample:
        """A video, unopened, with all its references.

        Raises:
            Reject: its row is wrong, nobody captioned it, or it is not there.
        """
        path, item = self.look(index)
        return self.video(self.ids()[index], path, tuple(item.references), item.extra)

    def usual_folders(self) -> tuple[str, ...]:
        """Names that the folder of the videos has, beside the annotations or one folder up."""
        return ("videos",)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where the videos are.

        Raises:
            UserError: there is no such folder.
        """
        return self._folders

    @cached_property
    def _folders(self) -> tuple[Path, ...]:
        return media_folders(self.videos, Path(self.path).expanduser(), self.usual_folders())


@dataclass(frozen=True, kw_only=True)
class VideoList(Gathered, Videos):
    """Videos in a folder, named by their ids."""

    def file(self, id: str, item: Item) -> Path:
        """The video whose name without its suffix is the id."""
        return self._media.find(id)

    def strays(self) -> Sequence[Path]:
        """Videos whose id no annotation file lists, for any split."""
        known = self._items.keys() | set(self.other_ids())
        return [path for stem, path in self._media.found.items() if stem not in known]

    def other_ids(self) -> Iterable[str]:
        """Ids that are listed for other splits."""
        return ()

    @cached_property
    def _media(self) -> "MediaFiles":
        return MediaFiles(self.folders)


class MediaFiles:
    """The videos of some folders by their names without suffix; the folders below are not looked into."""

    def __init__(self, folders: tuple[Path, ...]):
        """Look what is there; where names differ in their suffix alone, the first known suffix counts.

        Raises:
            UserError: a folder cannot be read.
        """
        self.folders = folders
        self.found: dict[str, Path] = {}
        rank: dict[str, int] = {}
        for folder in folders:
            for entry in entries(folder):
                stem, suffix = os.path.splitext(entry.name)
                place = video.SUFFIXES.index(suffix.lower()) if suffix.lower() in video.SUFFIXES else -1
                if place < 0 and not entry.is_dir():
                    continue
                stem = entry.name if place < 0 else stem
                if stem not in self.found or place < rank[stem]:
                    self.found[stem], rank[stem] = Path(entry), place

    def find(self, stem: str) -> Path:
        """The file, or the folder of frames, of this name.

        Raises:
            Wrong: there is none.
        """
        if stem not in self.found:
            where = ", ".join(file_name(folder) for folder in self.folders)
            raise Wrong("missing", f"listed and not there: no video {stem} in {where}")
        return self.found[stem]


def entries(folder: Path) -> Sequence[os.DirEntry[str]]:
    """What is in a folder, hidden files left out, sorted.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            return sorted((e for e in found if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: folder cannot be read ({str(error.strerror).lower()})") from error


def media_folders(given: str | None, annotations: Path, usual: Sequence[str]) -> tuple[Path, ...]:
    """The folders with the media: the one that is given, or all of the usual ones beside the annotations.

    Raises:
        UserError: there is none.
    """
    if given is not None:
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise UserError(f"{given}: no such folder; data.videos names the folder of the videos")
        return (folder,)
    beside = annotations if annotations.is_dir() else annotations.parent
    for root in (beside, beside.parent):
        found = tuple(root / name for name in usual if (root / name).is_dir())
        if found:
            return found
    names = " or ".join(usual)
    raise UserError(f"{annotations}: no folder {names} beside it; data.videos names the folder of the videos")


def split_file(path: str, split: str | None, files: Mapping[str, Sequence[str]], *, what: str) -> Path:
    """The annotations of a split in a folder, or the file itself.

    Args:
        path: the folder or the file.
        split: names the files of a folder; None where `path` is a file.
        files: names of a split's file, the first that is there counts.
        what: the data set, for messages.

    Raises:
        UserError: a folder without a split, a file with one, or no such file.
    """
    folder = Path(path).expanduser().is_dir()
    if folder != (split is not None):
        raise UserError(
            f"data.split: {path} is "
            + (f"a folder: name one of {', '.join(files)}" if folder else "one file: leave split out")
        )
    return annotation_files(path, files[split] if split else (), what=what)[0]


def annotation_files(path: str, names: Sequence[str], *, what: str) -> list[Path]:
    """The annotation files that a path means: itself, or those of the usual names in the folder.

    Args:
        path: a file or a folder.
        names: names of the files that are looked for in a folder.
        what: the data set's name for messages.

    Raises:
        UserError: there is none.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        found = [place / name for name in names if (place / name).is_file()]
        if not found:
            raise UserError(f"{path}: none of {what}'s files in this folder: {', '.join(names)}")
        return found
    if not place.is_file():
        raise UserError(f"{path}: no such file or folder; data.path names {what}'s annotations")
    return [place]
