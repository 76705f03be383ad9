"""Any video file, folder of videos, folder of frames or folder of such folders of the user's; without labels."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tvad.datasets.base import Dataset, Video
from tvad.errors import DatasetError
from tvad.video.folder import list_images, natural_key
from tvad.video.read import open_frames

VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".ogv", ".ts", ".webm", ".wmv",
})


class CustomVideos(Dataset):
    """The user's own footage: one split, "all", of every video at or under ``root``, in natural order.

    A folder that holds images is one video.  ``options`` go to :func:`tvad.video.open_frames`.  Raises
    :class:`DatasetError` where nothing is found; a damaged video raises :class:`VideoError` with its name.
    """

    name = "custom"

    def __init__(self, *, root: str | os.PathLike | None = None, protocol: str = "standard", **options: Any) -> None:
        if root is None:
            raise DatasetError("custom: no video given; pass root=, the path of a video or folder")
        if protocol != "standard":
            raise DatasetError(f"custom: unknown protocol {protocol!r}; it has one, 'standard'")
        self.path, self._options = Path(root).expanduser(), options
        self._videos: tuple[Video, ...] | None = None
        self._sources = self._find()

    def _find(self) -> list[Path]:
        if not self.path.exists():
            raise DatasetError(f"{self.path}: no such file or folder; pass the path of a video or of a folder")
        if self.path.is_file():
            return [self.path]
        found = []
        for folder, inner, names in os.walk(self.path):
            inner[:] = [name for name in inner if not name.startswith(".")]
            if list_images(Path(folder)):
                found.append(Path(folder))
            found += [Path(folder) / name for name in names
                      if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")]
        if not found:
            raise DatasetError(f"{self.path}: no videos and no images inside (looked for "
                               f"{' '.join(sorted(VIDEO_SUFFIXES))}); give the folder that holds them")
        return sorted(found, key=lambda path: natural_key(str(path)))

    def splits(self) -> tuple[str, ...]:
        """("all",)."""
        return ("all",)

    def videos(self, split: str) -> tuple[Video, ...]:
        """All videos; ids are paths relative to ``root``."""
        self._require_split(split)
        if self._videos is None:
            base = self.path if self.path.is_dir() else self.path.parent
            self._videos = tuple(
                Video(path.name if path == base else path.relative_to(base).as_posix(), self.name,
                      open_frames(path, **self._options)) for path in self._sources)
        return self._videos
