"""The layout of LAVIS: annotations/cap_{train,val,test}.json and a folder of videos."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from limner.data.annotations import Item, Listing, Row, Wrong, read_json, whole_file
from limner.data.annotations_source import VideoList, split_file

_FILES = {split: (f"cap_{split}.json",) for split in ("train", "val", "test")}


@dataclass(frozen=True, kw_only=True)
class Source(VideoList):
    """A data set in the layout of LAVIS, cap_train.json and a folder of videos.

    A row is {"video": "video0.mp4", "caption": "a man sings", "image_id": "video0"}, one a caption.
    """

    path: str
    """The folder with cap_train.json, cap_val.json and cap_test.json, or one such file."""
    split: Literal["train", "val", "test"] | None = None
    """Which of the files in the folder; null where `path` is a file."""
    truth: str | None = None
    """JSON file with the references, {"annotations": [{"image_id": "video0", "caption": "..."}]}; null takes
    the captions of the rows."""

    def listing(self) -> dict[str, Item]:
        """The videos of the file, each once, with the captions of all its rows or of `truth`."""
        listing = Listing()
        top = read_json(self._file)
        with whole_file(self._file):
            rows = list(top.rows())
        for row in rows:
            with listing.rejecting(row):
                self._row(listing, row)
        truth = self._file
        if self.truth is not None:
            truth = Path(self.truth).expanduser()
            top = read_json(truth)
            with whole_file(truth):
                rows = list(top.get("annotations", list).rows())
            for row in rows:
                with listing.rejecting(row):
                    id = row.get("image_id").name()
                    if listing.wants(id, row):
                        listing.caption(id, row.get("caption"))
        need = self.without_references == "reject"
        return listing.finished(listed_in=self._file.name, need_references=need)

    def file(self, id: str, item: Item) -> Path:
        """The file that the row names, in the folder of the videos."""
        for folder in self.folders:
            if (folder / str(item.extra["video"])).exists():
                return folder / str(item.extra["video"])
        raise Wrong("missing", f"listed and not there: {item.extra['video']} in {self.folders[0].name}")

    def strays(self) -> list[Path]:
        """Videos that no file in the folder of annotations lists."""
        named = {str(item.extra.get("video")) for item in self._items.values()} | set(self.other_ids())
        return [path for path in self._media.found.values() if path.name not in named]

    def other_ids(self) -> Iterable[str]:
        """Names of the videos of the other splits."""
        for path in (self._file.with_name(name) for names in _FILES.values() for name in names):
            if path.is_file() and path != self._file:
                for row in read_json(path).rows():
                    if isinstance(row.value, dict):
                        yield str(row.value.get("video"))

    def _row(self, listing: Listing, row: Row) -> None:
        video = row.get("video", str).name()
        if Path(video).is_absolute() or ".." in Path(video).parts:
            raise Wrong("shape", f"{row.place}.video: {video}: must be a name in the folder of the videos")
        named = isinstance(row.value, dict) and "image_id" in row.value
        id = row.get("image_id").name() if named else Path(video).stem
        known = listing.items.get(id)
        if known is None:
            listing.add(id, row, video=video)
        elif known.extra.get("video") != video:
            raise Wrong("mismatch", f"{row.place}: {id!r} is {known.extra.get('video')} in another row")
        if self.truth is None and isinstance(row.value, dict) and "caption" in row.value:
            said = row.get("caption")
            for caption in said.rows() if isinstance(said.value, list) else (said,):
                listing.caption(id, caption)

    @cached_property
    def _file(self) -> Path:
        return split_file(self.path, self.split, _FILES, what="LAVIS")
