"""VATEX (Wang et al., ICCV 2019): JSON lists of clips of YouTube videos."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from limner.data.annotations import Item, Listing, Row, read_json, whole_file
from limner.data.annotations_source import VideoList, split_file

_FILES = {
    "train": ("vatex_training_v1.0.json",),
    "val": ("vatex_validation_v1.0.json",),
    "test": ("vatex_public_test_english_v1.1.json", "vatex_public_test_without_annotations.json"),
    "private_test": ("vatex_private_test_without_annotations.json",),
}
"""Names of the authors' files by split, the first that is there counts."""


@dataclass(frozen=True, kw_only=True)
class Source(VideoList):
    """VATEX: 25,991 / 3,000 / 6,000 clips of ten seconds with 10 captions each, as far as still online."""

    path: str
    """The folder with the authors' files, or one of them."""
    split: Literal["train", "val", "test", "private_test"] | None = None
    """Which of the files in the folder; null where `path` is a file. Nobody outside has captions of
    private_test: `without_references: keep` captions it all the same."""
    language: Literal["en", "ch"] = "en"
    """Whose captions are the references: enCap or chCap."""

    def usual_folders(self) -> tuple[str, ...]:
        """As downloaders write them: videoID.mp4, where videoID holds the seconds of start and end."""
        return ("videos", "clips")

    def other_ids(self) -> Iterable[str]:
        """Clips of the other files in the folder."""
        place = Path(self.path).expanduser()
        folder = place if place.is_dir() else place.parent
        for name in (name for names in _FILES.values() for name in names):
            if (folder / name).is_file() and folder / name != self._file:
                for row in read_json(folder / name).rows():
                    if isinstance(row.value, dict):
                        yield str(row.value.get("videoID"))

    def listing(self) -> dict[str, Item]:
        """The clips of the file with the captions of the language."""
        listing = Listing()
        top = read_json(self._file)
        with whole_file(self._file):
            rows = list(top.rows())
        key = f"{self.language}Cap"
        for row in rows:
            with listing.rejecting(row):
                id = row.get("videoID").name()
                if listing.add(id, row) and isinstance(row.value, dict) and key in row.value:
                    self._captions(listing, id, row.get(key))
        need = self.without_references == "reject"
        return listing.finished(listed_in=self._file.name, need_references=need)

    def _captions(self, listing: Listing, id: str, captions: Row) -> None:
        with listing.rejecting(id):
            for caption in captions.rows():
                listing.caption(id, caption)

    @cached_property
    def _file(self) -> Path:
        return split_file(self.path, self.split, _FILES, what="VATEX")
