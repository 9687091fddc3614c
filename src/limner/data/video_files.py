"""From a video, whatever it is on disk, to the frames that are wanted.

The content decides, not the name: GIF and WebP are read by Pillow, other files by FFmpeg, folders are
frames. FFmpeg tries only formats that hold everything in the one file; playlists, which name other files
and addresses on the network, are no videos here.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from limner.data import video_cache, video_outline, video_stills
from limner.data.video import Decoded, Video
from limner.errors import Reject

_STILLS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"BM": "BMP"}


def decode(video: Video, *, id: str, epoch: int) -> Decoded:
    """The wanted frames, out of the cache where it has them.

    Raises:
        Reject: the video cannot be used.
        UserError: the cache cannot be written.
    """
    found = video_cache.read(video)
    if found is None:
        found = _decode(video, id, epoch)
        video_cache.write(video, found)
    return found


def _decode(video: Video, id: str, epoch: int) -> Decoded:
    try:
        status = os.stat(video.path)
        if stat.S_ISDIR(status.st_mode):
            return video_stills.folder(video, id=id, epoch=epoch)
        if not stat.S_ISREG(status.st_mode):
            raise Reject("a pipe, socket or device, not a file")
        if status.st_size == 0:
            raise Reject("empty file")
        if status.st_size > video.max_bytes:
            raise Reject(f"file of {status.st_size:,} bytes, more than the limit of {video.max_bytes:,}")
        with open(video.path, "rb") as file:
            return _open(file, status.st_size, video, id, epoch)
    except FileNotFoundError:
        reason = "broken symbolic link" if os.path.islink(video.path) else "no such file"
        raise Reject(reason) from None
    except OSError as error:
        raise Reject(f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    except MemoryError:
        raise Reject("too little memory to decode it") from None
    except ValueError as error:
        if "\0" in str(video.path):
            raise Reject("no valid file name") from None
        raise error


def _open(file: BinaryIO, size: int, video: Video, id: str, epoch: int) -> Decoded:
    head = file.read(16)
    file.seek(0)
    if head.startswith(b"GIF8") or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return video_stills.animation(file, size, video, id=id, epoch=epoch)
    still = next((name for magic, name in _STILLS.items() if head.startswith(magic)), None)
    if still is not None:
        raise Reject(f"an image ({still}), not a video")
    problem = video_outline.problem(file, size)
    if problem is not None:
        raise Reject(problem)
    file.seek(0)
    from limner.data import video_stream

    return video_stream.decode(file, video, id=id, epoch=epoch)
