"""What a split's rows do not say: figures by scene, how early events are raised, false alarms, calibration of answers.

All are read off stored detections or answers; nothing runs a model.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tvad.detection import Detection
from tvad.evaluation.measures import Measure, of_cell, of_row
from tvad.evaluation.rows import Cell, evaluate
from tvad.metrics.bootstrap import Interval, interval_of
from tvad.metrics.common import MetricError
from tvad.metrics.early import false_alarms_weighted, latency_ap_weighted, operating_point
from tvad.metrics.paired import Weighted
from tvad.metrics.reliability import Reliability, brier_weighted, ece_weighted, reliability
from tvad.metrics.text import YES_NO, Answer, yes_no

RECALLS = (0.8, 0.95)
SCENE_METRICS = ("micro_auc", "ap", "pixel_auroc", "rbdc", "tbdc")


def detail_measures(detections: Mapping[str, Detection], videos: Sequence[Any], cell: Cell) -> list[Measure]:
    """Everything about frames that is no row: by scene, early alarms, false alarms."""
    return [*scene_measures(detections, videos, cell), *alarm_measures(detections, videos, cell)]


def scene_measures(detections: Mapping[str, Detection], videos: Sequence[Any], cell: Cell) -> list[Measure]:
    """The figures of each scene by itself, intervals over its own videos; none where no or only one scene is known.

    Smoothed frame scores, where there are such; a scene in which a figure is undefined has it without value.
    """
    scenes = sorted({video.scene for video in videos if video.scene is not None})
    found = []
    for scene in scenes if len(scenes) > 1 else ():
        own = [video for video in videos if video.scene == scene]
        rows = [row for row in evaluate(detections, own, cell) if row.event is None and row.metric in SCENE_METRICS]
        found += [of_row(row, scene=scene) for row in rows if row.sigma is None or (row.sigma > 0) == (cell.sigma > 0)]
    return found


def alarm_measures(detections: Mapping[str, Detection], videos: Sequence[Any], cell: Cell) -> list[Measure]:
    """Latency-aware AP, and false alarms an hour with the delay at each recall of ``RECALLS``.

    On raw scores, since smoothing looks ahead; see :mod:`tvad.metrics.early` for the definitions.
    """
    scores, labels = [detections[video.id].raw_scores for video in videos], [video.labels for video in videos]
    fps = [video.frames.fps for video in videos]
    found = [_measure(cell, "latency_ap", "fraction", len(videos),
                      lambda: latency_ap_weighted(scores, labels, fps=fps))]
    for recall in RECALLS:
        at = f"at_recall_{round(100 * recall)}"
        found.append(_measure(cell, f"false_alarms_{at}", "alarms/h", len(videos),
                              lambda recall=recall: false_alarms_weighted(scores, labels, fps=fps, recall=recall)))
        try:
            point = operating_point(scores, labels, fps=fps, recall=recall)
        except MetricError:      # told by the undefined figure just above
            continue
        note = f"threshold {point.threshold:.4g}, {point.events} events, {point.hours:.3f} h of normal footage"
        found[-1] = replace(found[-1], note=note)
        found += [of_cell(cell, f"false_frames_{at}", "fraction", point.false_frames, n=len(videos)),
                  of_cell(cell, f"delay_{at}", "s", point.delay, n=point.events)]
    return found


def _measure(cell: Cell, name: str, unit: str, count: int, make: Any, **more: Any) -> Measure:
    """A measure with its interval over videos; the bare value where resamples leave it undefined, None where it is."""
    try:
        evaluate_at: Weighted = make()
    except MetricError as error:
        return of_cell(cell, name, unit, None, n=count, note=str(error), **more)
    found: Interval | float | None
    try:
        found = interval_of(evaluate_at, count, samples=cell.samples)
    except MetricError:
        value = float(evaluate_at(np.ones((1, count)))[0])
        found = None if np.isnan(value) else value
    return of_cell(cell, name, unit, found, n=count, **more)


# Answers

def yes_no_pairs(answers: Sequence[Answer]) -> dict[str, tuple[list[float], list[bool]]]:
    """Probability of yes and whether yes was right, by video; answers without a probability are left out."""
    found: dict[str, tuple[list[float], list[bool]]] = {}
    for one in answers:
        if one.slot == YES_NO and one.probability is not None:
            chances, truths = found.setdefault(one.video, ([], []))
            chances.append(one.probability)
            truths.append(bool(yes_no(one.wanted[0])))
    return found


def diagram(answers: Sequence[Answer], *, bins: int = 10) -> Reliability:
    """The reliability diagram of the yes/no question. Raises MetricError where no answer has a probability."""
    pairs = yes_no_pairs(answers).values()
    return reliability([chance for chances, _ in pairs for chance in chances],
                       [truth for _, truths in pairs for truth in truths], bins=bins)


def answer_measures(answers: Sequence[Answer], cell: Cell, *, bins: int = 10) -> list[Measure]:
    """Expected calibration error and Brier score of the yes/no probability, with intervals over videos."""
    pairs = yes_no_pairs(answers)
    chances, truths = ([part[side] for part in pairs.values()] for side in (0, 1))
    if not pairs:
        return []
    count = sum(map(len, chances))
    made = [_measure(cell, "ece", "fraction", len(pairs), lambda: ece_weighted(chances, truths, bins=bins)),
            _measure(cell, "brier", "fraction", len(pairs), lambda: brier_weighted(chances, truths))]
    return [replace(one, n=count, note=f"{bins} bins of equal width") if one.name == "ece" else replace(one, n=count)
            for one in made]
