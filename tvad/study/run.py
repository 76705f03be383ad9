"""Train, score and evaluate every arm of a study: the system and its controls, over seeds.

The arms differ in one thing each: ``control-random-tower`` has an untrained tower (its own for each seed),
``control-static`` sees each temporal patch frozen to one frame in training and test, ``control-untrained`` has the
decoder as training would start it.  Smoothing and thresholds of every arm are chosen on its own validation split.  Arms
that share a tower share its passes, and a broken study goes on from the last trained decoder and scored video.
"""
from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from tvad.backbones.qwen import QwenBackbone
from tvad.datasets import open_dataset
from tvad.datasets.footage_store import simulator_hash
from tvad.detection import Detection, Scoring, calibrate, rescore
from tvad.detector import TVAD, StaticView, score_many
from tvad.evaluation import Cell, detection_key, detection_path, evaluate, evaluate_events, stored
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.params import Phase1, project_root
from tvad.prompts import prototypes
from tvad.record import Row, has_rows, provenance, replace_rows, write_json
from tvad.scenes.types import OPEN_SET_EVENTS
from tvad.training.cache import prune
from tvad.training.phase1 import Phase1Config, train_heatmap, untrained_decoder

CACHE_BYTES = 12_000_000_000      # features of about three towers; older ones go once a tower's arms are done
VARIANTS = ("full", "control-random-tower", "control-static", "control-untrained")
TRAINING_SPLITS = {"scene-disjoint": ("train", "val"), "open-set": ("train-open", "val-open")}


@dataclass(frozen=True)
class Target:
    """A split to measure on, and the protocol under which its decoders were trained."""
    dataset: str
    protocol: str
    split: str
    train_protocol: str


@dataclass(frozen=True)
class Arm:
    """One trained (or untrained) decoder: variant, training protocol, seed."""
    variant: str
    train_protocol: str
    seed: int

    @property
    def tower(self) -> str:
        """Arms of the same tower share its passes over the videos."""
        return {"control-static": "static", "control-random-tower": f"random-{self.seed}"}.get(self.variant, "trained")

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.train_protocol}-seed{self.seed}"


