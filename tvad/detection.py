"""What a detector says of one video, how it is kept on disk, and the steps from heatmap to scores and regions.

Frame score: mean of the top 1 % of the heatmap's patches, copied to the frames of the temporal patch, overlapping
windows averaged, then smoothed within the video.  Regions: connected components at several thresholds, linked into
tracks.  Smoothing and thresholds are ``Scoring``; they are fixed on validation (``calibrate``) and travel with the
decoder's weights as ``detector.json``.
"""
from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float32

from tvad.errors import CheckpointError, ParameterError
from tvad.metrics.components import regions_from_heatmap
from tvad.metrics.frame import micro_auc, smooth
from tvad.metrics.region import Regions, link_tracks, rbdc_tbdc
from tvad.record import atomic_write, write_json

SIGMAS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0)
THRESHOLD_SETS = ((0.5,), (0.3, 0.7), (0.2, 0.4, 0.6, 0.8), (0.1, 0.5, 0.9), (0.5, 0.7, 0.9),
                  (0.05, 0.2, 0.5, 0.8, 0.95))


@dataclass(frozen=True)
class Scoring:
    """From heatmaps to scores: windows of ``frames_per_clip`` every ``stride`` frames, mean of the ``top_fraction``,
    smoothing ``sigma`` in frames, component ``thresholds``, least component ``min_area`` in patches."""
    frames_per_clip: int = 16
    stride: int = 16
    top_fraction: float = 0.01
    sigma: float = 0.0
    thresholds: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    min_area: int = 1
    region_score: str = "mean"
    chosen_on: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", tuple(float(value) for value in self.thresholds))
        if not 1 <= self.stride <= self.frames_per_clip or not 0 < self.top_fraction <= 1 or not self.sigma >= 0:
            raise ParameterError(f"scoring: stride {self.stride} must be 1 to frames_per_clip {self.frames_per_clip}, "
                                 f"top_fraction {self.top_fraction} in (0, 1], sigma {self.sigma} at least 0")
        if not self.thresholds:
            raise ParameterError("scoring: thresholds is empty; give at least one")

    def choice_on(self, split: str) -> str:
        """What a row of ``split`` ("dataset/split") says of these settings: "in-sample" where they were chosen on it."""
        return "in-sample" if self.chosen_on.split(";")[0] == split else "fixed"

    def save(self, path: Path | str) -> Path:
        """Write as JSON, atomically."""
        write_json(path, asdict(self))
        return Path(path)

    @classmethod
    def load(cls, path: Path | str) -> Scoring:
        """Read what ``save`` wrote. Raises CheckpointError for a damaged file."""
        try:
            return cls(**json.loads(Path(path).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: no scoring record ({error}); was it made by phase 1? "
                                  "run: make reproduce") from error


DEFAULT_SCORING = Scoring()


@dataclass(frozen=True, eq=False)
class Detection:
    """What was found in one video of n frames.

    ``raw_scores`` (n,) and ``frame_scores`` (n,) after smoothing, both float32 in 0..1; ``heatmap`` (n, h, w) float32
    on the patch grid or None; ``size`` (height, width) of the video, in whose pixels ``regions`` are; ``answers`` texts
    of a conversation, empty for a detector without one.
    """
    video: str
    frame_scores: Float32[np.ndarray, "n"]
    heatmap: Float32[np.ndarray, "n h w"] | None
    regions: Regions
    raw_scores: Float32[np.ndarray, "n"]
    size: tuple[int, int]
    answers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> tuple[float, float]:
        """Video pixels a patch, (vertical, horizontal)."""
        return self.size[0] / self.heatmap.shape[1], self.size[1] / self.heatmap.shape[2]

    def save(self, path: Path | str, *, key: str = "") -> Path:
        """Write as one npz, atomically; ``key`` names what made it. Raises StorageError when the disk refuses."""
        arrays = {"frame_scores": self.frame_scores, "raw_scores": self.raw_scores, "size": np.array(self.size),
                  **{f"regions.{name}": getattr(self.regions, name) for name in ("frame", "box", "score", "track")}}
        if self.heatmap is not None:
            arrays["heatmap"] = self.heatmap
        text = json.dumps({"video": self.video, "key": key, "answers": dict(self.answers)})
        with atomic_write(path) as file:
            np.savez_compressed(file, record=np.frombuffer(text.encode(), np.uint8), **arrays)
        return Path(path)

    @classmethod
    def load(cls, path: Path | str, *, key: str | None = None) -> Detection:
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: missing, damaged, or made by something other than ``key`` (where one is given).
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                record = json.loads(file["record"].tobytes())
                arrays = {name: file[name] for name in file.files if name != "record"}
            regions = Regions(**{name: arrays[f"regions.{name}"] for name in ("frame", "box", "score", "track")})
            found = cls(record["video"], arrays["frame_scores"], arrays.get("heatmap"), regions, arrays["raw_scores"],
                        tuple(int(side) for side in arrays["size"]), record["answers"])
        except Exception as error:  # zipfile, zlib and numpy have a dozen types for a damaged byte
            raise CheckpointError(f"{path}: no detection ({type(error).__name__}: {error}); "
                                  "delete it and score again") from error
        if key is not None and record["key"] != key:
            raise CheckpointError(f"{path}: was made by another detector or from another video; score again")
        return found


def top_mean(maps: Float[np.ndarray, "n h w"], fraction: float = 0.01) -> Float32[np.ndarray, "n"]:
    """Mean of the top ``fraction`` of each map's values (rounded up to whole patches, at least one)."""
    flat = np.asarray(maps, np.float32).reshape(len(maps), -1)
    count = max(1, math.ceil(fraction * flat.shape[1] - 1e-9))
    return np.partition(flat, -count, axis=1)[:, -count:].mean(axis=1, dtype=np.float64).astype(np.float32)


def finish(video: str, raw_scores: Float32[np.ndarray, "n"], heatmap: Float32[np.ndarray, "n h w"], *,
           size: tuple[int, int], scoring: Scoring) -> Detection:
    """Smoothed scores and linked regions from raw scores and heatmap."""
    bare = Detection(video, raw_scores, heatmap, Regions.empty(), raw_scores, tuple(size))
    return rescore(bare, scoring)


def rescore(detection: Detection, scoring: Scoring) -> Detection:
    """The same heatmap under other smoothing or thresholds; no model runs. It needs the stored heatmap."""
    regions = regions_from_heatmap(detection.heatmap, thresholds=scoring.thresholds, min_area=scoring.min_area,
                                   scale=detection.scale, score=scoring.region_score)
    return replace(detection, frame_scores=smooth([detection.raw_scores], scoring.sigma)[0].astype(np.float32),
                   regions=link_tracks(regions))


def choose_sigma(detections: Sequence[Detection], videos: Sequence[Any], *, sigmas: Sequence[float] = SIGMAS) -> float:
    """The smoothing with the best micro AUC on these (validation) videos; of equals the smallest."""
    raw, labels = [d.raw_scores for d in detections], [v.labels for v in videos]
    return max(sorted(sigmas), key=lambda sigma: micro_auc(smooth(raw, sigma), labels))


def calibrate(detections: Sequence[Detection], videos: Sequence[Any], scoring: Scoring, *, chosen_on: str) -> Scoring:
    """Fix sigma by micro AUC and the thresholds by the mean of RBDC and TBDC, both on validation videos.

    ``chosen_on`` names the split in the record, so that nobody mistakes it for a choice on test labels.
    """
    scoring = replace(scoring, sigma=float(choose_sigma(detections, videos)), chosen_on=chosen_on)
    tracks = {video.id: video.tracks for video in videos if video.tracks is not None and len(video.tracks)}
    if not tracks:
        return scoring
    frames = {d.video: len(d.raw_scores) for d in detections}

    def quality(choice: tuple[tuple[float, ...], str]) -> float:
        regions = {d.video: regions_from_heatmap(d.heatmap, thresholds=choice[0], min_area=scoring.min_area,
                                                 scale=d.scale, score=choice[1]) for d in detections}
        scores = rbdc_tbdc(regions, tracks, num_frames=frames)
        return scores.rbdc + scores.tbdc

    thresholds, how = max(((levels, how) for levels in THRESHOLD_SETS for how in ("mean", "max")), key=quality)
    return replace(scoring, thresholds=thresholds, region_score=how)
