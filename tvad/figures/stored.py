"""What runs left on disk, as the paper's figures read it: detections, rows, answers, weights' records; each file noted.

A :class:`Stored` opens nothing before it is asked for.  What is missing raises an error that names the command which
makes it; whatever was read since :meth:`Stored.note_from_here` stands in :meth:`Stored.sources`, with hashes, for the
provenance of the figure that read it.  Nothing is trained and no model is run.
"""
from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tvad.checkpoints import read_weights
from tvad.detection import Detection, Scoring
from tvad.errors import CheckpointError, DatasetError, MissingPhaseError
from tvad.evaluation import detection_path
from tvad.figures.style import NAMES
from tvad.language.corpus import load_conversations
from tvad.language.dialogue import Conversation
from tvad.language.run import FOLDER as DIALOGUE
from tvad.metrics.frame import smooth
from tvad.metrics.text import Answer
from tvad.params import Phase4, project_root
from tvad.params.phase2 import not_run_for
from tvad.record import Row, file_hash, latest_rows, read_rows
from tvad.study.answers import read_answers
from tvad.study.phase1 import PHASE as PHASE1
from tvad.study.phase1 import Part, open_part, read_params

PHASE2 = "phase2"


class Stored:
    """The run of ``params`` (a :class:`tvad.params.Phase4`), read when first needed.

    A run is the folder of a profile (``phase1/`` and ``phase2/`` inside) or one arm of the study (``detections/`` inside).
    """

    def __init__(self, params: Phase4) -> None:
        self.params, self.run = params, params.run
        self._noted: dict[str, dict[str, Any]] = {}
        self._hashes: dict[tuple[str, ...], dict[str, Any]] = {}

    # What a figure was drawn from.

    def note_from_here(self) -> None:
        """Forget what was read so far: the next figure begins."""
        self._noted = {}

    def sources(self) -> dict[str, dict[str, Any]]:
        """Name to size and sha256 of all that was read since, folders by one hash over their files."""
        return dict(sorted(self._noted.items()))

    def note(self, name: str, *files: Path) -> None:
        """State that the present figure is drawn from these files, under one name."""
        key = tuple(str(file) for file in files)
        if key not in self._hashes:
            digests = [file_hash(file) for file in files]
            whole = digests[0] if len(files) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
            size = sum(file.stat().st_size for file in files)
            self._hashes[key] = {"files": len(files), "bytes": size, "sha256": whole}
        self._noted[name] = self._hashes[key]

    def named(self, path: Path) -> str:
        """A path as provenance states it: from the checkout on, never a folder of this machine."""
        root = project_root()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else f"{path.parent.name}/{path.name}"

    # Footage and detections.

    @property
    def part(self) -> Part:
        """The shown split. Raises :class:`DatasetError` for a set that is not there."""
        part = self._part
        name = f"{part.dataset} {part.protocol}/{part.split}"
        self._noted[name] = {"videos": len(part.videos), "split_hash": part.hash}
        return part

    @cached_property
    def _part(self) -> Part:
        params = self.params
        try:
            first = read_params(self.run)
        except MissingPhaseError:
            limit = 0
        else:
            limit = first.max_videos if (first.dataset, first.split) == (params.dataset, params.split) else 0
        return open_part(params, dataset=params.dataset, protocol=params.protocol, split=params.split, limit=limit)

    @property
    def videos(self) -> tuple[Any, ...]:
        """Videos of the shown split, as many as the run scored."""
        # Labels of a simulated video render it, which a figure without stored arrays must not set off.
        return self.part.videos if self.detections else ()

    def video(self, name: str) -> Any:
        """A video of the shown split by its id. Raises :class:`DatasetError` for one that is not of it."""
        found = next((video for video in self.videos if video.id == name), None)
        if found is None:
            raise DatasetError(f"{name}: no video of {self.params.dataset}, split {self.params.split}; answers and "
                               "detections are of another data set: draw them with its own dataset, protocol and split")
        return found

    @property
    def detections(self) -> dict[str, Detection]:
        """Detections of the shown split by video id, smoothed with the run's sigma (the study keeps raw scores).

        Raises :class:`MissingPhaseError` where some are missing, naming the first.
        """
        found, files = self._detections
        self.note(self.named(files[0].parent), *files)
        return found

    @cached_property
    def _detections(self) -> tuple[dict[str, Detection], list[Path]]:
        part, params = self.part, self.params
        folders = [self.run / PHASE1 / "detections" / part.split, self.run / "detections" / part.dataset]
        folder = next((folder for folder in folders if folder.is_dir()), None)
        if folder is None:
            raise self.missing(folders[0], "no stored detections")
        files = [detection_path(folder, video) for video in part.videos]
        sigma = self.scoring.sigma
        try:
            found = [Detection.load(file) for file in files]
        except CheckpointError as error:
            raise MissingPhaseError(f"{error}. {len(part.videos)} videos of {params.dataset}/{params.split} are wanted; "
                                    f"run: make reproduce PROFILE={params.profile}") from error
        smoothed = smooth([one.raw_scores for one in found], sigma)
        pairs = zip(found, smoothed)
        return {one.video: replace(one, frame_scores=scores.astype(np.float32)) for one, scores in pairs}, files

    @property
    def scoring(self) -> Scoring:
        """Smoothing and thresholds of the run."""
        return Scoring.load(self._first("detector.json", self.run / PHASE1, self.run))

    @property
    def place(self) -> str:
        """Data set, split, protocol and size, as every caption says them."""
        part = self.part
        name = NAMES.get(part.dataset, f"{part.dataset} (real)")
        return f"{name}, {part.split} split ({part.protocol}), n = {len(part.videos)} videos, {part.frames:,} frames"

    @property
    def kinds(self) -> tuple[str, ...]:
        """Event classes of the shown split."""
        return tuple(sorted({event.kind for video in self.videos for event in video.events}))

    # Rows, records, conversations.

    def study(self) -> list[Row]:
        """Committed rows of the study, on any split. Raises :class:`MissingPhaseError` where none are kept."""
        return self._committed("study", f"make study PROFILE={self.params.profile}")

    def learning(self) -> list[Row]:
        """Committed rows of the learning curve. Raises :class:`MissingPhaseError` where none are kept."""
        return self._committed("curve", f"python -m tvad.study run --phase curve --seeds 0 --profile "
                               f"{self.params.profile}")

    def _committed(self, name: str, command: str) -> list[Row]:
        path = project_root() / "figures" / self.params.profile / f"{name}.jsonl"
        if not path.is_file():
            raise MissingPhaseError(f"{path}: no {name} rows are kept; run: {command}")
        self.note(self.named(path), path)
        return latest_rows(read_rows(path))

    def weights_record(self, *places: str) -> dict[str, Any] | None:
        """The record inside a weight file of the run, None where there is none; ``places`` below the run."""
        path = next((self.run / place for place in places if (self.run / place).is_file()), None)
        if path is None:
            return None
        self.note(self.named(path), path)
        return read_weights(path)[1]

    def json(self, place: str) -> Any | None:
        """A JSON file of the run, None where there is none."""
        path = self.run / place
        if not path.is_file():
            return None
        self.note(self.named(path), path)
        return json.loads(path.read_text(encoding="utf-8"))

    @property
    def answers_path(self) -> Path:
        """The file of answers that is shown, whether it is there or not."""
        params = self.params
        if params.answers:
            return project_root() / params.answers
        name = f"answers-{params.variant}-{params.split}.jsonl"
        folders = (self.run / PHASE2, self.run)
        return next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)

    def answers(self) -> list[Answer]:
        """What a trained model said of the split.

        Raises :class:`MissingPhaseError` where nothing was answered, or phase 2 is not run for the data set.
        """
        path = self.answers_path
        if not path.is_file():
            raise MissingPhaseError(not_run_for(self.params.dataset) or (
                f"{self.named(path)}: no answers of phase 2, and none are invented; run: make reproduce "
                f"PROFILE={self.params.profile}"))
        self.note(self.named(path), path)
        return read_answers(path)

    def conversations(self, style: str = "turns") -> list[Conversation]:
        """The dialogue set of the shown split in one style. Raises :class:`MissingPhaseError` where it is not made."""
        folder = self.run / DIALOGUE
        found = load_conversations(folder, self.params.split, dataset=self.params.dataset)
        self.note(self.named(folder / f"{self.params.split}.jsonl"), folder / f"{self.params.split}.jsonl")
        return [one for one in found if one.style == style]

    def missing(self, path: Path, what: str) -> MissingPhaseError:
        """The error for something that a run has not left yet."""
        return MissingPhaseError(f"{self.named(path)}: {what}; run: make reproduce PROFILE={self.params.profile}")

    def _first(self, name: str, *folders: Path) -> Path:
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is None:
            raise self.missing(folders[0] / name, "missing")
        self.note(self.named(path), path)
        return path