class Study:
    """One profile's study; ``run`` does what is missing."""

    def __init__(self, profile: str, *, seeds: Sequence[int] = (0, 1, 2), variants: Sequence[str] = VARIANTS,
                 root: Path | None = None, params: Phase1 | None = None) -> None:
        self.root = root or project_root()
        self.params = params or Phase1.from_profile(self.root / "notebooks" / "profiles" / f"{profile}.yaml")
        self.config = Phase1Config.from_params(self.params)
        self.seeds, self.variants = tuple(seeds), tuple(variants)
        self.rows_path = self.root / "figures" / profile / "study.jsonl"
        self.work, self.cache = self.root / "runs" / "study", self.root / "data" / "cache"
        self._videos: dict[tuple[str, str, str], tuple[Any, ...]] = {}

    @property
    def targets(self) -> tuple[Target, ...]:
        """SimCampus: validation, test and the open-set test; another set: its split, trained without its labels."""
        if self.params.dataset != "simcampus":
            return (Target(self.params.dataset, self.params.protocol, self.params.split, self.params.train_protocol),)
        return (Target("simcampus", "scene-disjoint", "val", "scene-disjoint"),
                Target("simcampus", "scene-disjoint", "test", "scene-disjoint"),
                Target("simcampus", "open-set", "test-open", "open-set"))

    def videos(self, dataset: str, protocol: str, split: str) -> tuple[Any, ...]:
        """The videos of a split, opened once."""
        key = (dataset, protocol, split)
        if key not in self._videos:
            # Only SimCampus has several protocols; the others have the one of their owners.
            choice = {"protocol": protocol} if dataset == "simcampus" else {}
            opened = open_dataset(dataset, root=self.params.data_root, **choice)
            if dataset == "simcampus":
                opened.prepare([split], workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
            self._videos[key] = tuple(opened.videos(split))
        return self._videos[key]

    def run(self) -> Path:
        """Train, score and evaluate whatever has no rows yet; returns the file of rows."""
        began = time.perf_counter()
        stock = open_backbone(self.params)
        config = self.config_hash(stock)
        protocols = sorted({target.train_protocol for target in self.targets}, reverse=True)
        arms = [Arm(variant, protocol, seed) for variant in self.variants for protocol in protocols
                for seed in self.seeds]
        missing = [arm for arm in arms if any(not self._has(arm, target, config) for target in self._of(arm))]
        print(f"study: {len(missing)} of {len(arms)} arms to do, rows in {self.rows_path}", flush=True)
        for tower in dict.fromkeys(arm.tower for arm in missing):
            arms = [arm for arm in missing if arm.tower == tower]
            self._run_tower(arms, tower_of(stock, arms[0]), config)
            prune(self.cache, keep=[], limit_bytes=CACHE_BYTES)
        if missing:
            record = provenance(config=config, device=str(stock.device), decoder=self.params.decoder,
                                attention=stock.attention, started=began, seeds=list(self.seeds),
                                settings=asdict(self.config), backbone=stock.fingerprint)
            write_json(self.rows_path.with_suffix(".provenance.json"), record)
        return self.rows_path

    def _of(self, arm: Arm) -> list[Target]:
        return [target for target in self.targets if target.train_protocol == arm.train_protocol]

    def _evaluated(self, target: Target) -> tuple[Any, ...]:
        return self.videos(target.dataset, target.protocol, target.split)[:self.params.max_videos or None]

    def config_hash(self, backbone: Any) -> str:
        """What all rows of a study share: settings of training and scoring, tower, footage."""
        settings = {name: value for name, value in asdict(self.config).items() if name != "seed"}
        # The simulator's hash: rows of other footage must not pass for these.
        parts = [settings, backbone.fingerprint, simulator_hash(), self.params.frames_per_clip, self.params.stride,
                 self.params.top_fraction, self.params.sigma, self.params.max_videos]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    def _has(self, arm: Arm, target: Target, config: str) -> bool:
        return has_rows(self.rows_path, "split", [target.split], variant=arm.variant, dataset=target.dataset,
                        protocol=target.protocol, seed=arm.seed, config=config)

    def _run_tower(self, arms: Sequence[Arm], backbone: Any, config: str) -> None:
        text = prototypes(backbone, cache_dir=self.cache)
        decoders = {arm: self._decoder(arm, backbone, text, config) for arm in arms}
        scoring = Scoring(frames_per_clip=self.params.frames_per_clip, stride=self.params.stride,
                          top_fraction=self.params.top_fraction)
        splits = {arm: ("simcampus", arm.train_protocol, TRAINING_SPLITS[arm.train_protocol][1]) for arm in arms}
        needed = [(self.videos(*splits[arm]), arm) for arm in arms]
        needed += [(self._evaluated(t), arm) for arm in arms for t in self._of(arm)]
        found = self._score(needed, decoders, backbone, text, scoring, config)
        for arm in arms:
            videos = self.videos(*splits[arm])
            detections = [found[arm, video.frames.fingerprint] for video in videos]
            chosen = calibrate(detections, videos, scoring, chosen_on=f"simcampus/{splits[arm][2]}")
            if self.params.sigma is not None:
                chosen = replace(chosen, sigma=self.params.sigma, chosen_on=f"{chosen.chosen_on}; sigma given")
            chosen.save(self.work / config / arm.name / "detector.json")
            for target in self._of(arm):
                videos = self._evaluated(target)
                finished = {video.id: rescore(found[arm, video.frames.fingerprint], chosen) for video in videos}
                self._report(arm, target, finished, chosen, config)

    def _decoder(self, arm: Arm, backbone: Any, text: Any, config: str) -> AnomalyHeatmapDecoder:
        settings = replace(self.config, seed=arm.seed, pairs_per_video=self.pairs_per_video())
        device = getattr(backbone, "device", "cpu")
        if arm.variant == "control-untrained":
            return untrained_decoder(settings, backbone).eval().to(device)
        splits = [self.videos("simcampus", arm.train_protocol, name) for name in TRAINING_SPLITS[arm.train_protocol]]
        result = train_heatmap(settings, backbone, train=splits[0], val=splits[1], cache_dir=self.cache,
                               prototypes=text, output_dir=self.work / config / arm.name)
        print(f"{arm.name}: {result.seconds:.0f} s, best {dict(result.best)}", flush=True)
        return AnomalyHeatmapDecoder.load(result.path, backbone=backbone).eval().to(device)

    def decoder(self, backbone: Any, text: Any, *, protocol: str, seed: int, variant: str = "full",
                config: str | None = None) -> AnomalyHeatmapDecoder:
        """The decoder of an arm, trained where it is missing: what phase 2 and adaptation start from.

        ``config``: the study's hash where ``backbone`` is the tower of a control.
        """
        return self._decoder(Arm(variant, protocol, seed), backbone, text, config or self.config_hash(backbone))

    def pairs_per_video(self) -> int:
        """As many of each video as the closed split takes, so that the open-set split finds them in the cache."""
        count = len(self.videos("simcampus", "scene-disjoint", "train"))
        return self.config.pairs_per_video or max(1, self.config.train_pairs // count)

    def _score(self, needed: Sequence[tuple[Sequence[Any], Arm]], decoders: Mapping[Arm, AnomalyHeatmapDecoder],
               backbone: Any, text: Any, scoring: Scoring, config: str) -> dict[tuple[Arm, str], Detection]:
        """Detections by arm and fingerprint of the frames; each video passes the tower once for all that need it.

        Splits of different protocols share footage, hence the fingerprint; what is on disk is not computed again.
        """
        wanted: dict[str, tuple[Any, dict[Arm, None]]] = {}
        for videos, arm in needed:
            for video in videos:
                wanted.setdefault(video.frames.fingerprint, (video, {}))[1][arm] = None
        systems = {arm: TVAD(backbone, decoder, prototypes=text, scoring=scoring) for arm, decoder in decoders.items()}
        found: dict[tuple[Arm, str], Detection] = {}
        for mark, (video, arms) in tqdm(wanted.items(), desc=f"scoring ({next(iter(decoders)).tower})", unit="video"):
            missing = {}
            for arm in arms:
                path = detection_path(self.work / config / arm.name / "detections" / video.dataset, video)
                key = detection_key(systems[arm], video)
                if (kept := stored(path, key)) is not None:
                    found[arm, mark] = kept
                else:
                    missing[arm.name] = (arm, path, key)
            rest = {name: decoders[arm] for name, (arm, _, _) in missing.items()}
            for name, detection in (score_many(backbone, rest, video, prototypes=text, scoring=scoring) if rest
                                    else {}).items():
                arm, path, key = missing[name]
                detection.save(path, key=key)
                found[arm, mark] = detection
        return found

    def _report(self, arm: Arm, target: Target, detections: Mapping[str, Detection], scoring: Scoring,
                config: str) -> None:
        if self._has(arm, target, config):
            return
        videos = self._evaluated(target)
        cell = Cell(variant=arm.variant, dataset=target.dataset, split=target.split, protocol=target.protocol,
                    seed=arm.seed, config=config, sigma=scoring.sigma, samples=self.params.bootstrap_samples,
                    choice=scoring.choice_on(f"{target.dataset}/{target.split}"))
        rows = evaluate(detections, videos, cell)
        if target.protocol == "open-set":
            rows += evaluate_events(detections, videos, cell, kinds=OPEN_SET_EVENTS, name="kept-out")
        replace_rows(self.rows_path, rows)
        print(f"{arm.name} on {target.dataset}/{target.split}: {said(rows)}", flush=True)


def said(rows: Iterable[Row]) -> str:
    """What a study tells of rows in one line: metric and value, without those of single events and undefined ones."""
    return ", ".join(f"{row.metric} {row.value:.3f}" for row in rows if row.event is None and row.value is not None)


def open_backbone(params: Phase1, **options: Any) -> QwenBackbone:
    """The model that phase 1 names, as it says; ``options``: see ``QwenBackbone.from_pretrained``."""
    return QwenBackbone.from_pretrained(params.backbone, taps=params.taps, device=params.device, dtype=params.dtype,
                                        attention=params.attention, **options)


def tower_of(stock: QwenBackbone, arm: Arm) -> Any:
    """The tower that an arm sees with: the stock one, one that sees still pairs, or a random one of the arm's seed."""
    if arm.tower == "static":
        return StaticView(stock)
    return stock.randomised(seed=arm.seed) if arm.tower.startswith("random-") else stock
