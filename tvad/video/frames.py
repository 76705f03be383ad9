"""``Frames``: a video as a sequence of RGB frames that are decoded when asked for.

Every source (file, folder, array, rendered footage) implements ``_decode`` alone.  The base class checks ranges, keeps
the frames of the last read so that overlapping windows do not decode twice, and resizes.  Nothing is ever padded: a
frame that cannot be had is an error, or, where the caller asked to keep the readable part, a :class:`Loss`.
"""
from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from tvad.errors import VideoError

CACHE_BYTES = 192 << 20  # 24 frames of 1080p, the longest window in use, fit


@dataclass(frozen=True)
class Loss:
    """Frames ``start:stop`` of the undamaged video that could not be read, and why."""

    file: str
    start: int
    stop: int
    cause: str


class Frames(ABC):
    """Sequence of RGB frames, decoded lazily.  Not safe for use by several threads at once; may be pickled.

    Attributes: ``name``; ``fps`` (mean frame rate); ``size`` (height, width) of what ``read`` returns; ``losses``
    (empty for an undamaged video); ``fingerprint`` (hash of the content and of how it is read, for caches);
    ``positions`` (index of each frame in the undamaged source); ``times`` (seconds from the first frame).
    """

    def __init__(
        self,
        name: str,
        *,
        fps: float,
        size: tuple[int, int],
        positions: Int[np.ndarray, "n"],
        times: Float[np.ndarray, "n"] | None = None,
        fingerprint: str,
        losses: Sequence[Loss] = (),
        resize: tuple[int, int] | None = None,
    ) -> None:
        if resize is not None and min(resize) < 1:
            raise VideoError(f"{name}: size must be a positive (height, width), got {resize}")
        self.name = name
        self.fps = float(fps)
        self.size = tuple(resize or size)
        self.positions = np.asarray(positions, np.int64)
        self.times = self.positions / self.fps if times is None else np.asarray(times, np.float64)
        self.losses = tuple(losses)
        self._resize = resize
        parts = [fingerprint, resize, self.fps, [(loss.start, loss.stop) for loss in self.losses]]
        self.fingerprint = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
        self._cache: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        height, width = self.size
        return f"<{type(self).__name__} {self.name}: {len(self)} frames {height}x{width} at {self.fps:g} fps>"

    def read(self, start: int, stop: int) -> UInt8[np.ndarray, "n h w 3"]:
        """Frames ``start:stop``.  Raises :class:`VideoError` beyond the video's ends and for damaged frames."""
        if not 0 <= start <= stop <= len(self):
            raise VideoError(f"{self.name}: wanted frames {start}:{stop}, the video has {len(self)}; ask for less")
        return self.take(range(start, stop))

    def take(self, indices: Iterable[int]) -> UInt8[np.ndarray, "n h w 3"]:
        """Frames at ``indices``, in their order; negative indices are refused."""
        indices = _inside(self, indices).tolist()
        out = np.empty((len(indices), *self.size, 3), np.uint8)
        missing = sorted(set(indices) - self._cache.keys())
        places: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            places.setdefault(index, []).append(place)
            if index in self._cache:
                out[place] = self._cache[index]
        # the next window overlaps this one at most; a data set has many videos, so no more is kept
        room = CACHE_BYTES // max(1, 3 * self.size[0] * self.size[1])
        keep = set(sorted(places)[-room:])
        self._cache = {index: frame for index, frame in self._cache.items() if index in keep}
        for index, frame in zip(missing, self._decode(missing), strict=True):
            out[places[index]] = frame = self._fit(index, frame)
            if index in keep:
                self._cache[index] = frame
        if len(self) - 1 in places:
            self.close()  # the walk through the video is over
        return out

    def check(self) -> None:
        """Decode everything once; raises :class:`VideoError` at the first damaged frame."""
        for start in range(0, len(self), 32):
            self.read(start, min(start + 32, len(self)))

    def at_rate(self, fps: float) -> Frames:
        """The same video sampled at ``fps``: for each tick of that clock the nearest frame.

        Raises :class:`VideoError` above the video's own rate, where frames would have to be repeated.
        """
        return self if abs(fps - self.fps) < 1e-9 * self.fps else SampledFrames(self, fps)

    def close(self) -> None:
        """Free decoder and kept frames; a later read opens the source again."""
        self._cache.clear()

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_cache": {}}

    @abstractmethod
    def _decode(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Yield one frame for each of the strictly increasing ``indices``."""

    def _fit(self, index: int, frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        if frame.shape[:2] == self.size:
            return frame
        if self._resize is None:
            raise VideoError(size_message(self.name, index, frame.shape[:2], self.size))
        # area averaging when shrinking, so that thin things do not vanish between samples
        shrinks = frame.shape[0] >= self.size[0] and frame.shape[1] >= self.size[1]
        mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(frame, self.size[::-1], interpolation=mode)


def _inside(frames: Frames, indices: Iterable[int]) -> Int[np.ndarray, "n"]:
    indices = np.fromiter(indices, np.int64)
    for index in indices[(indices < 0) | (indices >= len(frames))]:
        raise VideoError(f"{frames.name}: wanted frame {index}, the video has {len(frames)}; ask for less")
    return indices


def size_message(name: str, index: int, got: Sequence[int], wanted: Sequence[int]) -> str:
    """Text of the error for a frame that is not as large as the first."""
    return (f"{name}: frame {index} is {got[0]}x{got[1]} (height x width), wanted {wanted[0]}x{wanted[1]} as the "
            f"first; pass size=(height, width) to resize all")


class ArrayFrames(Frames):
    """Frames that are in memory already: ``array`` is (n, h, w, 3) or grey (n, h, w), uint8."""

    def __init__(self, array: UInt8[np.ndarray, "n h w *c"], fps: float, name: str = "array") -> None:
        array = np.asarray(array)
        if array.dtype != np.uint8 or not (array.ndim == 3 or array.ndim == 4 and array.shape[-1] in (1, 3)):
            raise VideoError(f"{name}: wanted uint8 frames (n, h, w, 3) or (n, h, w), got {array.dtype} {array.shape}")
        if not len(array):
            raise VideoError(f"{name}: the array holds no frames")
        if array.ndim == 3:
            array = array[..., None]
        self._array = np.broadcast_to(array, (*array.shape[:3], 3))
        digest = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
        super().__init__(name, fps=fps, size=array.shape[1:3], positions=np.arange(len(array)),
                         fingerprint=f"{digest} {array.shape} {fps}")

    def take(self, indices: Iterable[int]) -> UInt8[np.ndarray, "n h w 3"]:
        """As ``Frames.take``; always a copy."""
        return self._array[_inside(self, indices)]

    def _decode(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return (self._array[index] for index in indices)


class SampledFrames(Frames):
    """A video at a lower frame rate; made by :meth:`Frames.at_rate`."""

    def __init__(self, source: Frames, fps: float) -> None:
        if not fps > 0:
            raise VideoError(f"{source.name}: the frame rate to sample at must be positive, got {fps}")
        if fps > source.fps * 1.001:
            raise VideoError(f"{source.name}: cannot sample at {fps:g} fps, the video has {source.fps:g}; "
                             "frames would have to be repeated, ask for less")
        span = source.times[-1] - source.times[0] + 1 / source.fps
        ticks = np.arange(max(1, int(np.floor(span * fps + 1e-6)))) / fps + source.times[0]
        # the nearest frame, a tie to the later one; the excess covers time stamps rounded to the container's clock
        chosen = np.searchsorted(source.times, ticks + 0.501 / source.fps, side="right") - 1
        chosen = np.unique(np.clip(chosen, 0, len(source) - 1))
        self._source, self._chosen = source, chosen
        super().__init__(source.name, fps=fps, size=source.size, positions=source.positions[chosen],
                         times=source.times[chosen], fingerprint=f"{source.fingerprint} at {fps:.6f}",
                         losses=source.losses)

    def take(self, indices: Iterable[int]) -> UInt8[np.ndarray, "n h w 3"]:
        """As ``Frames.take``; the source keeps what was read."""
        return self._source.take(self._chosen[_inside(self, indices)])

    def _decode(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return iter(self._source.take(self._chosen[list(indices)]))

    def close(self) -> None:
        """Free the source's decoder and kept frames."""
        self._source.close()
