"""Files that FFmpeg reads: only the frames that are wanted are decoded, and what they are built upon.

The packets of the file are listed first, which reads it and decodes nothing. A packet carries the time at
which its frame is shown and whether decoding can start at it. So a wanted frame is reached from the nearest
packet before it that decoding can start at; on the way there frames that nothing is built upon are skipped.
The pictures are those of a decoder that starts at the beginning, bit for bit.

Where packets carry no times, or a frame does not come out where its packet said, the file is decoded from
the beginning.

A frame that the decoder had to make up in part, or one that is built upon such a frame, rejects the video.
Damage that leaves a stream the decoder finds nothing wrong with cannot be noticed; in VP8, VP9, AV1 and HEVC
that is most of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from av import logging
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from limner.data.video import Decoded, Video, choose
from limner.data.video_picture import picture, refuse_large
from limner.errors import Reject

FORMATS = (
    *("mov", "matroska", "avi", "flv", "asf", "mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "vc1"),
    *("obu", "ivf", "ogg", "mxf", "nut", "dv", "rm", "wtv", "yuv4mpegpipe", "mp3", "aac", "wav", "flac"),
)
"""What FFmpeg calls the formats that are tried, those of sound among them to say that there is only sound."""
_SKIP_BYTES = 1 << 20
"""Bytes between two needed packets from which on seeking is better than reading them."""
_RATE = 25
"""Frames a second of a stream that tells none."""
_SKIPPING = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"})
"""Decoders that can be told packet by packet to skip frames that nothing is built upon."""

logging.set_level(logging.PANIC)


class _Packet(NamedTuple):
    pts: int
    """When its frame is shown, in units of the stream."""
    size: int
    key: bool
    """Decoding can start here."""
    hidden: bool
    """Its frame is not shown: it lies outside of what the file says is to be played."""


class _Stretch(NamedTuple):
    """Packets that are decoded in one go."""

    start: int
    end: int
    """The last one."""


def decode(file: BinaryIO, video: Video, *, id: str, epoch: int) -> Decoded:
    """The wanted frames of a file.

    Raises:
        Reject: it cannot be used.
    """
    try:
        with closing(_Reader(file, video)) as reader:
            packets = reader.packets()
            if packets is None:
                return _from_the_beginning(reader, id, epoch)
            shown = _shown(packets)
            places = choose(video, [pts * reader.unit for pts in shown], id=id, epoch=epoch)
            images = reader.pictures(packets, [shown[place] for place in places])
            if images is None:
                return _from_the_beginning(reader, id, epoch)
            return Decoded(tuple(images[shown[place]] for place in places), places, reader.decoded)
    except InvalidDataError:
        raise Reject("damaged: cannot be decoded") from None
    except FFmpegError as error:
        raise Reject(f"cannot be decoded: {str(error.strerror).lower()}") from None


def _from_the_beginning(reader: _Reader, id: str, epoch: int) -> Decoded:
    """All frames are decoded to count them, and again up to the last one that is wanted."""
    rate = float(reader.stream.average_rate or reader.stream.guessed_rate or _RATE)
    shown = [frame.pts for frame in reader.frames()]
    if not shown:
        raise Reject("not one frame of this video can be decoded")
    times = [place / rate if pts is None else pts * reader.unit for place, pts in enumerate(shown)]
    times = np.maximum.accumulate(times).tolist()
    places = choose(reader.video, times, id=id, epoch=epoch)
    wanted, images = frozenset(places), dict[int, Image.Image]()
    for place, frame in zip(range(max(places) + 1), reader.frames(), strict=False):
        if place in wanted:
            images[place] = picture(frame, reader.aspect, video=reader.video)
    if len(images) < len(wanted):
        raise Reject("changed while it was read")
    return Decoded(tuple(images[place] for place in places), places, reader.decoded)


def _shown(packets: Sequence[_Packet]) -> list[int]:
    """When each frame is shown, rising; what comes before the first that decoding can start at is lost."""
    first = packets[0].pts
    return sorted({packet.pts for packet in packets if packet.pts >= first and not packet.hidden})


def _stretches(packets: Sequence[_Packet], wanted: Iterable[int]) -> list[_Stretch]:
    """The packets to decode for the frames shown at `wanted`, rising.

    A frame may be shown before the key packet that precedes it in the file, and is then built upon the
    stretch before that: it is reached from a key packet that is shown no later than itself.
    """
    number = {packet.pts: place for place, packet in enumerate(packets)}
    keys = [place for place, packet in enumerate(packets) if packet.key]
    stretches: list[_Stretch] = []
    for pts in wanted:
        end = number[pts]
        before = reversed(keys[: bisect_right(keys, end)])
        start = next((key for key in before if packets[key].pts <= pts), 0)
        if stretches and start <= stretches[-1].end:
            stretches[-1] = _Stretch(stretches[-1].start, max(end, stretches[-1].end))
        else:
            stretches.append(_Stretch(start, end))
    return stretches


class _Reader:
    """An open file: its packets in the order in which they are decoded, and how many frames were decoded."""

    def __init__(self, file: BinaryIO, video: Video):
        """Open it.

        Raises:
            Reject: it is no video, or beyond the limits.
        """
        self.file, self.video = file, video
        self.decoded = 0
        self._container: InputContainer | None = None
        self._reopen()

    def close(self) -> None:
        """Close it."""
        if self._container is not None:
            self._container.close()

    def _reopen(self) -> None:
        self.close()
        self.file.seek(0)
        try:
            container = av.open(
                self.file, options={"format_whitelist": ",".join(FORMATS)}, metadata_errors="replace",
                buffer_size=1 << 17, io_open=_refuse_others,
            )  # fmt: skip
        except (InvalidDataError, ArgumentError):  # the latter for formats that are not tried
            raise Reject("not a video, or its beginning is broken") from None
        assert isinstance(container, InputContainer)
        self._container = container
        pictures = [
            stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic
        ]
        if not pictures:
            sound = " only sound" if container.streams.audio else " nothing to see"
            raise Reject(f"no video in this file,{sound}")
        self.stream: VideoStream = max(pictures, key=lambda stream: stream.width * stream.height)
        for stream in container.streams:
            if stream is not self.stream:
                stream.discard = Discard.all
        refuse_large(self.stream.width, self.stream.height, video=self.video)
        self.aspect = float(self.stream.sample_aspect_ratio or 1)
        """How much wider than high a pixel is."""
        self.unit = float(self.stream.time_base or 0)
        """Seconds in which times are counted."""
        self.codec = self.stream.codec_context
        self.codec.thread_count = 1
        self.codec.options = {"max_pixels": str(self.video.max_pixels)}
        self._packets = container.demux(self.stream)
        self._next, self._seen = 0, list[av.Packet]()

    def packets(self) -> list[_Packet] | None:
        """All packets from the first that decoding can start at; None where some have no time.

        Raises:
            Reject: there are none.
        """
        found: list[_Packet] = []
        self._lead = 0
        timeless = False
        for packet in self._packets:
            if not packet.size:
                continue
            timeless |= packet.pts is None
            if not found and not packet.is_keyframe:
                self._lead += 1
            else:
                found.append(_Packet(packet.pts or 0, packet.size, packet.is_keyframe, packet.is_discard))
        if not found:
            raise Reject("no frame in this video that decoding could start at")
        return None if timeless else found

    def pictures(self, packets: Sequence[_Packet], wanted: Sequence[int]) -> dict[int, Image.Image] | None:
        """The pictures shown at `wanted`, rising; None where one does not come out.

        Raises:
            Reject: the video is damaged on the way there.
        """
        self._listed = packets
        images: dict[int, Image.Image] = {}
        needed = frozenset(wanted)
        self._next = len(packets)
        for stretch in _stretches(packets, sorted(needed)):
            self._go_to(stretch.start)
            for frame in self._stretch(stretch, needed):
                if frame.pts in needed and frame.pts not in images:
                    images[frame.pts] = picture(frame, self.aspect, video=self.video)
        return images if len(images) == len(needed) else None

    def _stretch(self, stretch: _Stretch, needed: frozenset[int]) -> Iterator[VideoFrame]:
        """The frames of a stretch, without those that nothing is built upon and nobody wants."""
        first = self._listed[stretch.start].pts
        for place in range(stretch.start, stretch.end + 1):
            unwanted = self._listed[place].pts not in needed
            self.codec.skip_frame = "NONREF" if unwanted and self.codec.name in _SKIPPING else "DEFAULT"
            yield from self._checked(self.codec.decode(self._take()), first)
        yield from self._checked(self.codec.decode(None), first)
        self.codec.flush_buffers()

    def _checked(self, frames: Iterable[VideoFrame], first: int | None) -> Iterator[VideoFrame]:
        """Count the frames and refuse damaged ones, but for those shown before `first`: none is used."""
        for frame in frames:
            self.decoded += 1
            if self.decoded > self.video.max_decoded:
                raise Reject(f"takes more decoded frames than the limit of {self.video.max_decoded:,}")
            if frame.is_corrupt and (first is None or frame.pts is None or frame.pts >= first):
                seconds = self.unit * (frame.pts or 0)
                raise Reject(f"damaged: its frame at {seconds:.2f} s cannot be decoded in full")
            yield frame

    def frames(self) -> Iterator[VideoFrame]:
        """All frames from the beginning."""
        self._reopen()
        for packet in self._packets:
            yield from self._checked(self.codec.decode(packet), None)

    def _take(self) -> av.Packet:
        """The next packet."""
        self._next += 1
        if self._seen:
            return self._seen.pop()
        for packet in self._packets:
            if packet.size:
                return packet
        raise Reject("changed while it was read")

    def _go_to(self, start: int) -> None:
        """Make packet number `start` the next one."""
        between = sum(packet.size for packet in self._listed[self._next : start])
        if start < self._next or between > _SKIP_BYTES:
            self._seek(start)
        while self._next < start:
            self._take()

    def _seek(self, start: int) -> None:
        """Go to packet number `start`, or to one before it."""
        assert self._container is not None
        places = {(packet.pts, packet.size): place for place, packet in enumerate(self._listed) if packet.key}
        try:
            self._container.seek(self._listed[start].pts, stream=self.stream)
            self._packets = self._container.demux(self.stream)
            self._seen = []
            packet = self._take()
            found = places.get((packet.pts if packet.pts is not None else -1, packet.size))
            if found is not None and found <= start:
                self._next, self._seen = found, [packet]
                return
        except (FFmpegError, Reject):
            pass
        self._reopen()
        for _ in range(self._lead):
            self._take()
        self._next = 0


def _refuse_others(url: str, flags: int, options: object) -> BinaryIO:
    """No format that is tried opens other files; nor does one that is found to after all."""
    raise Reject("names other files")
