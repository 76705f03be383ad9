"""Video files through PyAV (default), decord or torchcodec: the same pixels, the same errors.

PyAV is asked to fail at damage instead of painting over it, and every decoded frame is matched with the packet that
promised it.  A running decoder is kept, so that reading on costs one decode a frame; going elsewhere starts from the
nearest key frame before, and where a container seeks badly, from the beginning.
"""
from __future__ import annotations

import hashlib
import importlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from tvad.errors import VideoError
from tvad.video.frames import Frames, Loss
from tvad.video.scan import Scan, decoded, scan

EDGE_BYTES = 64 << 10


class FileFrames(Frames):
    """Common part of the decoders: compares the frames found with those promised."""

    def __init__(self, path: Path, *, native_fps: float | None, damaged: str, resize: tuple[int, int] | None) -> None:
        self._path, self._tolerant, self._scan = path, damaged == "keep", scan(path)
        found = self._scan
        sound = int((~found.corrupt).sum())
        if sound < found.promised and not self._tolerant:
            raise VideoError(f"{path}: wanted {found.promised} frames, got {sound}; the file is cut short or damaged, "
                             "copy it again, or pass damaged='keep' to use the readable part")
        kept = self._salvage() if self._tolerant else np.arange(len(found.position))
        if not len(kept):
            raise VideoError(f"{path}: wanted {found.promised} frames, got 0; nothing of the file can be decoded")
        self._packets = kept
        fps = native_fps or found.fps
        times = None
        if found.pts is not None and native_fps is None:
            times = (found.pts[kept] - found.pts[0]) * found.time_base
        super().__init__(str(path), fps=fps, size=found.size, positions=found.position[kept], times=times,
                         fingerprint=_fingerprint(path), losses=_losses(str(path), found, kept), resize=resize)

    def _salvage(self) -> np.ndarray:
        raise VideoError(f"{self._path}: damaged='keep' needs decoder='pyav'; the others cannot skip damaged parts")


