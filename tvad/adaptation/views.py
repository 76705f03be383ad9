"""Footage cut in time or made smaller: videos that are views of other videos."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tvad.errors import VideoError
from tvad.video.frames import Frames

_TOGETHER = 16  # frames of the source held at once


class _View(Frames):
    """The first ``count`` frames of a source; the source decodes them, in runs, so that a file is not sought anew."""

    def __init__(self, source: Frames, count: int, *, suffix: str, resize: tuple[int, int] | None = None) -> None:
        self._source = source
        super().__init__(source.name, fps=source.fps, size=source.size, positions=source.positions[:count],
                         times=source.times[:count], fingerprint=f"{source.fingerprint} {suffix}", losses=source.losses,
                         resize=resize)

    def _decode(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        for start in range(0, len(indices), _TOGETHER):
            yield from self._source.take(indices[start:start + _TOGETHER])

    def close(self) -> None:
        """Free the source's decoder and the kept frames of both."""
        super().close()
        self._source.close()


def beginning(frames: Frames, stop: int) -> Frames:
    """The first ``stop`` frames of a video, the video itself where that is all of it.

    Raises :class:`VideoError` for a ``stop`` beyond the video's end.
    """
    if not 0 < stop <= len(frames):
        raise VideoError(f"{frames.name}: wanted the first {stop} frames, the video has {len(frames)}; ask for less")
    return frames if stop == len(frames) else _View(frames, stop, suffix=f"to {stop}")


def reduced(frames: Frames, backbone: Any) -> Frames:
    """The video at the tower's input size (area averages) where that is smaller than the footage, else the video itself.

    Larger pictures cost composites time and give nothing; training and detection must reduce them alike.
    """
    rule = getattr(backbone, "input_size", None)
    size = tuple(frames.size) if rule is None else tuple(rule(*frames.size))
    smaller = size[0] * size[1] < frames.size[0] * frames.size[1]
    return _View(frames, len(frames), suffix="reduced", resize=size) if smaller else frames
