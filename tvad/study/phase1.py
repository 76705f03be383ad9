"""One run of phase 1, step by step as its notebook tells it: data, examples, decoder, scoring, rows, completion.

Everything lands in ``<output>/phase1``; figures are drawn from there (``tvad.figures``) and never need a model.

    params.json  examples.npz  ahd.safetensors  history.json  training.json  detector.json  val_rows.jsonl
    detections/<split>/*.npz  rows.jsonl  queries.safetensors  queries.npz  listening.json  view_rows.jsonl
    provenance.json  complete.json (last)

A decoder that another profile's finished run has trained from the same data, tower and settings is taken over instead
of trained again (``training.json`` says so): profile ped2 evaluates on real footage the decoder of profile tiny.
"""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from tvad.datasets import open_dataset
from tvad.detection import Detection, Scoring, calibrate, rescore
from tvad.detector import TVAD
from tvad.errors import DatasetError, MissingPhaseError
from tvad.evaluation import Cell, evaluate, score_dataset
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.params import Phase1, project_root
from tvad.prompts import prototypes
from tvad.queries.words import NORMAL_WORDINGS, WORDINGS, reference_words
from tvad.record import (
    Row,
    append_rows,
    atomic_write,
    complete,
    is_complete,
    provenance,
    read_rows,
    reopen,
    replace_rows,
    write_json,
)
from tvad.study.examples import first_of_each_kind, largest_target, principal_colours
from tvad.study.listening import LISTENING, write_examples, write_silence
from tvad.study.report import Table
from tvad.study.run import TRAINING_SPLITS, open_backbone
from tvad.study.viewing import VIEW_ROWS, forget, match
from tvad.training.phase1 import Phase1Config, train_heatmap, untrained_decoder
from tvad.training.queries import QueryConfig, train_queries
from tvad.video.clip import Clip

PHASE = "phase1"
_TRAINED = ("ahd.safetensors", "history.json", "detector.json", "val_rows.jsonl")
_LEAST_PAIRS = 4        # a training video that gives fewer is not worth its rendering; the study takes as many
_EXAMPLES = 3


@dataclass(frozen=True)
class Part:
    """The videos of one split that a run uses, and the hash of the whole split."""
    dataset: str
    protocol: str
    split: str
    videos: tuple[Any, ...]
    hash: str

    @property
    def frames(self) -> int:
        return sum(len(video) for video in self.videos)

    def positive_rate(self) -> float:
        """Share of anomalous frames; reads (and where needed renders) the annotation of every video."""
        return float(np.concatenate([video.labels for video in self.videos]).mean())


def open_part(params: Phase1, *, dataset: str, protocol: str, split: str, limit: int = 0, spread: bool = False) -> Part:
    """The first ``limit`` videos of a split (0: all; ``spread``: evenly spaced ones instead of the first).

    Raises :class:`DatasetError` for a missing set, naming the folder expected, or an unknown split.
    """
    # Only SimCampus has several protocols; the others have the one of their owners.
    choice = {"protocol": protocol} if dataset == "simcampus" else {}
    opened = open_dataset(dataset, root=params.data_root, **choice)
    videos = tuple(opened.videos(split))
    if 0 < limit < len(videos):
        places = np.linspace(0, len(videos), limit, endpoint=False).astype(int) if spread else range(limit)
        videos = tuple(videos[place] for place in places)
    return Part(dataset, protocol, split, videos, opened.split_hash(split))


def render(part: Part, params: Phase1) -> None:
    """Render what of a simulated split is not on disk yet, on all cores; real footage needs nothing."""
    if part.dataset != "simcampus":
        return
    whole = open_dataset(part.dataset, protocol=part.protocol)
    if len(part.videos) == len(whole.videos(part.split)):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        whole.prepare([part.split], workers=cores)