class PyAVFrames(FileFrames):
    """A file decoded by PyAV."""

    def __init__(self, path: Path, **options: Any) -> None:
        self._container: av.container.InputContainer | None = None
        self._running: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._upcoming = 0  # no packet before this one can still come out of the running decoder
        super().__init__(path, **options)

    def close(self) -> None:
        """As ``Frames.close``."""
        super().close()
        self._stop()

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_container": None, "_running": None, "_upcoming": 0}

    def _decode(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        for index in indices:
            packet = int(self._packets[index])
            frame = self._advance(packet, rewind=False)
            if frame is None:
                frame = self._advance(packet, rewind=True)  # a second look from the start; raises if it fails
            yield np.rot90(frame.to_ndarray(format="rgb24"), self._scan.quarter_turns)

    def _advance(self, packet: int, *, rewind: bool) -> av.VideoFrame | None:
        self._move(packet, rewind=rewind)
        cause = "it is missing from the stream"
        try:
            for got, frame in self._running:
                self._upcoming = got + 1
                if got == packet:
                    return frame
                if got > packet:
                    break
        except av.FFmpegError as error:
            cause = f"the data are damaged ({error.strerror})"
        got = self._upcoming
        self._stop()
        if rewind:
            raise VideoError(f"{self._path}: wanted {self._scan.promised} frames, got {min(got, packet)}: frame "
                             f"{self._scan.position[packet]} cannot be decoded, {cause}; copy the file again, or pass "
                             "damaged='keep' to use the readable part")
        return None

    def _move(self, packet: int, *, rewind: bool) -> None:
        """Bring the running decoder to where ``packet`` is still to come, by the shortest way."""
        found = self._scan
        keys = np.flatnonzero(found.keyframe[:packet + 1])
        key = int(keys[-1]) if len(keys) and found.pts is not None and not rewind else 0
        if self._container is not None and not rewind and key <= self._upcoming <= packet:
            return
        if self._container is None or key == 0:
            self._stop()
            self._container = av.open(str(self._path))
            stream = self._container.streams.video[0]
            stream.thread_type = "NONE" if self._tolerant else "AUTO"  # threads would move where an error shows
            stream.codec_context.options = {"err_detect": "explode"}
        if key:
            self._container.seek(int(found.pts[key]), stream=self._container.streams.video[0])
        self._upcoming = key
        self._running = self._frames(skip_before=key)

    def _frames(self, *, skip_before: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode on from here; yields (packet index, frame), in order of display."""
        stream, pts = self._container.streams.video[0], self._scan.pts
        count = 0
        for frame in decoded(self._container, stream, tolerant=self._tolerant):
            if pts is None:
                yield count, frame
                count += 1
            elif frame.pts is not None:
                index = int(np.searchsorted(pts, frame.pts))
                # behind a seek, leading frames that lean on the group before come out broken: they are not asked for
                if skip_before <= index < len(pts) and pts[index] == frame.pts:
                    yield index, frame

    def _salvage(self) -> np.ndarray:
        self._move(0, rewind=True)
        kept = np.array([index for index, _ in self._running if index < len(self._scan.position)], np.int64)
        self._stop()
        return kept

    def _stop(self) -> None:
        if self._container is not None:
            self._running, self._upcoming = iter(()), 0
            self._container.close()
            self._container = None


class PluginFrames(FileFrames):
    """A file decoded by an optional library with random access; ``_open`` and ``_fetch`` know that library."""

    library = ""  # as pip knows it
    module = ""

    def __init__(self, path: Path, **options: Any) -> None:
        try:
            self._module = importlib.import_module(self.module)
        except Exception as error:  # a plugin without its shared libraries raises RuntimeError or OSError
            raise VideoError(f"{path}: decoder {self.library!r} cannot be imported ({_brief(error)}); install it with: "
                             f"pip install {self.library}, or use decoder='pyav'") from error
        self._reader: Any = None
        super().__init__(path, **options)
        try:
            self._open()  # torchcodec looks for the FFmpeg libraries only now
        except Exception as error:
            raise VideoError(f"{path}: {self.library} cannot open it ({_brief(error)}); use decoder='pyav'") from error

    def close(self) -> None:
        """As ``Frames.close``."""
        super().close()
        self._reader = None

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_reader": None, "_module": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._module = importlib.import_module(self.module)

    def _decode(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        if not indices:
            return
        try:
            if self._reader is None:
                self._reader = self._open()
            if len(self._reader) != len(self._scan.position):
                raise RuntimeError(f"it finds {len(self._reader)} frames")
            batch = self._fetch(list(indices))
        except Exception as error:  # these libraries raise their own unrelated types
            raise VideoError(f"{self._path}: wanted {self._scan.promised} frames, got an error from {self.library} at "
                             f"frames {indices[0]}:{indices[-1] + 1} ({_brief(error)}); try decoder='pyav'") from error
        yield from batch

    @abstractmethod
    def _open(self) -> Any:
        """A reader of the library, with a length."""

    @abstractmethod
    def _fetch(self, indices: list[int]) -> UInt8[np.ndarray, "n h w 3"]:
        """Frames at ``indices`` as RGB."""


class DecordFrames(PluginFrames):
    """A file decoded by decord."""

    library = module = "decord"

    def _open(self) -> Any:
        return self._module.VideoReader(str(self._path), num_threads=1)

    def _fetch(self, indices: list[int]) -> UInt8[np.ndarray, "n h w 3"]:
        return self._reader.get_batch(indices).asnumpy()


class TorchcodecFrames(PluginFrames):
    """A file decoded by torchcodec."""

    library, module = "torchcodec", "torchcodec.decoders"

    def _open(self) -> Any:
        return self._module.VideoDecoder(str(self._path), dimension_order="NHWC", num_ffmpeg_threads=1)

    def _fetch(self, indices: list[int]) -> UInt8[np.ndarray, "n h w 3"]:
        return self._reader.get_frames_at(indices).data.numpy()


DECODERS: dict[str, Callable[..., FileFrames]] = {
    "pyav": PyAVFrames, "decord": DecordFrames, "torchcodec": TorchcodecFrames,
}


def _brief(error: Exception) -> str:
    """The first words of an error; torchcodec tells a long story."""
    return " ".join(str(error).split())[:160]


def _losses(file: str, found: Scan, kept: np.ndarray) -> list[Loss]:
    readable = np.zeros(found.promised, bool)
    readable[found.position[kept]] = True
    edges = np.flatnonzero(np.diff(np.r_[True, readable, True].astype(np.int8)))
    return [Loss(file, int(start), int(stop), "the file ends before" if stop == found.promised else "damaged data")
            for start, stop in edges.reshape(-1, 2)]


def _fingerprint(path: Path) -> str:
    """Cheap hash of a file: its size, its time, and both of its ends."""
    status = path.stat()
    digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode())
    with path.open("rb") as file:
        digest.update(file.read(EDGE_BYTES))
        file.seek(max(0, status.st_size - EDGE_BYTES))
        digest.update(file.read())
    return digest.hexdigest()
