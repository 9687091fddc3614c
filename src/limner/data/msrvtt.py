"""MSR-VTT (Xu et al., CVPR 2016): videodatainfo.json and the videos."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from limner.data.annotations import Item, Listing, Row, Wrong, lines, read_json, shown, whole_file
from limner.data.annotations_source import VideoList, annotation_files

_TOGETHER = ("train_val_videodatainfo.json", "test_videodatainfo.json")
_FILES = (
    ("videodatainfo.json",),
    ("MSRVTT_data.json",),
    _TOGETHER,
    ("videodatainfo_2016.json", "test_videodatainfo_2016.json"),
)
"""Names of the annotation files, those that belong together in one line."""
_SPLITS = {"train": "train", "validate": "val", "val": "val", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Source(VideoList):
    """MSR-VTT: 10,000 clips with 20 captions each; official splits 6,513 / 497 / 2,990."""

    path: str
    """videodatainfo.json, train_val_videodatainfo.json, test_videodatainfo.json, or the folder of them."""
    split: Literal["train", "val", "test"]
    """As the files say of each video; they call val "validate"."""

    def usual_folders(self) -> tuple[str, ...]:
        """As the archives unpack."""
        return ("videos", "TrainValVideo", "TestVideo", "all", "videos/all")

    def other_ids(self) -> Iterable[str]:
        """Videos of the other splits."""
        return self._listing.elsewhere

    def listing(self) -> dict[str, Item]:
        """The videos of the split with their captions.

        `extra["category"]` is the name of the category where category.txt stands beside the file, else
        its number.
        """
        listing = self._listing
        return listing.finished(listed_in="videos", need_references=self.without_references == "reject")

    @cached_property
    def _listing(self) -> Listing:
        listing = Listing()
        rows: list[Row] = []
        for path in self._files():
            top = read_json(path)
            with whole_file(path):
                videos, sentences = top.get("videos", list), top.get("sentences", list)
            names = categories(path.with_name("category.txt"))
            for row in videos.rows():
                with listing.rejecting(row):
                    self._video(listing, row, names)
            rows += sentences.rows()
        for row in rows:
            with listing.rejecting(row):
                id = row.get("video_id").name()
                if listing.wants(id, row):
                    listing.caption(id, row.get("caption"))
        return listing

    def _files(self) -> list[Path]:
        every = [name for group in _FILES for name in group]
        found = annotation_files(self.path, every, what="MSR-VTT")
        if len(found) == 1:
            return found
        names = {path.name: path for path in found}
        group = next(group for group in _FILES if names.keys() & set(group))
        return [names[name] for name in group if name in names]

    def _video(self, listing: Listing, row: Row, names: Mapping[int, str]) -> None:
        id = row.get("video_id").name()
        try:
            said = row.get("split", str)
            if said.value not in _SPLITS:
                known = ", ".join(_SPLITS)
                raise Wrong("shape", f"{said.place}: {shown(said.value)}: must be one of {known}")
        except Wrong as wrong:
            listing.refuse(id, wrong)
            return
        if _SPLITS[str(said.value)] != self.split:
            listing.elsewhere.add(id)
            return
        number = row.value.get("category") if isinstance(row.value, dict) else None
        known = names.get(number, number) if isinstance(number, int) else number
        listing.add(id, row, **({} if known is None else {"category": known}))


def categories(path: Path) -> dict[int, str]:
    """Names of the categories by number, from lines "music<TAB>0"; none where there is no such file."""
    if not path.is_file():
        return {}
    split = (str(line.value).rsplit(None, 1) for line in lines(path))
    return {int(cells[1]): cells[0] for cells in split if len(cells) == 2 and cells[1].isdigit()}
