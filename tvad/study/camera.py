"""The study of adaptation: a real set's normal training clips alone adapt the detector, its test clips measure it.

    python -m tvad.study run --profile ped2 --phase camera

Fixed before any test clip is read: settings are the defaults of ``AdaptConfig``, smoothing comes from held-out normal clips
with pasted events (of what is not adapted, from simulated validation scenes), and region thresholds lie on the scale that
held-out normal footage sets.  Every seed is an adaptation of its own, from that seed's decoder of phase 1.  Rows:
``simulated-only`` (not adapted), ``adapted`` (the default), ``adapted-frozen`` (the decoder alone, the tower as it was),
``adapted-tower`` (the tower too) and ``adapted-native-size`` (pictures not enlarged), ``adapted-all-new`` (no share of the
old weights kept), adaptations of their own, ``matched-view`` (weights as phase 1 left them; size, gap, scale of the scores
and smoothing as adaptation finds them from normal footage), the default's weights read otherwise: ``adapted-no-clips``
(nothing is chosen on whole held-out clips: scores smoothed by the people's pace, heatmaps not),
``adapted-heat-unsmoothed``, ``adapted-smoothed-in-frames``, ``adapted-top-percent`` and ``adapted-five-thresholds``
(smoothing as simulated scenes ask for, the patches that count not a person's size, regions at five thresholds and of any
size) and ``adapted-*`` with other evidence (see ``PARTS``); and the controls, whose decoder alone is adapted, to a tower
that is random or sees each pair frozen to one frame: what they are to be compared with is ``adapted-frozen``; the random
one also has a row of its own matched view.
"""
from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from tvad.adaptation.detector import AdaptedDetector, detect_all
from tvad.backbones.qwen import QwenBackbone
from tvad.detection import Detection, Scoring
from tvad.detector import TVAD
from tvad.errors import MissingPhaseError, ParameterError
from tvad.evaluation import Cell, detection_key, detection_path, evaluate, stored
from tvad.params import Phase1, project_root
from tvad.prompts import prototypes
from tvad.record import Row, has_rows, provenance, replace_rows, write_json
from tvad.study.run import CACHE_BYTES, Arm, Study, open_backbone, said, tower_of
from tvad.training.adapt import VIEWING, AdaptConfig, adapt, match_view
from tvad.training.adapt.clips import RULES
from tvad.training.adapt.pairs import source_hash
from tvad.training.cache import prune

CONFIG = AdaptConfig(oneclass=True)     # the defaults, and the bank for the rows that count it
DEFAULT, FROZEN, TOWER = "adapted", "adapted-frozen", "adapted-tower"
PLAIN, UNSTEADY = "adapted-no-clips", "adapted-heat-unsmoothed"
# The default with some settings of its scores and regions as the model had them before adaptation.
SCORED: Mapping[str, tuple[str, ...]] = {
    "adapted-smoothed-in-frames": ("sigma",),
    "adapted-top-percent": ("top_fraction",),
    "adapted-five-thresholds": ("min_area", "region_score"),
}
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)      # of the last of them
RANK = 16       # of the tower's adapter where the default leaves the tower as it is
# Rows from one adaptation by the choice of evidence that they use (``tvad.training.adapt.assembly.choices``).
PARTS: Mapping[str, str] = {
    "adapted-levels": "heat by place",
    "adapted-oneclass": "heat by place + oneclass 0.5",
    "adapted-oneclass-alone": "oneclass alone",
}
CONTROLS = ("control-random-tower", "control-static")
FULL = ("simulated-only", DEFAULT, FROZEN, PLAIN, UNSTEADY, *SCORED, *PARTS)
# Adaptations of their own: of the trained tower, by what is changed, and of the controls' towers.
CHANGED: Mapping[str, Mapping[str, Any]] = {"adapted-all-new": {"kept": 0.0}, "adapted-native-size": {"zooms": (1.0,)},
                                            TOWER: {"tower_rank": RANK}}
# Nothing is trained: the camera's view, scale and smoothing are found; by the tower that sees.
VIEWED: Mapping[str, str] = {"matched-view": "full", "matched-view-control-random-tower": "control-random-tower"}
ADAPTATIONS = ("full", *CHANGED, *CONTROLS, *VIEWED)
VARIANTS = (*FULL, *CHANGED, *(f"adapted-{name}" for name in CONTROLS), *VIEWED)


