"""MSVD, the Microsoft Research Video Description Corpus (Chen and Dolan, ACL 2011)."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from limner.data.annotations import Item, Listing, Row, Wrong, file_name, lines
from limner.data.annotations_source import VideoList, annotation_files
from limner.errors import UserError

SIZES = {"train": 1200, "val": 100, "test": 670}
"""Clips of each split, in the order of the descriptions (Venugopalan et al., NAACL 2015)."""


@dataclass(frozen=True, kw_only=True)
class Source(VideoList):
    """MSVD: 1,970 clips with about 41 English captions each; the usual splits 1,200 / 100 / 670."""

    path: str
    """AllVideoDescriptions.txt, or the folder with it."""
    split: Literal["train", "val", "test"]
    """By train_list.txt, val_list.txt and test_list.txt where they stand beside the descriptions; else the
    first 1,200, the next 100 and the last 670 clips in the order of the file."""

    def usual_folders(self) -> tuple[str, ...]:
        """As the archive unpacks."""
        return ("videos", "YouTubeClips")

    def other_ids(self) -> Iterable[str]:
        """Clips of the other splits."""
        return self._listing.elsewhere

    def listing(self) -> dict[str, Item]:
        """The clips of the split with their captions."""
        name = f"{self.split}_list.txt"
        need = self.without_references == "reject"
        return self._listing.finished(listed_in=name, need_references=need)

    @cached_property
    def _listing(self) -> Listing:
        (path,) = annotation_files(self.path, ("AllVideoDescriptions.txt",), what="MSVD")
        listing = Listing()
        captions: list[tuple[str, Row]] = []
        for line in lines(path):
            id, _, caption = str(line.value).partition(" ")
            if id.startswith("#"):
                continue
            if not id or not caption.strip():
                wrong = Wrong("shape", f"{line.place}: not a clip's name, a space and a caption")
                listing.refuse(line.place, wrong)
                continue
            with listing.rejecting(line):
                captions.append((Row(id, line.place).name(), Row(caption, line.place)))
        self._split(path, listing, list(dict.fromkeys(id for id, _ in captions)))
        for id, row in captions:
            if listing.wants(id, row):
                listing.caption(id, row)
        return listing

    def _split(self, path: Path, listing: Listing, described: list[str]) -> None:
        """Put the clips of the split among the items, the others elsewhere."""
        lists = {name: path.with_name(f"{name}_list.txt") for name in SIZES}
        there = [name for name, file in lists.items() if file.is_file()]
        if there and self.split not in there:
            raise UserError(f"{lists[self.split]}: no such file, but {lists[there[0]].name} is there")
        if not there:
            whole = sum(SIZES.values())
            if len(described) != whole:
                raise UserError(
                    f"{path}: describes {len(described)} clips, not {whole}, so its order tells no splits: "
                    "put train_list.txt, val_list.txt and test_list.txt beside it, a clip's name a line"
                )
            start = 0
            for name, size in SIZES.items():
                for id in described[start : start + size]:
                    self._place(listing, name, Row(id, file_name(path)))
                start += size
        for name in there:
            for line in lines(lists[name]):
                with listing.rejecting(line):
                    self._place(listing, name, line)

    def _place(self, listing: Listing, name: str, row: Row) -> None:
        if name == self.split:
            listing.add(row.name(), row)
        else:
            listing.elsewhere.add(row.name())
