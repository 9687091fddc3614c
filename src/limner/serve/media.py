"""Pictures and videos of a request, from untrusted bytes to RGB, within limits."""

from __future__ import annotations

import base64
import binascii
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from limner.data.media import open_image
from limner.data.video import Video
from limner.errors import Reject
from limner.serve.fetch import Fetcher
from limner.serve.problems import Problem, refused
from limner.serve.settings import Limits

if TYPE_CHECKING:
    from limner.data.video_pool import Decoders


@dataclass(frozen=True)
class Medium:
    """A picture or video as a request names it."""

    url: str
    """A data: URL, or an http(s) address."""
    video: bool
    """It was sent as a video."""
    param: str
    """Where in the request it stands, for messages."""


class Opener:
    """Opens what requests show; may be used by several threads. Videos are decoded in other processes."""

    def __init__(self, limits: Limits, fetcher: Fetcher | None):
        """With limits; without a fetcher only data: URLs are opened."""
        self._limits, self._fetcher = limits, fetcher
        self._decoders: Decoders | None = None
        self._lock = threading.Lock()

    def open(self, media: Sequence[Medium]) -> tuple[Image.Image, ...]:
        """Pictures and frames in order.

        Raises:
            Problem: one of them cannot be used, or they are too many.
        """
        images: list[Image.Image] = []
        for medium in media:
            content, video = self._content(medium)
            try:
                images += self.opened(content, video=video)
            except Reject as reject:
                what = "video" if video else "image"
                raise refused(f"{what}: {reject.reason}", medium.param, f"invalid_{what}") from None
            if len(images) > self._limits.images:
                raise too_many(self._limits, medium.param)
        return tuple(images)

    def opened(self, content: bytes, *, video: bool) -> Sequence[Image.Image]:
        """The picture of a file, or frames of a video.

        Raises:
            Reject: the reason.
        """
        return self._frames(content) if video else [self._image(content)]

    def close(self) -> None:
        """End the processes."""
        if self._decoders is not None:
            self._decoders.close()

    def _content(self, medium: Medium) -> tuple[bytes, bool]:
        """The bytes, and whether they are a video's."""
        scheme, colon, rest = medium.url.partition(":")
        scheme = scheme.lower()
        if colon and scheme == "data":
            return _decoded(rest, medium)
        if colon and scheme in ("http", "https"):
            if self._fetcher is None:
                raise refused(
                    "images are not fetched from addresses here; send the image as a data: URL",
                    medium.param,
                    "url_not_allowed",
                )
            try:
                return self._fetcher.get(medium.url), medium.video
            except Problem as problem:
                problem.param = medium.param
                raise
        raise refused(
            "an image's address begins with data:, such as data:image/png;base64,...",
            medium.param,
            "url_not_allowed",
        )

    def _image(self, content: bytes) -> Image.Image:
        return open_image(content, max_pixels=self._limits.pixels, max_side=self._limits.side)

    def _frames(self, content: bytes) -> Sequence[Image.Image]:
        """Frames of a video, which decoders want as a file."""
        from limner.types import Sample  # brings torch, which nothing else here needs

        with tempfile.TemporaryDirectory(prefix="limner-") as folder:
            path = Path(folder, "video")
            path.write_bytes(content)
            video = Video(
                path, frames=self._limits.frames, max_side=min(self._limits.side, 512),
                max_pixels=self._limits.pixels, max_decoded=self._limits.decoded_frames,
            )  # fmt: skip
            return self._videos().load(Sample("request", (), video=video)).media

    def _videos(self) -> Decoders:
        """What decodes videos, from the first one on."""
        from limner.data.video_pool import Decoders

        with self._lock:
            if self._decoders is None:
                self._decoders = Decoders(max_seconds=self._limits.video_seconds)
            return self._decoders


def too_many(limits: Limits, param: str | None) -> Problem:
    """More pictures than one request may show."""
    return refused(f"more than {limits.images} images or frames", param, "too_many_images")


def _decoded(rest: str, medium: Medium) -> tuple[bytes, bool]:
    """The bytes of a data: URL without its scheme, and whether they are a video's."""
    head, comma, data = rest.partition(",")
    kind, *parameters = head.lower().split(";")
    if not comma or "base64" not in parameters:
        raise refused(
            "a data: URL looks like data:image/png;base64,iVBORw0...", medium.param, "invalid_image_url"
        )
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise refused("the data: URL is not base64", medium.param, "invalid_base64") from None
    return content, medium.video or kind.startswith("video/")
