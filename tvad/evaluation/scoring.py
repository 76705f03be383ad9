"""Score a data set with any detector: resumable, dealt out over processes, one file a video.

A file is keyed by detector and video content, so what is there and fits is not computed again.  A video that fails is
reported at the end and does not take the others with it, whatever the error; only a full disk stops at once.
"""
from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

from tqdm.auto import tqdm

from tvad.detection import Detection
from tvad.errors import CheckpointError, DatasetError, MissingPhaseError, StorageError, TvadError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """Detections by video id, and why the missing ones failed: (video id, error text)."""
    detections: Mapping[str, Detection]
    failures: tuple[tuple[str, str], ...] = ()

    def check(self) -> Scored:
        """Self where every video was scored. Raises DatasetError that counts and names the failures."""
        if self.failures:
            listed = "; ".join(f"{video}: {error}" for video, error in self.failures[:5])
            raise DatasetError(f"{len(self.failures)} videos could not be scored, {listed}; mend or remove them, then "
                               "run again: the others are kept")
        return self


def detection_path(folder: Path | str, video: Any) -> Path:
    """Where the detection of a video lies: a readable name, made unique by a hash of the exact id."""
    name = re.sub(r"[^\w.-]+", "_", video.id)
    return Path(folder) / f"{name}-{hashlib.sha256(video.id.encode()).hexdigest()[:6]}.npz"


def detection_key(detector: Any, video: Any, events: Sequence[str] = ()) -> str:
    """What a stored detection depends on: detector, frames and the words asked for."""
    parts = f"{detector.fingerprint}\n{video.frames.fingerprint}\n{list(events)}"
    return hashlib.sha256(parts.encode()).hexdigest()[:24]


def score_dataset(detector: Any, videos: Sequence[Any], output_dir: Path | str, *, events: Sequence[str] = (),
                  part: tuple[int, int] = (0, 1), progress: bool = True) -> Scored:
    """Score ``videos`` with a detector; what ``output_dir`` holds already is not computed again.

    ``part``: (index, count), every ``count``-th video from ``index``, so that several processes share a data set.
    A video that cannot be read or scored is logged and listed in ``failures``; other errors than the workbook's own are
    logged with their trace.
    Raises :class:`StorageError` when the disk refuses; everything scored before stays.
    """
    detections, failures = {}, []
    for video in tqdm(videos[part[0]::part[1]], desc=f"{detector.name}: scoring", unit="video", disable=not progress):
        path, key = detection_path(output_dir, video), detection_key(detector, video, events)
        try:
            detections[video.id] = stored(path, key) or _scored(detector, video, events, path, key)
        except StorageError:
            raise
        except TvadError as error:
            _LOG.warning("%s: not scored: %s", video.id, error)
            failures.append((video.id, str(error)))
        except Exception as error:      # a fault of the detector: told with its trace, and the next video is tried
            _LOG.exception("%s: not scored", video.id)
            failures.append((video.id, f"{type(error).__name__}: {error}"))
    return Scored(detections, tuple(failures))


def stored(path: Path, key: str) -> Detection | None:
    """A detection made before under the same key; None, with a word where a file is there but cannot serve."""
    if not path.is_file():
        return None
    try:
        return Detection.load(path, key=key)
    except CheckpointError as error:
        _LOG.warning("%s", error)
        return None


def _scored(detector: Any, video: Any, events: Sequence[str], path: Path, key: str) -> Detection:
    detection = detector.score(video, events)
    detection.save(path, key=key)
    return detection


def load_detections(folder: Path | str, videos: Sequence[Any]) -> dict[str, Detection]:
    """The stored detections of ``videos``, as they were kept, whatever detector made them.

    Raises:
        MissingPhaseError: some are missing or damaged, naming the first and the command that makes them.
    """
    try:
        return {video.id: Detection.load(detection_path(folder, video)) for video in videos}
    except CheckpointError as error:
        raise MissingPhaseError(f"{error}; the split is not scored as a whole, run: python -m tvad.evaluation "
                                "score") from error
