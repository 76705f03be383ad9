"""What a data set hands out: videos, frames on demand, whatever annotation it has, in named splits with a hash."""
from __future__ import annotations

import hashlib
import importlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tvad.errors import DatasetError
from tvad.metrics.region import GroundTruthTracks
from tvad.video.frames import Frames

REPOSITORY_DATA = Path(__file__).resolve().parents[2] / "data"

# name: (module, class)
DATASETS: Mapping[str, tuple[str, str]] = {
    "simcampus": ("tvad.datasets.simcampus", "SimCampus"),
    "ucsd_ped2": ("tvad.datasets.ucsd", "UCSDPed2"),
    "ucsd_ped1": ("tvad.datasets.ucsd", "UCSDPed1"),
    "custom": ("tvad.datasets.custom", "CustomVideos"),
}


@dataclass(frozen=True)
class Event:
    """Frames ``start:stop`` in which target ``target`` (its id in the masks; 0 unknown) does ``kind``."""

    kind: str
    start: int
    stop: int
    target: int = 0


class _Lazy:
    """A dataclass field that may be given as a function without arguments, which is called when it is first read."""

    def __init__(self, default: Any) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, video: Any, owner: type) -> Any:
        if video is None:
            return self.default
        value = video.__dict__[self.name]
        if callable(value):
            value = video.__dict__[self.name] = value()
        return value

    def __set__(self, video: Any, value: Any) -> None:
        video.__dict__[self.name] = value


@dataclass(frozen=True, eq=False)
class Video:
    """Everything that a data set knows of one video.

    ``labels`` (1 = anomalous frame), ``tracks`` (boxes of the anomalous targets), ``events`` and ``text`` may be given
    as functions, called when first read; they are None or empty where the data set has no such annotation.
    ``masks(start, stop)`` gives (m, h, w) uint8: 0 background, k > 0 the anomalous target k; binary sets give 0 and 1.
    ``truth()`` gives the simulator's full truth, where there is one.
    """

    id: str
    dataset: str
    frames: Frames
    scene: str | None = None
    labels: UInt8[np.ndarray, "n"] | None = _Lazy(None)
    masks: Callable[[int, int], UInt8[np.ndarray, "m h w"]] | None = None
    tracks: GroundTruthTracks | None = _Lazy(None)
    events: tuple[Event, ...] = _Lazy(())
    text: Mapping[str, Any] = _Lazy(dict)  # called for each video
    truth: Callable[[], Any] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:  # must not set off what is lazy
        return f"<Video {self.dataset}/{self.id}: {len(self)} frames>"


class Dataset(ABC):
    """Videos in named splits. Splits share no video, nor a scene where scenes are known."""

    name: str
    protocol: str = "standard"

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""

    @abstractmethod
    def videos(self, split: str) -> tuple[Video, ...]:
        """Videos of a split, always in the same order. Raises :class:`DatasetError` for an unknown split."""

    def split_hash(self, split: str) -> str:
        """Hash of the list of video ids and lengths of a split."""
        return hash_of([[video.id, len(video)] for video in self.videos(split)])

    def _require_split(self, split: str) -> None:
        if split not in self.splits():
            raise DatasetError(f"{self.name}: unknown split {split!r} of protocol {self.protocol!r}; "
                               f"choose one of {', '.join(self.splits())}")


def hash_of(content: Any) -> str:
    """sha256 of JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def data_root(root: str | os.PathLike | None = None) -> Path:
    """Folder of the data sets: ``root``, else the environment's ``TVAD_DATA``, else ``data/`` of the repository."""
    return Path(root or os.environ.get("TVAD_DATA") or REPOSITORY_DATA).expanduser()


def open_dataset(name: str, *, root: str | os.PathLike | None = None, protocol: str | None = None,
                 **options: Any) -> Dataset:
    """Open a data set by name: "simcampus", "ucsd_ped2", "ucsd_ped1" or "custom" (``root`` is then the user's video).

    ``options`` go to the data set's class.  Raises :class:`DatasetError` for an unknown name, protocol or option, and
    where the set is missing, naming the folder expected and the owner's page.
    """
    if name not in DATASETS:
        raise DatasetError(f"unknown data set {name!r}; choose one of {', '.join(DATASETS)}")
    module, kind = DATASETS[name]
    known = getattr(importlib.import_module(module), kind)
    if protocol is not None:
        options["protocol"] = protocol
    try:
        return known(root=root, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise DatasetError(f"{name}: {str(error).partition('() ')[2]}; see {module}.{kind}") from error