class Phase1Run:
    """A run under way; its steps are to be called in the order in which they stand here."""

    def __init__(self, params: Phase1, *, backbone: Any = None) -> None:
        self.params, self.config = params, Phase1Config.from_params(params)
        # Made now, so that a setting that cannot be is said before any work; queries know no whole maps (0 patches).
        self.query_config = QueryConfig.from_params(params, patches_per_pair=params.patches_per_pair or 256)
        self.folder = params.output / PHASE
        self.cache = project_root() / "data" / "cache"
        self._began = time.perf_counter()
        self.seconds: dict[str, float] = {}
        splits = TRAINING_SPLITS.get(params.train_protocol, ("train", "val"))
        self.train_part, self.val_part = (
            open_part(params, dataset=params.train_dataset, protocol=params.train_protocol, split=split, spread=True,
                      limit=max(1, pairs // _LEAST_PAIRS))
            for split, pairs in zip(splits, (self.config.train_pairs, self.config.val_pairs)))
        self.test_part = evaluated_part(params)
        if backbone is not None:
            self.backbone = backbone
        reopen(self.folder)
        write_json(self.folder / "params.json", params.as_dict())

    @cached_property
    def backbone(self) -> Any:
        """The frozen tower, loaded when first needed. Raises :class:`tvad.errors.BackboneError`."""
        return open_backbone(self.params)

    @cached_property
    def prototypes(self) -> Float[torch.Tensor, "2 d"]:
        """Text features of "normal" and "abnormal", in this order."""
        return prototypes(self.backbone, cache_dir=self.cache)

    @cached_property
    def training_key(self) -> str:
        """Hash of all that decides the trained decoder and its scoring: data, tower, settings, windows."""
        parts = [asdict(self.config), self.backbone.fingerprint, list(self.backbone.taps), self.params.frames_per_clip,
                 self.params.stride, self.params.top_fraction, self.params.max_videos, self.params.sigma,
                 [video.frames.fingerprint for part in (self.train_part, self.val_part) for video in part.videos]]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]

    @cached_property
    def query_key(self) -> str:
        """Hash of all that decides the decoder of query heatmaps: data and tower as above, its settings, the words."""
        parts = [self.training_key, asdict(self.query_config), list(WORDINGS.items()), NORMAL_WORDINGS, reference_words()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]

    @cached_property
    def donors(self) -> list[Path]:
        """The finished phase-1 folders of other profiles with the same trained decoder."""
        finished = [folder for folder in sorted(self.params.output.parent.glob(f"*/{PHASE}"))
                    if folder != self.folder and is_complete(folder)[0]]
        return [folder for folder in finished if _key_in(folder / "training.json") == self.training_key]

    @property
    def donor(self) -> Path | None:
        """The first of ``donors``."""
        return next(iter(self.donors), None)

    def data(self) -> list[dict[str, Any]]:
        """Render what is missing and describe the splits: one record each, ``positive_rate`` None where not opened."""
        began, records = time.perf_counter(), []
        for role, part in (("training", self.train_part), ("validation", self.val_part), ("evaluated", self.test_part)):
            needed = role == "evaluated" or self.donor is None
            if needed:
                render(part, self.params)
            records.append({"role": role, "dataset": part.dataset, "split": part.split, "protocol": part.protocol,
                            "videos": len(part.videos), "frames": part.frames, "hash": part.hash[:12],
                            "positive_rate": part.positive_rate() if needed else None})
        write_json(self.folder / "data.json", records)
        self.seconds["rendering"] = time.perf_counter() - began
        return records

    def look(self) -> Path:
        """Taps and heatmaps of an untrained decoder for a few clips of different events, kept as ``examples.npz``.

        The clips are the first videos of each event class; the frame of each is the one with the largest target.
        """
        decoder = untrained_decoder(self.config, self.backbone).eval().to(getattr(self.backbone, "device", "cpu"))
        chosen = first_of_each_kind(self.test_part.videos, _EXAMPLES)
        frames = [largest_target(video) for video in chosen]
        step, heats, colours = self.backbone.temporal_patch_size, [], []
        with torch.inference_mode():
            for video, frame in zip(chosen, frames):
                start = min(frame, len(video) - step)
                clip = Clip(video.frames.read(start, start + step), video.frames.fps, start, video.id)
                taps = self.backbone.see(clip).taps
                heats.append(decoder.heatmap(taps, self.prototypes)[0].float().cpu().numpy())
                colours.append(np.stack([principal_colours(tap[0].float().cpu().numpy()) for tap in taps]))
        with atomic_write(self.folder / "examples.npz") as file:
            np.savez_compressed(file, videos=np.array([video.id for video in chosen]), frames=np.array(frames),
                                heat=np.stack(heats), colours=np.stack(colours), taps=np.array(self.backbone.taps))
        return self.folder / "examples.npz"

    def train(self) -> dict[str, Any]:
        """Train the decoder, or take it over; returns what ``training.json`` holds.

        Goes on where a broken run stopped. Raises DatasetError for unusable splits, StorageError for a full disk.
        """
        began = time.perf_counter()
        if self.donor is not None:
            for name in _TRAINED:
                shutil.copyfile(self.donor / name, self.folder / name)
            record = json.loads((self.donor / "training.json").read_text(encoding="utf-8"))
            record["taken_over_from"] = self.donor.parent.name
        else:
            result = train_heatmap(self.config, self.backbone, train=self.train_part.videos, val=self.val_part.videos,
                                   output_dir=self.folder, cache_dir=self.cache, prototypes=self.prototypes)
            record = {"key": self.training_key, "best": dict(result.best), "pairs": dict(result.counts),
                      "seconds": round(result.seconds, 1), "resumed_at": result.resumed_at, "taken_over_from": None}
            # Smoothing and thresholds of an earlier decoder must not serve this one.
            for name in ("detector.json", "val_rows.jsonl"):
                (self.folder / name).unlink(missing_ok=True)
        write_json(self.folder / "training.json", record)
        self.seconds["training"] = time.perf_counter() - began
        return record

    def calibrate(self) -> Scoring:
        """Fix smoothing and region thresholds on validation videos; its rows go to ``val_rows.jsonl``."""
        began = time.perf_counter()
        if not (self.folder / "detector.json").is_file():
            plain = Scoring(frames_per_clip=self.params.frames_per_clip, stride=self.params.stride,
                            top_fraction=self.params.top_fraction)
            videos = self.val_part.videos[:self.params.max_videos or None]
            found = self._score(plain, videos, self.val_part.split)
            name = f"{self.val_part.dataset}/{self.val_part.split}"
            chosen = calibrate([found[video.id] for video in videos], videos, plain, chosen_on=name)
            if self.params.sigma is not None:
                chosen = Scoring(**{**asdict(chosen), "sigma": self.params.sigma, "chosen_on": f"{name}; sigma given"})
            finished = {key: rescore(detection, chosen) for key, detection in found.items()}
            rows = evaluate(finished, videos, self.cell(self.val_part, chosen))
            self._write_rows(self.folder / "val_rows.jsonl", rows)
            chosen.save(self.folder / "detector.json")
        self.seconds["validation scoring"] = time.perf_counter() - began
        return Scoring.load(self.folder / "detector.json")

    def listen(self) -> Path:
        """Train the decoder of query heatmaps on the same cached pairs, or take it over; and ask it about the examples.

        Every event of the examples (on footage that names none: ``params.events``) is asked for in each of their clips;
        the maps go to ``queries.npz``, whose path is returned.  ``queries.safetensors`` beside the decoder is what
        ``TVAD.find`` uses; ``listening.json`` says what decided it.  Where the pairs cannot teach it (too few of them to
        show every event, or a set that names none) there is no such decoder: that is said here, in ``listening.json``
        and in the figure, and the rest of the run stands.  Raises StorageError for a full disk.
        """
        began, path = time.perf_counter(), self.folder / "queries.safetensors"
        record = {"key": self.query_key, "taken_over_from": None, "missing": None}
        donor = next((folder for folder in self.donors if (folder / path.name).is_file()
                      and _key_in(folder / "listening.json") == self.query_key), None)
        if donor is not None:
            shutil.copyfile(donor / path.name, path)
            record["taken_over_from"] = donor.parent.name
        else:
            try:
                train_queries(self.query_config, self.backbone, train=self.train_part.videos, val=self.val_part.videos,
                              output_dir=self.folder / "listening", cache_dir=self.cache)
                shutil.copyfile(self.folder / "listening" / path.name, path)
            except DatasetError as error:
                record["missing"] = str(error)
                path.unlink(missing_ok=True)      # one of an earlier run must not serve this one
                print(f"no query heatmaps: {error}", flush=True)
        found = write_silence(self, record["missing"]) if record["missing"] else write_examples(self, path)
        write_json(self.folder / "listening.json", record)
        self.seconds["queries"] = time.perf_counter() - began
        return found

    def evaluate(self) -> list[Row]:
        """Score the evaluated split and write its rows, to ``rows.jsonl`` and into the run's ``results.jsonl``."""
        began = time.perf_counter()
        forget(self)
        scoring = Scoring.load(self.folder / "detector.json")
        found = self._score(scoring, self.test_part.videos, self.test_part.split)
        self.seconds["scoring"] = time.perf_counter() - began
        rows = evaluate(found, self.test_part.videos, self.cell(self.test_part, scoring))
        self._write_rows(self.folder / "rows.jsonl", rows)
        validation = read_rows(self.folder / "val_rows.jsonl")
        same = self.test_part.dataset == self.val_part.dataset and self.test_part.split != self.val_part.split
        replace_rows(self.params.output / "results.jsonl", [*rows, *(validation if same else [])])
        self.seconds["evaluation"] = time.perf_counter() - began - self.seconds["scoring"]
        return rows

    def match(self) -> Table:
        """On real footage: evaluate once more with the camera's view matched (``tvad.study.viewing``)."""
        began, part = time.perf_counter(), self.test_part
        if part.dataset == self.params.train_dataset:
            return Table(f"{part.dataset} is what the decoder learnt from; there is no other view to match.")
        part = open_part(self.params, dataset=part.dataset, protocol=part.protocol, split="train")
        found = match(self, part.videos)
        self.seconds["matched view"] = time.perf_counter() - began
        return found

    def finish(self) -> dict[str, Any]:
        """Write provenance, then ``complete.json``; returns the provenance."""
        record = provenance(config=self.params.config_hash(), device=str(getattr(self.backbone, "device", "cpu")),
                            decoder=self.params.decoder, attention=getattr(self.backbone, "attention", None),
                            started=self._began, backbone=self.backbone.name, fingerprint=self.backbone.fingerprint,
                            seconds={name: round(value, 1) for name, value in self.seconds.items()},
                            settings=asdict(self.config))
        write_json(self.folder / "provenance.json", record)
        # Checkpoints and stored detections can be made again; they are no result.
        asked = [name for name in ("queries.safetensors", LISTENING, "listening.json", VIEW_ROWS)
                 if (self.folder / name).is_file()]
        complete(self.folder, ["params.json", "data.json", "examples.npz", "training.json", *_TRAINED, "rows.jsonl", *asked,
                               "provenance.json"])
        return record

    def _score(self, scoring: Scoring, videos: Sequence[Any], split: str) -> Mapping[str, Detection]:
        return score_dataset(self.model(scoring), videos, self.folder / "detections" / split).check().detections

    def model(self, scoring: Scoring) -> TVAD:
        """The trained decoder as a detector with the given scoring."""
        # Without queries: those that an earlier run left here may be of another tower.
        decoder = AnomalyHeatmapDecoder.load(self.folder / "ahd.safetensors", backbone=self.backbone)
        return TVAD(self.backbone, decoder.to(getattr(self.backbone, "device", "cpu")), prototypes=self.prototypes,
                    scoring=scoring)

    def cell(self, part: Part, scoring: Scoring, *, variant: str = "full") -> Cell:
        """What the rows of a split share."""
        return Cell(variant=variant, dataset=part.dataset, split=part.split, protocol=part.protocol,
                    seed=self.params.seed, config=self.params.config_hash(), sigma=scoring.sigma,
                    samples=self.params.bootstrap_samples,
                    choice=scoring.choice_on(f"{part.dataset}/{part.split}"))

    @staticmethod
    def _write_rows(path: Path, rows: Sequence[Row]) -> None:
        path.unlink(missing_ok=True)
        append_rows(path, rows)


def _key_in(path: Path) -> str | None:
    """The key of a record of training; None where there is no record."""
    return json.loads(path.read_text(encoding="utf-8"))["key"] if path.is_file() else None


def evaluated_part(params: Phase1) -> Part:
    """The split that a run is measured on."""
    return open_part(params, dataset=params.dataset, protocol=params.protocol, split=params.split,
                     limit=params.max_videos)


def read_params(output: Path) -> Phase1:
    """The parameters of the phase-1 run in a run's folder. Raises :class:`MissingPhaseError` where there is none."""
    path = Path(output) / PHASE / "params.json"
    if not path.is_file():
        raise MissingPhaseError(f"{path}: phase 1 has not been run here; run: make reproduce PROFILE={output.name}")
    content = json.loads(path.read_text(encoding="utf-8"))
    known = {item.name for item in fields(Phase1)}
    return Phase1(**{name: value for name, value in content.items() if name in known})
