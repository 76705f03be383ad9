"""Open a video file or a folder of frames.

``open_frames`` is the one door: it takes PyAV by default, decord or torchcodec by name, folders of images, and compares
the frames that can be had with those the file promises (OpenCV and several readers return short clips in silence).
"""
from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from tvad.errors import VideoError
from tvad.video.clip import Clip
from tvad.video.decoders import DECODERS
from tvad.video.folder import FolderFrames
from tvad.video.frames import Frames
from tvad.video.scan import scan

DAMAGED = ("raise", "keep")


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, without decoding it: ``kind`` is "file" or "folder", sizes are pixels as shown."""

    frames: int
    fps: float
    height: int
    width: int
    codec: str
    kind: str


def probe(path: str | PathLike) -> VideoInfo:
    """Look at a video.  ``frames`` counts what a file promises, even where fewer can be read.

    Raises :class:`VideoError` if ``path`` is missing, empty or no video, or a folder without its full set of frames.
    """
    path = _existing(path)
    if path.is_dir():
        frames = FolderFrames(path, native_fps=None, damaged="raise", resize=None)
        codec = frames.paths[0].suffix.lower().lstrip(".")
        return VideoInfo(len(frames), frames.fps, *frames.size, codec=codec, kind="folder")
    found = scan(path)
    return VideoInfo(found.promised, found.fps, *found.size, codec=found.codec, kind="file")


def open_frames(
    path: str | PathLike,
    *,
    decoder: str = "pyav",
    fps: float | None = None,
    damaged: str = "raise",
    size: tuple[int, int] | None = None,
    native_fps: float | None = None,
) -> Frames:
    """Open a video file or a folder of jpg, png, bmp or tif images as RGB frames.

    Args:
        path: file, or folder with the images of one video.
        decoder: "pyav", "decord" or "torchcodec"; pixels are the same, the latter two must be installed.
        fps: sample at this rate; at most the video's own.
        damaged: "raise", or "keep" to use the readable part and note the rest in ``losses`` (decodes everything once).
        size: (height, width) to resize to; otherwise all frames must be as large as the first.
        native_fps: frame rate of the source where it carries none (folders; 25 is assumed) or a wrong one.

    Raises:
        VideoError: missing, empty, truncated or damaged video, naming the file, what was wanted, got, and the remedy.
            Damage inside of a frame shows when that frame is read; ``Frames.check`` reads all of them.
    """
    path = _existing(path)
    if decoder not in DECODERS:
        raise VideoError(f"{path}: unknown decoder {decoder!r}; choose one of {', '.join(DECODERS)}")
    if damaged not in DAMAGED:
        raise VideoError(f"{path}: damaged={damaged!r} is unknown; choose one of {', '.join(DAMAGED)}")
    if native_fps is not None and not native_fps > 0:
        raise VideoError(f"{path}: native_fps must be positive, got {native_fps}")
    if path.is_dir():
        if fps is not None and native_fps is None:
            raise VideoError(f"{path}: a folder of images has no frame rate to sample {fps:g} fps from; "
                             "pass native_fps, the rate at which it was recorded")
        frames: Frames = FolderFrames(path, native_fps=native_fps, damaged=damaged, resize=size)
    else:
        frames = DECODERS[decoder](path, native_fps=native_fps, damaged=damaged, resize=size)
    return frames if fps is None else frames.at_rate(fps)


def read_clip(path: str | PathLike, *, start: int = 0, frames: int = 16, fps: float | None = None) -> Clip:
    """Read ``frames`` frames from ``start`` on (counted at ``fps`` where given).

    Raises :class:`VideoError` where the video ends sooner: a clip is never padded.
    """
    with open_frames(path, fps=fps) as source:
        if start < 0 or frames < 1 or start + frames > len(source):
            raise VideoError(f"{source.name}: wanted {frames} frames from frame {start} on, the video has "
                             f"{len(source)}; ask for a shorter or earlier clip")
        return Clip(source.read(start, start + frames), source.fps, start, source.name)


def _existing(path: str | PathLike) -> Path:
    path = Path(path)
    if not path.exists():
        raise VideoError(f"{path}: no such file or folder; check the path")
    if path.is_file() and not path.stat().st_size:
        raise VideoError(f"{path}: the file is empty (0 bytes); copy or record it again")
    return path
