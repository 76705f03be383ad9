"""One camera of the user's, step by step as ``notebooks/your_camera.ipynb`` tells it: adapt, watch, find.

Everything lands in ``<output>/camera``; a step that was done before is not done again.

    adapted/ (see tvad.training.adapt.run)  adapted.json  detections/*.npz  alarms.csv  complete.json (last)

Where no footage is given, a simulated scene of the validation split is the camera: its normal videos are the ordinary
footage, all its videos are looked through, and its annotation is shown beside what is found.
"""
from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from tvad.adaptation.detector import AdaptedDetector
from tvad.datasets import open_dataset
from tvad.detection import Detection
from tvad.detector import TVAD
from tvad.errors import CheckpointError
from tvad.evaluation import score_dataset
from tvad.params import Camera, project_root
from tvad.record import atomic_write, complete, is_complete, provenance, reopen, write_json
from tvad.training.adapt import AdaptConfig, AdaptResult, adapt
from tvad.training.adapt.clips import RULES
from tvad.training.adapt.loop import hash_of
from tvad.training.adapt.pairs import source_hash

PHASE = "camera"
_SIMULATED = "val"           # split whose first scene stands in for a camera
_ALARM = 0.5                 # where no level is known


@dataclass(frozen=True)
class Alarm:
    """Where a video's smoothed score is at least the level of an alarm: frames ``start:stop``, the ``peak`` frame and its
    ``score``."""
    video: str
    start: int
    stop: int
    peak: int
    score: float


