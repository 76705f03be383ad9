"""Clips, and the sliding windows that cut a video into them and join their results again."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from tvad.errors import VideoError


@dataclass(frozen=True)
class Clip:
    """Consecutive RGB frames of a video.

    ``frames`` is (t, h, w, 3) uint8, ``fps`` in frames a second, ``start`` the index of the first frame in the video
    as it was opened, ``video`` its name.
    """

    frames: UInt8[np.ndarray, "t h w 3"]
    fps: float
    start: int
    video: str

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or self.frames.dtype != np.uint8:
            raise VideoError(
                f"{self.video}: a clip needs uint8 RGB frames of shape (t, h, w, 3), "
                f"got {self.frames.dtype} {self.frames.shape}; convert them first"
            )
        if not self.fps > 0:
            raise VideoError(f"{self.video}: a clip needs a positive frame rate, got fps={self.fps}")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def stop(self) -> int:
        """Index of the frame behind the last one."""
        return self.start + len(self.frames)


class Window(NamedTuple):
    """Half-open range of frames; unpacks as ``start, stop``."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of frames."""
        return self.stop - self.start


def windows(n_frames: int, *, length: int, stride: int) -> list[Window]:
    """Cut ``n_frames`` into windows that cover every frame.

    All windows have ``length`` frames: the last one is moved back until it ends with the video.  A video shorter than
    ``length`` gives one short window; an empty one gives none.  Raises ``ValueError`` where a gap would stay open.
    """
    if length < 1 or not 1 <= stride <= length:
        raise ValueError(f"windows need length >= 1 and 1 <= stride <= length, got length={length}, stride={stride}")
    if n_frames < 0:
        raise ValueError(f"n_frames must not be negative, got {n_frames}")
    if n_frames <= length:
        return [Window(0, n_frames)] if n_frames else []
    starts = list(range(0, n_frames - length + 1, stride))
    if starts[-1] + length < n_frames:
        starts.append(n_frames - length)
    return [Window(start, start + length) for start in starts]


def stitch(parts: Iterable[tuple[int, Float[np.ndarray, "t *rest"]]], n_frames: int) -> Float[np.ndarray, "n *rest"]:
    """Join per-frame values of overlapping windows into one array of ``n_frames``; overlaps are averaged.

    ``parts`` yields (index of the first frame, values of shape (t, ...)).  Sums run in float64; the result has the
    values' own type where that is float32 or float64, float32 for shorter floats, float64 for integers.  Raises
    ``ValueError`` where a part leaves the video or a frame stays without a value.
    """
    total = dtype = None
    count = np.zeros(n_frames, np.int64)
    for start, values in parts:
        values = np.asarray(values)
        stop = start + len(values)
        if start < 0 or stop > n_frames:
            raise ValueError(f"stitch: part {start}:{stop} lies outside of the video's {n_frames} frames")
        if total is None:
            total = np.zeros((n_frames, *values.shape[1:]))
            dtype = np.result_type(values.dtype, np.float32)
        elif values.shape[1:] != total.shape[1:]:
            raise ValueError(f"stitch: part at {start} has shape {values.shape[1:]} a frame, wanted {total.shape[1:]}")
        total[start:stop] += values
        count[start:stop] += 1
    if total is None:
        raise ValueError(f"stitch: no parts for {n_frames} frames")
    if not count.all():
        raise ValueError(f"stitch: {int((count == 0).sum())} of {n_frames} frames have no value, "
                         f"first {int(np.argmin(count))}; the windows must cover every frame")
    total /= count.reshape(-1, *[1] * (total.ndim - 1))
    return total.astype(dtype)
