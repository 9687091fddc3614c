"""From a video file to frames."""

from __future__ import annotations

import av
from av.container import InputContainer

from limner.data.video import Decoded, Video, choose
from limner.errors import Reject


def decode(video: Video, *, id: str, epoch: int) -> Decoded:
    """The wanted frames of a video.

    Raises:
        Reject: it cannot be used.
    """
    try:
        with av.open(str(video.path)) as container:
            assert isinstance(container, InputContainer)
            if not container.streams.video:
                raise Reject("no video in this file, only sound")
            frames = list(container.decode(container.streams.video[0]))
    except av.FFmpegError as error:
        raise Reject(f"cannot be decoded: {error.strerror}") from None
    if not frames:
        raise Reject("no frame in this video")
    places = choose(video, [frame.time or 0.0 for frame in frames], id=id, epoch=epoch)
    return Decoded(tuple(frames[place].to_image() for place in places), places, len(frames))
