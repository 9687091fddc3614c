"""What a data source is: samples with stable ids in a stable order."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt

from limner.data import video as video_files
from limner.data.media import MAX_BYTES, MAX_PIXELS, open_image
from limner.data.order import Draw, epochs
from limner.data.video import Sampling, Video
from limner.types import Sample


@dataclass(frozen=True)
class Source(ABC):
    """Samples to caption. A data source is one file in this folder with a subclass named `Source`.

    Its fields are its settings. Items are numbered from 0; the same settings on the same files give the
    same items in the same order, which is what lets a run be resumed.
    """

    @abstractmethod
    def ids(self) -> Sequence[str]:
        """Every item's id, each of them once, in the order of the items. Opens no image.

        Raises:
            UserError: there is nothing to read: no such file or folder, or nothing in it.
        """

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Item number `index`, whose id is `ids()[index]`. Called from several threads at once.

        A video is not opened here: its sample comes without media.

        Raises:
            Reject: this item cannot be used.
        """

    def references(self, index: int) -> tuple[str, ...]:
        """The reference captions of item number `index`, at the cost of reading it.

        Raises:
            Reject: this item cannot be used.
        """
        return self.read(index).references

    def draws(self, *, seed: int, position: int = 0, shuffle: bool = True) -> Iterator[Draw]:
        """The items that training takes, without end, from a position on: epochs of all items.

        Args:
            seed: of the order.
            position: how many were drawn before.
            shuffle: False takes every epoch in the order of the items.
        """
        return epochs(len(self), seed=seed, position=position, shuffle=shuffle)

    def epoch_length(self) -> int:
        """How many draws it takes until every item was drawn."""
        return len(self)

    def __str__(self) -> str:
        """The source in a message."""
        return type(self).__module__

    def __len__(self) -> int:
        """Number of items, those that cannot be used included."""
        return len(self.ids())

    def __iter__(self) -> Iterator[Sample]:
        """The samples in order, videos decoded; items that cannot be used are left out."""
        from limner.data.batches import read_ahead

        with closing(read_ahead(self, range(len(self)), workers=2, ahead=4)) as items:
            yield from (item.result for item in items if isinstance(item.result, Sample))


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """A source whose images are files on disk, with the limits that all of them keep."""

    path: str
    """What to read."""
    max_side: Annotated[int, Ge(1)] | None = 1024
    """Longer side in pixels of what is kept: bigger images are reduced when read, so that a batch of
    photographs fits in memory. No limit if None."""
    max_pixels: Annotated[int, Ge(1)] = MAX_PIXELS
    """Images with more pixels are rejected from their header, before they are decoded."""
    max_bytes: Annotated[int, Ge(1)] = MAX_BYTES
    """Files with more bytes are rejected unread."""

    def __str__(self) -> str:
        """Its path."""
        return self.path

    def sample(self, id: str, path: Path, references: tuple[str, ...] = ()) -> Sample:
        """A sample of one image file. Its `extra["path"]` is the file.

        Raises:
            Reject: the file is no usable image.
        """
        image = open_image(path, max_side=self.max_side, max_pixels=self.max_pixels, max_bytes=self.max_bytes)
        return Sample(id, (image,), references, {"path": path})


@dataclass(frozen=True, kw_only=True)
class VideoSource(FileSource):
    """A source whose samples are videos on disk, or folders of frames."""

    frames: Annotated[int, Ge(1)] = 8
    """Frames a video, unless sampling is fps; a shorter video repeats its last frame."""
    sampling: Sampling = "uniform"
    """uniform: spread evenly; headtail: half drawn from the first half of the video, half from the second,
    others in every epoch; fps: so many a second."""
    fps: Annotated[float, Gt(0)] = 1.0
    """Frames a second where sampling is fps; a folder of frames counts as one frame a second."""
    max_frames: Annotated[int, Ge(1)] = 64
    """Most frames where sampling is fps: longer videos are sampled more thinly."""
    seed: Annotated[int, Ge(0)] = 0
    """Of the draws of headtail."""
    frame_cache: str | None = None
    """Folder that keeps the decoded frames of uniform and fps, uncompressed, for later epochs and runs. It
    grows without bound and may be deleted at any time. None keeps nothing."""
    max_side: Annotated[int, Ge(1)] | None = video_files.MAX_SIDE
    """Longer side in pixels of what is kept: larger frames are reduced as they are decoded. No limit if
    None."""
    max_pixels: Annotated[int, Ge(1)] = video_files.MAX_PIXELS
    """Videos with more pixels a frame are rejected before they are decoded."""

    def video(
        self, id: str, path: Path, references: tuple[str, ...] = (), extra: Mapping[str, object] | None = None
    ) -> Sample:
        """A sample of one video file or folder of frames, unopened. Its `extra["path"]` is the path."""
        wanted = Video(
            path, frames=self.frames, sampling=self.sampling, fps=self.fps, max_frames=self.max_frames,
            seed=self.seed, max_side=self.max_side, max_pixels=self.max_pixels, max_bytes=self.max_bytes,
            frame_cache=self.frame_cache,
        )  # fmt: skip
        return Sample(id, (), references, {"path": path, **(extra or {})}, wanted)
