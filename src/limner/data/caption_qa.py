"""Images with multiple-choice questions: CapRL-QA-75K, and what `limner data questions` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limner.data import base, qa_rows
from limner.data.annotations import Wrong
from limner.data.media import open_image
from limner.data.qa_files import Rows, rows
from limner.data.qa_rows import QuestionRow
from limner.errors import Reject
from limner.questions import KEY
from limner.types import Sample


@dataclass(frozen=True)
class Source(base.FileSource):
    """Images with multiple-choice questions, from parquet or JSONL, as CapRL-QA-75K or limner has them.

    A question without a right answer, with an answer outside its options, or with fewer than two options is
    left out and named in `extra["rejected_questions"]`; a row without a usable question is rejected.
    """

    path: str
    """A .jsonl or .parquet file, or a folder of parquet files."""
    image: str = "image"
    """Column with the image: a path, base64, or a mapping with `bytes` or `path`."""
    root: str | None = None
    """Folder that paths of images start from; that of the file if None."""

    def ids(self) -> Sequence[str]:
        """The ids of the rows; a row that cannot have one is named by its place, as in "rows.jsonl:17".

        Raises:
            UserError: nothing to read.
        """
        return self._ids

    def read(self, index: int) -> Sample:
        """An image and its questions, in `extra["questions"]`.

        Raises:
            Reject: the row has no usable question, or its image does not open; with file and row.
        """
        row = self.row(index)
        try:
            image = open_image(
                row.image, max_side=self.max_side, max_pixels=self.max_pixels, max_bytes=self.max_bytes
            )
        except Reject as reject:
            raise Reject(f"{self._rows.place(index)}: {reject.reason}") from None
        known: dict[str, object] = {KEY: row.questions}
        known |= {"path": row.image} if isinstance(row.image, Path) else {}
        known |= {"prompt": row.prompt} if row.prompt else {}
        known |= {"data_source": row.data_source} if row.data_source else {}
        if row.wrong:
            known[qa_rows.REJECTED] = tuple(f"{self._rows.place(index)}: {reason}" for reason in row.wrong)
        return Sample(self.ids()[index], (image,), row.captions, known)

    def references(self, index: int) -> tuple[str, ...]:
        """The captions of a row, without opening its image."""
        return self.row(index).captions

    def row(self, index: int) -> QuestionRow:
        """A row with its image unopened.

        Raises:
            Reject: the row has no image or no usable question; with file and row.
        """
        place = self._rows.place(index)
        try:
            if index in self._rows.refused:
                raise Wrong("shape", self._rows.refused[index])
            return qa_rows.read(self._rows.row(index), self._root, image=self.image)
        except Wrong as wrong:
            raise Wrong(wrong.kind, f"{place}: {wrong.reason}") from None
        except Reject as reject:
            raise Reject(f"{place}: {reject.reason}") from None

    @cached_property
    def _root(self) -> Path:
        path = Path(self.path).expanduser()
        if self.root is not None:
            return Path(self.root).expanduser()
        return path if path.is_dir() else path.parent

    @cached_property
    def _rows(self) -> Rows:
        return rows(Path(self.path).expanduser())

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        return self._rows.ids
