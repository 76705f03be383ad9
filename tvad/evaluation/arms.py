"""What the study's stored detections say beyond its rows: scenes, alarms, and paired differences to its controls.

The study (``tvad.study.run``) keeps the raw detections of each arm with the smoothing and thresholds that it chose; here
they are put together again and measured, so no model runs.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvad.detection import Detection, Scoring, rescore
from tvad.errors import MissingPhaseError
from tvad.evaluation.compare import differences
from tvad.evaluation.details import detail_measures
from tvad.evaluation.measures import Measure
from tvad.evaluation.places import Place
from tvad.evaluation.rows import Cell
from tvad.evaluation.scoring import detection_path, load_detections


def arm_detections(arm: Path | str, place: Place, videos: Sequence[Any]) -> tuple[dict[str, Detection], Scoring]:
    """Detections of one arm on a place, smoothed and cut into regions as its scoring says, and that scoring.

    Raises :class:`MissingPhaseError` where the arm was not scored there as a whole.
    """
    record, folder = Path(arm) / "detector.json", Path(arm) / "detections" / place.dataset
    if not record.is_file() or not detection_path(folder, videos[0]).is_file():
        raise MissingPhaseError(f"{arm}: not scored on {place}; run: make study")
    scoring = Scoring.load(record)
    return {name: rescore(found, scoring) for name, found in load_detections(folder, videos).items()}, scoring


def arms_measures(study: Path | str, place: Place, videos: Sequence[Any], *, variants: Sequence[str], seeds: Sequence[int],
                  samples: int = 1000) -> tuple[list[Measure], list[str]]:
    """Details of every arm that is there, and the first variant's differences to each of the others.

    ``study``: the folder of one configuration (``runs/study/<hash>``). Also returned: what was missing, in words.
    Differences are taken over the seeds that both variants have.
    """
    found: dict[tuple[str, int], dict[str, Detection]] = {}
    measures, missing = [], []
    for variant in variants:
        for seed in seeds:
            arm = Path(study) / f"{variant}-{place.trained}-seed{seed}"
            try:
                found[variant, seed], scoring = arm_detections(arm, place, videos)
            except MissingPhaseError as error:
                missing.append(str(error))
                continue
            cell = _cell(place, variant, seed, Path(study).name, samples, scoring)
            measures += detail_measures(found[variant, seed], videos, cell)
    for variant in variants[1:]:
        shared = [seed for seed in seeds if (variants[0], seed) in found and (variant, seed) in found]
        if shared:
            cell = _cell(place, variants[0], shared[0], Path(study).name, samples)
            sides = [[found[name, seed] for seed in shared] for name in (variants[0], variant)]
            measures += differences(*sides, videos, cell, against=f"t-vad/{variant}")
    return measures, missing


def _cell(place: Place, variant: str, seed: int, config: str, samples: int, scoring: Scoring | None = None) -> Cell:
    return Cell(variant=variant, dataset=place.dataset, split=place.split, protocol=place.protocol, seed=seed,
                config=config, sigma=scoring.sigma if scoring else 0.0, samples=samples)
