"""COCO captions (Chen et al., arXiv 1504.00325), by the splits of Karpathy or as COCO gives them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from limner.data import base
from limner.data.annotations import Item, Listing, Row, Wrong, read_json, shown, whole_file
from limner.data.annotations_source import Gathered, WithoutReferences, annotation_files, entries
from limner.data.media import SUFFIXES
from limner.errors import UserError
from limner.types import Sample

_KARPATHY = ("train", "restval", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Source(Gathered, base.FileSource):
    """COCO captions: dataset_coco.json of Karpathy, or a captions JSON of COCO. Ids are COCO's image ids."""

    path: str
    """dataset_coco.json with its four splits, or captions_train2014.json and the like, which is one split."""
    split: Literal["train", "val", "test"] | None = None
    """Of dataset_coco.json: 113,287 / 5,000 / 5,000 images; null for a file of COCO's."""
    restval: bool = True
    """Whether train has the 30,504 images of restval, as in published work; without them it has 82,783."""
    images: str | None = None
    """Folder that the images' names start from: the one with train2014 and val2014 in it for
    dataset_coco.json, the one with the images for a file of COCO's; null takes the file's own folder."""
    without_references: WithoutReferences = "reject"
    """What becomes of an image that nobody captioned: `keep` captions it all the same."""

    def listing(self) -> dict[str, Item]:
        """The images of the split with all their captions."""
        need = self.without_references == "reject"
        return self._read[0].finished(listed_in="images", need_references=need)

    def read(self, index: int) -> Sample:
        """An image with all its references.

        Raises:
            Reject: its row is wrong, nobody captioned it, or it is no usable image.
        """
        path, item = self.look(index)
        sample = self.sample(self.ids()[index], path, tuple(item.references))
        return replace(sample, extra={**sample.extra, **item.extra})

    def file(self, id: str, item: Item) -> Path:
        """The image file that the annotations name."""
        path = self._root / str(item.extra["file"])
        if not path.exists():
            raise Wrong("missing", f"listed and not there: {item.extra['file']}")
        return path

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that the annotations name."""
        return tuple(sorted({(self._root / name).parent for name in self._read[1]}))

    def strays(self) -> Sequence[Path]:
        """Images in these folders that the file does not list, for any split."""
        known = {self._root / name for name in self._read[1]}
        there = (Path(entry) for folder in self.folders if folder.is_dir() for entry in entries(folder))
        return [path for path in there if path.suffix.lower() in SUFFIXES and path not in known]

    @cached_property
    def _root(self) -> Path:
        if self.images is None:
            return Path(self.path).expanduser().parent
        root = Path(self.images).expanduser()
        if not root.is_dir():
            raise UserError(f"{self.images}: no such folder; data.images names the folder of the images")
        return root

    @cached_property
    def _read(self) -> tuple[Listing, set[str]]:
        """What is listed for the split, and the names of the images of all splits."""
        (path,) = annotation_files(self.path, ("dataset_coco.json",), what="COCO")
        top = read_json(path)
        with whole_file(path):
            images = list(top.get("images", list).rows())
            annotated = isinstance(top.value, dict) and "annotations" in top.value
            captions = list(top.get("annotations", list).rows()) if annotated else []
        if annotated == (self.split is not None):
            raise UserError(
                f"data.split: {self.path} is "
                + ("a captions file of COCO, one split: leave split out" if annotated else
                   "Karpathy's file: name train, val or test")
            )  # fmt: skip
        listing, names = Listing(), set[str]()
        for row in images:
            with listing.rejecting(row):
                if annotated:
                    name = _file(row.get("file_name", str))
                    listing.add(row.get("id").name(), row, file=name)
                else:
                    name = self._karpathy(listing, row)
                names.add(name)
        for row in captions:
            with listing.rejecting(row):
                id = row.get("image_id").name()
                if listing.wants(id, row):
                    listing.caption(id, row.get("caption"))
        return listing, names

    def _karpathy(self, listing: Listing, row: Row) -> str:
        given = row.value if isinstance(row.value, dict) else {}
        id = row.get("cocoid" if "cocoid" in given else "imgid").name()
        name = _file(row.get("filename", str))
        if "filepath" in given:
            name = f"{_file(row.get('filepath', str))}/{name}"
        said = row.get("split", str)
        if said.value not in _KARPATHY:
            raise Wrong("shape", f"{said.place}: {shown(said.value)}: must be one of {', '.join(_KARPATHY)}")
        split = "train" if said.value == "restval" and self.restval else said.value
        if split != self.split:
            listing.elsewhere.add(id)
        elif listing.add(id, row, file=name):
            with listing.rejecting(id):
                for sentence in row.get("sentences", list).rows():
                    with listing.rejecting(sentence):
                        listing.caption(id, sentence.get("raw"))
        return name


def _file(row: Row) -> str:
    name = row.name()
    if name.startswith("/") or ".." in name.split("/"):
        raise Wrong("shape", f"{row.place}: {name}: must be a name below the folder of the images")
    return name
