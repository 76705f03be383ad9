"""What the figures of phase 1 are drawn from: rows and arrays in a run's folder, and the frames of its data set.

A :class:`Page` reads them when they are first needed, so that the notebook can draw while the run is under way.  No
model is loaded and nothing is trained here.  ``show`` writes PNG, PDF and an entry in ``figures.json`` (caption,
hashes, where from), and in a notebook displays picture and caption.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tvad.detection import Detection, Scoring
from tvad.errors import CheckpointError, MissingPhaseError
from tvad.evaluation import detection_path
from tvad.figures import charts, frames
from tvad.figures.picks import Pick, normal_scores, ranked_events
from tvad.figures.shown import Shown, display_text
from tvad.figures.style import NAMES
from tvad.figures.table import results_table
from tvad.params import Phase1, project_root
from tvad.record import Row, atomic_write, file_hash, latest_rows, read_rows
from tvad.study.listening import LISTENING
from tvad.study.phase1 import PHASE, Part, evaluated_part
from tvad.study.run import TRAINING_SPLITS

FIGURES: Mapping[str, Callable] = {
    "data": frames.data, "taps": frames.taps, "before": frames.before, "training": charts.training,
    "after": frames.after, "queries": frames.queries,
    "detections": frames.detections, "alarms": frames.alarms, "scores": charts.scores,
    "events": charts.events, "gap": charts.gap, "overview": frames.overview,
}


class Page(Shown):
    """The phase-1 run of ``params`` as its figures see it."""

    def __init__(self, params: Phase1) -> None:
        self.params, self.folder = params, params.output / PHASE

    @property
    def figures(self) -> Mapping[str, Callable]:
        return FIGURES

    def origin(self) -> dict[str, Any]:
        run = {item.name: file_hash(item) for item in sorted(self.folder.iterdir()) if item.is_file()}
        return {"decoder": self.params.decoder, "run": run,
                "command": f"python -m tvad.figures --profile {self.params.profile}"}

    def show_table(self) -> None:
        """Write the results table as ``results.md`` and display it in a notebook."""
        text = results_table(self)
        atomic_write(self.target / "results.md", text + "\n")
        display_text(text)

    def write_all(self) -> list[Path]:
        """Every figure and the table, as the notebook leaves them."""
        written = [self.write(name)[0] for name in FIGURES]
        self.show_table()
        return written

    # What was measured.

    @cached_property
    def part(self) -> Part:
        """The evaluated split."""
        return evaluated_part(self.params)

    @property
    def videos(self) -> tuple[Any, ...]:
        return self.part.videos

    def video(self, name: str) -> Any:
        """A video of the evaluated split by its id."""
        return next(video for video in self.videos if video.id == name)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Event classes of the evaluated split."""
        return tuple(sorted({event.kind for video in self.videos for event in video.events}))

    @property
    def classes(self) -> int:
        return len(self.kinds)

    @property
    def split(self) -> str:
        """The evaluated split in words."""
        return f"{self.part.split} split"

    @property
    def splits(self) -> tuple[str, str]:
        """Names of the training and the validation split."""
        return TRAINING_SPLITS.get(self.params.train_protocol, ("train", "val"))

    @property
    def place(self) -> str:
        """Data set, split, protocol and size, as every caption says them."""
        name = NAMES.get(self.part.dataset, f"{self.part.dataset} (real)")
        return (f"{name}, {self.split} ({self.part.protocol}), n = {len(self.videos)} videos, "
                f"{self.part.frames:,} frames")

    @cached_property
    def detections(self) -> dict[str, Detection]:
        """Detections of the evaluated split by video id."""
        folder = self.folder / "detections" / self.part.split
        try:
            return {video.id: Detection.load(detection_path(folder, video)) for video in self.videos}
        except CheckpointError as error:
            raise self._missing("the scored videos") from error

    @cached_property
    def ranked(self) -> list[Pick]:
        """Events of the evaluated split, best detected first."""
        return ranked_events(self.detections, self.videos)

    @cached_property
    def normal_frames(self) -> int:
        return len(normal_scores(self.detections, self.videos))

    @cached_property
    def examples(self) -> dict[str, np.ndarray]:
        """Taps and untrained heatmaps (see ``Phase1Run.look``)."""
        path = self.folder / "examples.npz"
        if not path.is_file():
            raise self._missing(path.name)
        with np.load(path) as file:
            return {name: file[name] for name in file.files}

    @cached_property
    def queried(self) -> dict[str, np.ndarray]:
        """What the example clips gave for each question (see ``tvad.study.listening``)."""
        path = self.folder / LISTENING
        if not path.is_file():
            raise self._missing(path.name)
        with np.load(path) as file:
            return {name: file[name] for name in file.files}

    @property
    def training(self) -> dict[str, Any]:
        return self._json("training.json")

    @property
    def history(self) -> list[dict[str, float]]:
        return self._json("history.json")

    @property
    def rows(self) -> list[Row]:
        return self._rows("rows.jsonl")

    @property
    def val_rows(self) -> list[Row]:
        return self._rows("val_rows.jsonl")

    @cached_property
    def study(self) -> list[Row]:
        """The committed rows of the study on the evaluated split; empty where there are none yet."""
        path = project_root() / "figures" / self.params.profile / "study.jsonl"
        rows = latest_rows(read_rows(path)) if path.is_file() else []
        wanted = (self.part.dataset, self.part.protocol, self.part.split)
        return [row for row in rows if (row.dataset, row.protocol, row.split) == wanted]

    @property
    def sigma(self) -> float:
        """Smoothing in frames."""
        return Scoring.load(self.folder / "detector.json").sigma

    @property
    def chosen_on(self) -> str:
        """The split on which smoothing and thresholds were fixed."""
        return Scoring.load(self.folder / "detector.json").chosen_on

    def _rows(self, name: str) -> list[Row]:
        if not (self.folder / name).is_file():
            raise self._missing(name)
        return read_rows(self.folder / name)

    def _json(self, name: str) -> Any:
        if not (self.folder / name).is_file():
            raise self._missing(name)
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def _missing(self, what: str) -> MissingPhaseError:
        return MissingPhaseError(f"{self.folder}: {what} missing, phase 1 has not come that far; "
                                 f"run: make reproduce PROFILE={self.params.profile}")
