"""WebVid (Bain et al., ICCV 2021): a CSV file of stock videos, each with the one caption of its seller."""

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from limner.data.annotations import Item, Table, Wrong, lines
from limner.data.annotations_source import MediaFiles, Videos, annotation_files, entries
from limner.data.video import SUFFIXES
from limner.errors import UserError

_COLUMNS = ("videoid", "name")


class _Index(NamedTuple):
    ids: tuple[str, ...]
    starts: array
    """Where each row begins in the file, in bytes."""
    wrong: dict[int, Wrong]
    """Why a row cannot be used, where the first look tells."""


@dataclass(frozen=True, kw_only=True)
class Source(Videos):
    """WebVid: rows videoid, contentUrl, duration, page_dir, name. Only ids and places are kept in memory."""

    path: str
    """results_2M_train.csv, results_2M_val.csv, results_10M_train.csv, or another file with such columns."""
    captions: str | None = None
    """JSONL file that `limner caption` wrote, rows {"id", "caption"}: its captions stand in for those of the
    CSV file, as pseudo-labels."""

    def ids(self) -> Sequence[str]:
        """The videoid of each row; a row that has none is named by its line.

        Raises:
            UserError: a file or folder is missing, or the file is not as described.
        """
        return self._index.ids

    def item(self, index: int) -> Item:
        """The caption of a video, and its page.

        Raises:
            Reject: its row is wrong, or it has no caption.
        """
        ids, starts, wrong = self._index
        if index in wrong:
            raise Wrong(wrong[index].kind, wrong[index].reason)
        row = self._table.at(starts[index])
        item = Item()
        if "page_dir" in self._table.columns:
            item.extra["page_dir"] = row.get("page_dir").value
        if self.captions is None:
            item.references.append(row.get("name").text())
        elif ids[index] in self._captions:
            item.references.append(self._captions[ids[index]])
        elif self.without_references == "reject":
            raise Wrong("no references", f"no caption in {Path(self.captions).name}")
        return item

    def look(self, index: int) -> tuple[Path, Item]:
        """Where a video is: videos/PAGE_DIR/VIDEOID.mp4 or videos/VIDEOID.mp4.

        Raises:
            Reject: its row is wrong, it has no caption, or it is not there.
        """
        item = self.item(index)
        return self._find(self._index.ids[index], str(item.extra.get("page_dir", ""))), item

    def strays(self) -> Sequence[Path]:
        """Videos that neither this file nor another CSV file beside it lists. Walks all folders."""
        known = set(self.ids())
        for other in sorted(self._table.path.parent.glob("*.csv")):
            if other != self._table.path:
                table = Table(other, ())
                if "videoid" in table.columns:
                    known.update(
                        str(row.value["videoid"]) for _, row in table.rows() if isinstance(row.value, dict)
                    )
        pages = (Path(entry) for root in self.folders for entry in entries(root) if entry.is_dir())
        found = MediaFiles((*self.folders, *pages)).found
        return [path for stem, path in found.items() if stem not in known and path.suffix.lower() in SUFFIXES]

    def _find(self, id: str, page: str) -> Path:
        for root in self.folders:
            for folder in (root / page, root) if page else (root,):
                for suffix in SUFFIXES:
                    if (folder / f"{id}{suffix}").exists():
                        return folder / f"{id}{suffix}"
        where = f"{page}/{id}.mp4" if page else f"{id}.mp4"
        raise Wrong("missing", f"listed and not there: {where} in {self.folders[0].name}")

    @cached_property
    def _table(self) -> Table:
        return Table(annotation_files(self.path, (), what="WebVid")[0], _COLUMNS)

    @cached_property
    def _index(self) -> _Index:
        found: dict[str, None] = {}
        starts, wrong = array("q"), dict[int, Wrong]()
        for start, row in self._table.rows():
            id = row.place
            try:
                named = row.get("videoid").name()
                if "/" in named or named in found:
                    what = "is listed twice" if named in found else "is no name of a file"
                    raise Wrong("mismatch", f"{row.place}: the videoid {named!r} {what}")
                if self.captions is None:
                    row.get("name").text()
                id = named
            except Wrong as problem:
                wrong[len(found)] = problem
                while id in found:
                    id += "'"
            found[id] = None
            starts.append(start)
        if not found:
            raise UserError(f"{self.path}: no row in this file")
        assert self.folders  # a folder that is not there is said at once
        return _Index(tuple(found), starts, wrong)

    @cached_property
    def _captions(self) -> dict[str, str]:
        path = Path(str(self.captions)).expanduser()
        captions: dict[str, str] = {}
        for line in lines(path):
            try:
                row = json.loads(str(line.value))
                captions[str(row["id"])] = str(row["caption"])
            except (ValueError, TypeError, KeyError):
                raise UserError(f"{path.parent / line.place}: no row with id and caption") from None
        return captions