class CameraRun:
    """The run of ``params``. Raises :class:`tvad.errors.DatasetError` for missing footage, before any work."""

    def __init__(self, params: Camera) -> None:
        self.params, self.folder, self.began = params, params.output / PHASE, time.perf_counter()
        self.simulated = not params.ordinary
        if self.simulated:
            videos = open_dataset("simcampus", root=params.data_root).videos(_SIMULATED)
            scene = [video for video in videos if video.scene == videos[0].scene]
            self.ordinary = tuple(video for video in scene if not np.any(video.labels))
            self.watched = tuple(scene)
        else:
            self.ordinary = open_dataset("custom", root=params.ordinary).videos("all")
            self.watched = self.ordinary
        if params.watched:
            self.watched = open_dataset("custom", root=params.watched).videos("all")
        self.watched = self.watched[:params.max_videos or None]
        reopen(self.folder)
        write_json(self.folder / "params.json", params.as_dict())

    @cached_property
    def model(self) -> TVAD:
        """The general detector. Raises :class:`CheckpointError` where no decoder has been trained."""
        params = self.params
        ahd = Path(params.ahd) if params.ahd else params.output / "phase1" / "ahd.safetensors"
        if not ahd.is_file():
            raise CheckpointError(f"{ahd}: no decoder to start from; run: make reproduce PROFILE={params.profile} (or give "
                                  "ahd=, the ahd.safetensors of another run)")
        return TVAD.from_pretrained(params.backbone, ahd, cache_dir=self._cache, queries=params.queries or None)

    @property
    def _cache(self) -> Path:
        return project_root() / "data" / "cache"

    @cached_property
    def adapted(self) -> AdaptResult:
        """The detector adapted to the ordinary footage, its report and its sheet of composites."""
        # "events" are what is asked for, in the user's words; adaptation pastes all that it knows.
        shared = {item.name: getattr(self.params, item.name) for item in fields(AdaptConfig)
                  if item.name != "events" and hasattr(self.params, item.name)}
        rehearsal = open_dataset("simcampus", root=self.params.data_root).videos("train") if self.params.rehearsal else ()
        config, folder = AdaptConfig(**shared), self.folder / "adapted"
        key = _key(self.model, self.ordinary, rehearsal, config)
        if (done := _adapted_before(folder, self.folder / "adapted.json", key, self.model)) is not None:
            return done
        result = adapt(self.model, self.ordinary, output_dir=folder, config=config, rehearsal=rehearsal,
                       cache_dir=self._cache)
        write_json(self.folder / "adapted.json", {"key": key, "adaptation": result.report["key"]})
        return result

    @property
    def detector(self) -> AdaptedDetector:
        """What looks through the footage."""
        return self.adapted.detector

    @cached_property
    def detections(self) -> dict[str, Detection]:
        """By video; one that cannot be read raises at the end, the others are kept."""
        return dict(score_dataset(self.detector, self.watched, self.folder / "detections").check().detections)

    @cached_property
    def level(self) -> float:
        """Score from which on it is an alarm: one ordinary, held-out pair of frames in a hundred passes it, before
        smoothing."""
        return self.detector.calibration.frame

    @cached_property
    def alarms(self) -> list[Alarm]:
        """All stretches of scores at ``level`` and above, the highest first."""
        return sorted((alarm for name, detection in self.detections.items()
                       for alarm in stretches(name, detection, above=self.level)), key=lambda alarm: -alarm.score)

    def write_alarms(self) -> Path:
        """``alarms.csv``: where and when each alarm is, for a spreadsheet; returns its path."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["video", "first_frame", "last_frame", "first_second", "last_second", "peak_frame", "score"])
        rates = {video.id: video.frames.fps for video in self.watched}
        for one in self.alarms:
            first, last = (f"{frame / rates[one.video]:.2f}" for frame in (one.start, one.stop - 1))
            writer.writerow([one.video, one.start, one.stop - 1, first, last, one.peak, f"{one.score:.4f}"])
        atomic_write(self.folder / "alarms.csv", table.getvalue())
        return self.folder / "alarms.csv"

    @cached_property
    def found(self) -> dict[str, dict[str, Detection]]:
        """Detections of each named event by video; empty where there is no decoder of query heatmaps."""
        if self.model.queries is None or not self.params.events:
            return {}
        found: dict[str, dict[str, Detection]] = {event: {} for event in self.params.events}
        for video in tqdm(self.watched, desc="asking", unit="video"):
            for event, detection in self.model.find(video, list(found)).items():
                found[event][video.id] = detection
        return found

    def finish(self) -> Path:
        """Provenance and the mark of completion; returns the folder."""
        record = provenance(config=self.params.config_hash(), device=str(self.model.backbone.device),
                            attention=self.model.backbone.attention, started=self.began)
        write_json(self.folder / "provenance.json", record)
        self.write_alarms()
        complete(self.folder, ["params.json", "provenance.json", "alarms.csv"])
        return self.folder


def _key(model: TVAD, ordinary: Sequence[Any], rehearsal: Sequence[Any], config: AdaptConfig) -> str:
    """Hash of all that decides an adaptation, told without looking at a frame."""
    footage = [[(video.id, video.frames.fingerprint) for video in videos] for videos in (ordinary, rehearsal)]
    facts = [asdict(config), footage, model.backbone.fingerprint, str(getattr(model.backbone, "dtype", "")), model.scoring,
             source_hash(), RULES, model.prototypes.float().cpu().numpy().tobytes()]
    return hash_of(model.decoder, repr(facts))


def _adapted_before(folder: Path, record: Path, key: str, model: TVAD) -> AdaptResult | None:
    """What an earlier run left in ``folder``, where it is whole and ``record`` says that it was made under ``key``."""
    try:
        made = json.loads(record.read_text(encoding="utf-8"))
        if made["key"] != key or not is_complete(folder)[0]:
            return None
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if report["key"] != made["adaptation"]:       # adapted anew since, by other means
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    detector = AdaptedDetector.load(folder, model.backbone, prototypes=model.prototypes.float())
    return AdaptResult(detector, folder, report, float(report["seconds"]["all"]))


def stretches(video: str, detection: Detection, *, above: float = _ALARM) -> list[Alarm]:
    """Runs of frames whose smoothed score is at least ``above``, in time order."""
    hot = np.concatenate([[False], detection.frame_scores >= above, [False]])
    edges = np.flatnonzero(np.diff(hot.astype(np.int8)))
    found = []
    for start, stop in edges.reshape(-1, 2).tolist():
        peak = start + int(np.argmax(detection.frame_scores[start:stop]))
        found.append(Alarm(video, start, stop, peak, float(detection.frame_scores[peak])))
    return found


def frames_of_interest(alarms: Sequence[Alarm], detections: dict[str, Detection], count: int) -> list[tuple[str, int]]:
    """(video, frame) of the highest alarms, and where these are few, of the highest scores of other videos."""
    chosen = [(alarm.video, alarm.peak) for alarm in alarms[:count]]
    rest = sorted(((float(one.frame_scores.max()), name, int(one.frame_scores.argmax())) for name, one in
                   detections.items() if name not in {video for video, _ in chosen}), reverse=True)
    return chosen + [(name, frame) for _, name, frame in rest[:count - len(chosen)]]

