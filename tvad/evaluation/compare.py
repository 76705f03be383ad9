"""Two systems on the same videos: paired differences with intervals and p-values, as measures.

Where both were trained with several seeds, the difference is that of the means over seeds; videos are what is drawn, so
the interval says how far the difference hangs on the footage, not on the seeds.  p-values are of single figures; the
tables correct them for the number of systems compared (``tvad.metrics.paired.holm``).
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tvad.detection import Detection
from tvad.errors import DatasetError
from tvad.evaluation.measures import Measure, of_cell
from tvad.evaluation.rows import Cell
from tvad.metrics.common import MetricError
from tvad.metrics.early import latency_ap_weighted
from tvad.metrics.frame import average_precision_weighted, macro_auc, macro_auc_weighted, micro_auc_weighted
from tvad.metrics.paired import Difference, Weighted, paired_bootstrap, sign_flips
from tvad.metrics.pixel import fitted, pixel_auroc_weighted
from tvad.metrics.region import rbdc_tbdc_weighted
from tvad.metrics.text import BLEU_SLOTS, YES_NO, Answer, bleu4, bleu_counts, yes_no

Found = Mapping[str, Detection]


def differences(first: Sequence[Found], second: Sequence[Found], videos: Sequence[Any], cell: Cell, *,
                against: str) -> list[Measure]:
    """What ``first`` gains over ``second``: one measure of unit "difference" a figure.

    ``first``, ``second``: detections by video, one mapping a seed. ``cell``: of the first system, whose bootstrap
    samples count. ``against``: the second's "system/variant". Figures whose annotation is missing are left out.
    Raises :class:`DatasetError` where a system lacks a video.
    """
    for found in (*first, *second):
        if missing := [video.id for video in videos if video.id not in found]:
            raise DatasetError(f"{missing[0]}: one of both systems has no detection of this video; score both first")
    made = []
    for name, make in _metrics(videos).items():
        try:
            sides = [_mean([make(found) for found in side]) for side in (first, second)]
            gap = paired_bootstrap(*sides, len(videos), samples=cell.samples)
        except MetricError as error:
            made.append(of_cell(cell, name, "difference", None, n=len(videos), against=against, note=str(error)))
            continue
        made.append(_measure(cell, name, gap, against))
    values = [np.mean([_video_aucs(found, videos) for found in side], axis=0) for side in (first, second)]
    made.append(_measure(cell, "video_auc", sign_flips(*values), against))
    return made


def _measure(cell: Cell, name: str, gap: Difference, against: str) -> Measure:
    return of_cell(cell, name, "difference", gap, n=gap.n, against=against, p=gap.p,
                   note=f"paired {gap.test}, {gap.samples} samples")


def _mean(parts: Sequence[Weighted]) -> Weighted:
    return lambda weights: np.mean([part(weights) for part in parts], axis=0)


def _metrics(videos: Sequence[Any]) -> dict[str, Callable[[Found], Weighted]]:
    labels = [np.asarray(video.labels, np.uint8) for video in videos]
    fps = [video.frames.fps for video in videos]

    def smooth(found: Found) -> list[np.ndarray]:
        return [found[video.id].frame_scores for video in videos]

    def raw(found: Found) -> list[np.ndarray]:
        return [found[video.id].raw_scores for video in videos]

    made: dict[str, Callable[[Found], Weighted]] = {
        "micro_auc": lambda found: micro_auc_weighted(smooth(found), labels),
        "macro_auc": lambda found: macro_auc_weighted(smooth(found), labels),
        "ap": lambda found: average_precision_weighted(smooth(found), labels),
        "latency_ap": lambda found: latency_ap_weighted(raw(found), labels, fps=fps)}
    if all(video.masks is not None for video in videos):
        masks = [lambda video=video: (np.asarray(video.masks(0, len(video))) > 0).astype(np.uint8) for video in videos]
        made["pixel_auroc"] = lambda found: pixel_auroc_weighted(
            [fitted(found[video.id].heatmap, tuple(found[video.id].size)) for video in videos], masks)
    tracks = {video.id: video.tracks for video in videos if video.tracks is not None and len(video.tracks)}
    if tracks and all(video.tracks is not None or not np.any(video.labels) for video in videos):
        frames = {video.id: len(video.labels) for video in videos}
        for column, name in enumerate(("rbdc", "tbdc")):
            made[name] = lambda found, column=column: _region(found, videos, tracks, frames, column)
    return made


def _region(found: Found, videos: Sequence[Any], tracks: Mapping[str, Any], frames: Mapping[str, int],
            column: int) -> Weighted:
    evaluate = rbdc_tbdc_weighted({video.id: found[video.id].regions for video in videos}, tracks, num_frames=frames)
    return lambda weights: evaluate(weights)[:, column]


def _video_aucs(found: Found, videos: Sequence[Any]) -> list[float]:
    return [macro_auc([found[video.id].frame_scores], [video.labels]) for video in videos]


# Answers

def answer_differences(first: Sequence[Sequence[Answer]], second: Sequence[Sequence[Answer]], cell: Cell, *,
                       against: str) -> list[Measure]:
    """The same for conversations: yes/no accuracy of all clips, BLEU-4 of the anomalous ones; one list a seed.

    Raises :class:`DatasetError` where both sides do not answer the same questions about the same videos.
    """
    asked = [sorted((one.video, one.slot, one.wanted) for one in side) for side in (*first, *second)]
    if any(other != asked[0] for other in asked[1:]):
        raise DatasetError("the two sides do not answer the same questions, so they cannot be compared pairwise; let both "
                           "answer one split of one dialogue set")
    videos = sorted({video for video, _, _ in asked[0]})
    made = []
    figures = [("yes_no_accuracy", _right, lambda total: total[0] / total[1] if total[1] else np.nan),
               *((name, _bleu(slot), _bleu_of) for name, slot in BLEU_SLOTS.items())]
    for name, table, value in figures:
        sides = [_mean([_summed(table, answers, videos, value) for answers in side]) for side in (first, second)]
        try:
            gap = paired_bootstrap(*sides, len(videos), samples=cell.samples)
        except MetricError:      # nobody was asked this
            continue
        made.append(_measure(cell, name, gap, against))
    return made


def _right(one: Answer) -> np.ndarray | None:
    if one.slot != YES_NO:
        return None
    return np.array([yes_no(one.said) is yes_no(one.wanted[0]), 1], np.float64)


def _bleu(slot: str) -> Callable[[Answer], np.ndarray | None]:
    def counts(one: Answer) -> np.ndarray | None:
        return bleu_counts(one.said, one.wanted) if one.slot == slot and one.event is not None else None
    return counts


def _bleu_of(total: np.ndarray) -> float:
    # sacrebleu wants whole numbers, the weights are floats
    return bleu4([np.rint(total).astype(np.int64)]) if total[-1] else np.nan


def _summed(table: Callable[[Answer], np.ndarray | None], answers: Sequence[Answer], videos: Sequence[str],
            value: Callable[[np.ndarray], float]) -> Weighted:
    place, sums = {name: index for index, name in enumerate(videos)}, None
    for one in answers:
        row = table(one)
        if row is not None:
            sums = np.zeros((len(videos), len(row))) if sums is None else sums
            sums[place[one.video]] += row
    if sums is None:
        return lambda weights: np.full(len(weights), np.nan)
    return lambda weights: np.array([value(total) for total in np.asarray(weights) @ sums])