class CameraStudy:
    """Adaptation to the camera of a profile's real set; ``run`` does what is missing.

    ``adaptations``: those of ``ADAPTATIONS`` that are wanted.
    Raises :class:`ParameterError` for a profile of simulated scenes.
    """

    def __init__(self, profile: str, *, seeds: Sequence[int] = (0, 1, 2), adaptations: Sequence[str] = ADAPTATIONS,
                 root: Path | None = None, params: Phase1 | None = None, config: AdaptConfig = CONFIG) -> None:
        self.root = root or project_root()
        self.phase1 = Study(profile, root=root, params=params)
        self.params, self.seeds, self.config = self.phase1.params, tuple(seeds), config
        if self.params.dataset == "simcampus":
            raise ParameterError(f"profile {profile}: adaptation is measured on real footage, not on simcampus; study "
                                 "profile ped2")
        self.adaptations = tuple(adaptations)
        self.work, self.cache = self.root / "runs" / "study" / "camera", self.phase1.cache

    @cached_property
    def stock(self) -> QwenBackbone:
        """The tower that phase 1 names, opened once."""
        return open_backbone(self.params)

    @cached_property
    def key(self) -> str:
        """Hash of all that decides the rows."""
        settings = {name: value for name, value in asdict(self.config).items() if name != "seed"}
        # Not by ``fingerprint``, which holds the files' times: another copy of the set must give the same key.
        footage = [[video.id, len(video.frames), zlib.crc32(video.frames.read(0, 1).tobytes())]
                   for video in self._clips("train")]
        parts = ["camera", settings, THRESHOLDS, sorted(PARTS.items()), sorted(SCORED.items()), sorted(CHANGED.items()),
                 sorted(VIEWING.items()), RULES, source_hash(), footage, self.phase1.config_hash(self.stock)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    def run(self) -> Path:
        """Adapt and measure every seed and tower that has no rows yet; returns the file of rows.

        Raises :class:`MissingPhaseError` where phase 1's study has not calibrated its decoders; what adaptation raises.
        """
        began, path = time.perf_counter(), self.phase1.rows_path
        cells = [(name, seed) for name in self.adaptations for seed in self.seeds]
        missing = [cell for cell in cells if not self._has(*cell)]
        print(f"camera: {len(missing)} of {len(cells)} adaptations to do, rows in {path}", flush=True)
        for name, seed in missing:
            rows = self._cell(name, seed)
            replace_rows(path, rows)
            prune(self.cache, keep=[], limit_bytes=CACHE_BYTES)      # composites of a seed serve that seed alone
            for variant in self.variants(name):
                print(f"{variant}, seed {seed}: {said(row for row in rows if row.variant == variant)}", flush=True)
        if missing:
            record = provenance(config=self.key, device=str(self.stock.device), attention=self.stock.attention,
                                started=began, seeds=list(self.seeds), settings=asdict(self.config),
                                changed={name: dict(changes) for name, changes in CHANGED.items()},
                                backbone=self.stock.fingerprint)
            write_json(path.with_name(f"{path.stem}.camera.provenance.json"), record)
        return path

    def variants(self, name: str) -> tuple[str, ...]:
        """The rows that one adaptation gives."""
        return FULL if name == "full" else (f"adapted-{name}",) if name in CONTROLS else (name,)

    def _cell(self, name: str, seed: int) -> list[Row]:
        arm = Arm(name if name in CONTROLS else VIEWED.get(name, "full"), self.params.train_protocol, seed)
        backbone = tower_of(self.stock, arm)
        text = prototypes(backbone, cache_dir=self.cache)
        decoder = self.phase1.decoder(backbone, text, protocol=arm.train_protocol, seed=seed, variant=arm.variant,
                                      config=self.phase1.config_hash(self.stock))
        model = TVAD(backbone, decoder, prototypes=text, scoring=self._scoring(arm))
        detectors = self._adapted(model, arm, name)
        found = self._detections(detectors, self._folder(name, arm))
        rows = [row for variant, each in found.items() for row in self._rows(variant, arm, each,
                                                                             detectors[variant].scoring)]
        if name == "full":
            rows += self._rows("simulated-only", arm, self._plain(model, arm), model.scoring)
        return rows

    def _folder(self, name: str, arm: Arm) -> Path:
        return self.work / self.key / f"{name}-{arm.train_protocol}-seed{arm.seed}"

    def _scoring(self, arm: Arm) -> Scoring:
        path = self.phase1.work / self.phase1.config_hash(self.stock) / arm.name / "detector.json"
        if not path.is_file():
            raise MissingPhaseError(f"{path}: no smoothing chosen for {arm.name}; run first: python -m tvad.study run "
                                    f"--profile {self.params.profile} --phase 1")
        return Scoring.load(path)

    def _adapted(self, model: TVAD, arm: Arm, name: str) -> dict[str, AdaptedDetector]:
        """Detectors by variant."""
        changes = dict(CHANGED.get(name, {}))
        if name in CONTROLS:        # a control's tower must stay what it is
            changes["tower_rank"] = 0
        clips, common = self._clips("train"), {"output_dir": self._folder(name, arm), "cache_dir": self.cache,
                                               "config": replace(self.config, seed=arm.seed, **changes)}
        if name in VIEWED:
            result = match_view(model, clips, **common)
        else:
            result = adapt(model, clips, **common,
                           rehearsal=self.phase1.videos("simcampus", arm.train_protocol, "train"))
        print(f"{name}, seed {arm.seed}: adapted in {result.seconds:.0f} s, best {dict(result.report['best'])}", flush=True)
        if name != "full":
            return {self.variants(name)[0]: result.detector}
        chosen = result.detector
        found = {DEFAULT: chosen, FROZEN: (result.frozen or result).detector, PLAIN: result.plain,
                 UNSTEADY: replace(chosen, fusion=replace(chosen.fusion, blur=(0.0, 0.0))),
                 **{variant: result.choices[title] for variant, title in PARTS.items()}}
        for variant, names in SCORED.items():
            scoring = replace(chosen.scoring, **{each: getattr(model.scoring, each) for each in names})
            if "sigma" in names:
                scoring = replace(scoring, chosen_on=model.scoring.chosen_on)
            if "min_area" in names:
                scoring = replace(scoring, thresholds=THRESHOLDS)
            found[variant] = replace(chosen, scoring=scoring)
        return found

    def _clips(self, split: str) -> tuple[Any, ...]:
        return self.phase1.videos(self.params.dataset, self.params.protocol, split)

    def _evaluated(self) -> tuple[Any, ...]:
        return self._clips(self.params.split)[:self.params.max_videos or None]

    def _detections(self, detectors: Mapping[str, AdaptedDetector], folder: Path) -> dict[str, dict[str, Detection]]:
        """By variant and video; detectors of the same weights share a pass, and what is on disk is not computed again."""
        found: dict[str, dict[str, Detection]] = {variant: {} for variant in detectors}
        folder = folder / "detections"
        for video in tqdm(self._evaluated(), desc=f"scoring ({folder.parent.name})", unit="video"):
            # A detector's fingerprint holds the key of its adaptation: other weights are other detections.
            keys = {variant: detection_key(detector, video) for variant, detector in detectors.items()}
            kept = {variant: stored(detection_path(folder / variant, video), key) for variant, key in keys.items()}
            if None in kept.values():
                kept = {variant: detection for several in together(detectors)
                        for variant, detection in detect_all(several, video).items()}
                for variant, detection in kept.items():
                    detection.save(detection_path(folder / variant, video), key=keys[variant])
            for variant, detection in kept.items():
                found[variant][video.id] = detection
        return found

    def _plain(self, model: TVAD, arm: Arm) -> dict[str, Detection]:
        return {video.id: model.score(video) for video in tqdm(self._evaluated(), desc=f"not adapted ({arm.name})",
                                                               unit="video")}

    def _rows(self, variant: str, arm: Arm, detections: Mapping[str, Detection], scoring: Scoring) -> list[Row]:
        params = self.params
        cell = Cell(variant=variant, dataset=params.dataset, split=params.split, protocol=params.protocol, seed=arm.seed,
                    config=self.key, sigma=scoring.sigma, samples=params.bootstrap_samples,
                    choice=scoring.choice_on(f"{params.dataset}/{params.split}"))
        return evaluate(detections, self._evaluated(), cell)

    def _has(self, name: str, seed: int) -> bool:
        return has_rows(self.phase1.rows_path, "variant", self.variants(name), seed=seed, config=self.key)


def together(detectors: Mapping[str, AdaptedDetector]) -> list[dict[str, AdaptedDetector]]:
    """Detectors grouped by their weights, as ``detect_all`` takes them."""
    groups: dict[int, dict[str, AdaptedDetector]] = {}
    for variant, one in detectors.items():
        groups.setdefault(id(getattr(one, "decoder", None)), {})[variant] = one
    return list(groups.values())
