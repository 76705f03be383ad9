"""Walk through a video clip by clip."""
from __future__ import annotations

from collections.abc import Iterator

from tvad.video.clip import Clip, windows
from tvad.video.frames import Frames


def clips(frames: Frames, *, length: int, stride: int | None = None, start: int = 0, stop: int | None = None
          ) -> Iterator[Clip]:
    """Yield clips of ``length`` frames, ``stride`` apart (default ``length``), that cover ``start:stop``.

    The last clip is moved back so that it is full; a range shorter than ``length`` gives one short clip.  Frames that
    two clips share are decoded once (the source keeps the frames it read last).
    """
    stop = len(frames) if stop is None else stop
    for window in windows(stop - start, length=length, stride=stride or length):
        first = start + window.start
        yield Clip(frames.read(first, start + window.stop), frames.fps, first, frames.name)
