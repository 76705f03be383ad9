"""Folders of still frames in natural order, with the check that no number is missing."""
from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from tvad.errors import VideoError
from tvad.video.frames import Frames, Loss, size_message

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
FOLDER_FPS = 25.0  # a folder carries no frame rate


def natural_key(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Sorting key that puts ``frame10`` behind ``frame9``."""
    return tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part.lower())
                 for part in re.split(r"(\d+)", name) if part)


def list_images(folder: Path) -> list[Path]:
    """Image files of ``folder`` in natural order; hidden files (``._001.tif`` of some archives) are left out."""
    names = [entry.name for entry in os.scandir(folder)
             if not entry.name.startswith(".") and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES]
    return [folder / name for name in sorted(names, key=natural_key)]


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """One image as RGB.  Raises :class:`VideoError` naming the file (Pillow refuses truncated files, OpenCV pads)."""
    try:
        with Image.open(path) as image:
            image.load()
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith(("I", "F")):  # 16-bit grey: keep the high byte, Pillow would clip
                return np.repeat((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)[..., None],
                                 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: not a readable image ({error}); replace the file, "
                         "or pass damaged='keep' to use the readable frames") from error


def missing_numbers(paths: Sequence[Path]) -> tuple[int, dict[str, int]]:
    """Gaps of an evenly numbered folder: (numbers wanted, {file before the gap: frames missing there}).

    The step is the commonest distance between neighbours.  A folder where fewer than half of the distances agree
    (time stamps as names) is not evenly numbered and has no gaps.
    """
    matches = [re.fullmatch(r"(.*?)(\d+)(\D*)", path.stem) for path in paths]
    if len(paths) < 2 or None in matches or len({match[1] for match in matches}) > 1:
        return len(paths), {}
    numbers = np.array([int(match[2]) for match in matches])
    steps = np.diff(numbers)
    step, times = Counter(steps.tolist()).most_common(1)[0]
    if times * 2 < len(steps) or step < 1:
        if (steps == 0).any():
            where = int(np.argmin(steps))
            raise VideoError(f"{paths[where]}: {paths[where + 1].name} has the same number; keep one file a frame")
        return len(paths), {}
    gaps = {}
    for before, jump in zip(paths, steps.tolist(), strict=False):
        if jump == 0:
            raise VideoError(f"{before}: another image of this folder has the same number; keep one file a frame")
        if jump > step:
            gaps[before.name] = -(-jump // step) - 1
    return len(paths) + sum(gaps.values()), gaps


class FolderFrames(Frames):
    """Frames of a folder; made by :func:`tvad.video.open_frames`."""

    def __init__(self, folder: Path, *, native_fps: float | None, damaged: str,
                 resize: tuple[int, int] | None) -> None:
        paths = list_images(folder)
        if not paths:
            raise VideoError(f"{folder}: the folder has no frames (wanted {', '.join(sorted(IMAGE_SUFFIXES))}); "
                             "give the folder that holds the images themselves")
        wanted, gaps = missing_numbers(paths)
        losses, positions, position = [], [], 0
        for path in paths:
            positions.append(position)
            position += 1
            if gap := gaps.get(path.name):
                losses.append(Loss(str(folder), position, position + gap, f"no file between {path.name} and the next"))
                position += gap
        if losses and damaged == "raise":
            raise VideoError(
                f"{folder}: wanted {wanted} consecutively numbered frames, got {len(paths)}; the first missing one "
                f"follows {next(iter(gaps))}; restore the files, or pass damaged='keep' to use those that are there")
        if damaged == "keep":
            readable = []
            for place, path in enumerate(paths):
                try:
                    read_image(path)
                    readable.append(place)
                except VideoError as error:
                    losses.append(Loss(str(path), positions[place], positions[place] + 1, str(error.__cause__)))
            if not readable:
                raise VideoError(f"{folder}: wanted {wanted} frames, got 0; none of its images can be read")
            paths, positions = [paths[k] for k in readable], [positions[k] for k in readable]
        self.paths = paths
        super().__init__(
            str(folder), fps=native_fps or FOLDER_FPS, size=read_image(paths[0]).shape[:2], resize=resize,
            positions=np.array(positions), losses=sorted(losses, key=lambda loss: loss.start),
            fingerprint=_fingerprint(paths))

    def _decode(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        for index in indices:
            frame = read_image(self.paths[index])
            if frame.shape[:2] != self.size and self._resize is None:
                raise VideoError(size_message(str(self.paths[index]), index, frame.shape[:2], self.size))
            yield frame


def _fingerprint(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    for path in (paths[0], paths[len(paths) // 2], paths[-1]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
