"""What a video file promises: its packets, counted without decoding them; and decoding that does not hide damage.

The number of frames wanted is the larger of the container's own count and of the packets found; Matroska and WebM hold
no count but a duration, which is used where the frames are evenly spaced.  MPEG transport streams promise nothing, so
that their truncation cannot be seen; damage inside can.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from jaxtyping import Bool, Int

from tvad.errors import VideoError


@dataclass(frozen=True)
class Scan:
    """Index of a video stream.  Arrays run over the packets in the order of display."""

    promised: int
    pts: Int[np.ndarray, "n"] | None       # None: no usable time stamps, frames are counted as they come
    keyframe: Bool[np.ndarray, "n"]
    corrupt: Bool[np.ndarray, "n"]
    position: Int[np.ndarray, "n"]         # place of each packet in the undamaged video
    time_base: float
    fps: float
    size: tuple[int, int]
    quarter_turns: int                     # counter-clockwise, to show the frame upright
    codec: str


def scan(path: Path) -> Scan:
    """Read the headers of ``path``.  Raises :class:`VideoError` if it is no video or has no frame."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: the file has no video stream; give a video")
            stream = container.streams.video[0]
            first = next(decoded(container, stream, tolerant=True), None)
            if first is None:
                raise VideoError(f"{path}: no frame can be decoded; the file is damaged or empty, copy it again")
            quarter_turns = round(first.rotation / 90) % 4
            size = (first.height, first.width) if quarter_turns % 2 == 0 else (first.width, first.height)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            codec = stream.codec_context.name
            packets = _packets(container, stream)
            rows = [(packet.pts, packet.is_keyframe, packet.is_corrupt) for packet in packets
                    if not packet.is_discard and not _hidden(codec, packet)]
            promised = max(stream.frames - (len(packets) - len(rows)), len(rows))
            time_base, fps = float(stream.time_base), float(stream.average_rate or stream.guessed_rate or 25)
            declared, slack = _declared_seconds(container, stream)
    except av.FFmpegError as error:
        raise VideoError(f"{path}: not a readable video ({error.strerror}); the file is damaged, cut short or of "
                         "another kind; copy it again or convert it") from error
    if not rows:
        raise VideoError(f"{path}: the video stream has no frames; copy or record the file again")
    pts, keyframe, corrupt = (np.array(column) for column in zip(*rows, strict=True))
    if None in pts or len(np.unique(pts)) < len(pts):
        pts, position = None, np.arange(len(rows))
    else:
        order = np.argsort(pts)
        pts, keyframe, corrupt = pts[order].astype(np.int64), keyframe[order], corrupt[order]
        even = len(pts) > 1 and np.diff(pts).max() <= 1.5 * np.median(np.diff(pts))
        if even and declared is not None:
            lacking = (declared - pts[-1] * time_base) * fps - 1
            promised = max(promised, len(pts) + (round(lacking) if lacking > slack else 0))
        position = np.rint((pts - pts[0]) * time_base * fps).astype(np.int64)
        if promised == len(pts) or position[-1] >= promised or len(np.unique(position)) < len(pts):
            position = np.arange(len(pts))
    return Scan(promised, pts, keyframe, corrupt, position, time_base, fps, size, quarter_turns, codec)


def _packets(container: av.container.InputContainer, stream: av.VideoStream) -> list[av.Packet]:
    packets, source = [], container.demux(stream)
    while True:
        try:
            packet = next(source, None)
        except av.FFmpegError:
            return packets  # a broken end; the count tells
        if packet is None:
            return packets
        if packet.size:
            packets.append(packet)


def _hidden(codec: str, packet: av.Packet) -> bool:
    """VP8 stores reference frames that are never shown as packets of their own (RFC 6386, section 9.1)."""
    return codec == "vp8" and not bytes(packet)[0] >> 4 & 1


def _declared_seconds(container: av.container.InputContainer, stream: av.VideoStream) -> tuple[float | None, float]:
    """When the stream ends according to its headers, and how many frames that may be off; (None, 0) if unknown."""
    if "matroska" not in container.format.name:
        return None, 0.0
    if clock := stream.metadata.get("DURATION"):
        hours, minutes, seconds = clock.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds), 0.75
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base, 1.5
    return None, 0.0


def decoded(container: av.container.InputContainer, stream: av.VideoStream, *, tolerant: bool
             ) -> Iterator[av.VideoFrame]:
    """Frames of a stream; damage raises, or, where tolerated, drops everything up to the next key frame."""
    packets, waiting = container.demux(stream), False
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            if not tolerant:
                raise
            packet = None
        if packet is None:
            return
        if waiting and not packet.is_keyframe:
            continue
        waiting = False
        try:
            frames = [] if packet.size and packet.is_corrupt else packet.decode()
            broken = packet.size and packet.is_corrupt or any(frame.is_corrupt for frame in frames)
        except av.FFmpegError:
            if not tolerant:
                raise
            frames, broken = [], True
        yield from (frame for frame in frames if not frame.is_corrupt)
        if broken:
            if not tolerant:
                return  # the caller misses its frame and says so
            yield from _drain(stream)
            waiting = True


def _drain(stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Frames decoded soundly before the damage that still wait to be put in order."""
    try:
        frames = stream.codec_context.decode(None)
    except av.FFmpegError:
        frames = []
    stream.codec_context.flush_buffers()
    return (frame for frame in frames if not frame.is_corrupt)
