"""Frame-level metrics: micro and macro ROC-AUC, average precision, per-event AUC, and per-video smoothing.

All take one array of scores and one of 0/1 labels a video. ROC-AUC and average precision are scikit-learn's, on
float64 (torchmetrics would squash scores outside [0, 1]). The ``*_weighted`` functions are the same metrics as
functions of how often each video counts; :mod:`tvad.metrics.bootstrap` resamples videos with them.
"""

from __future__ import annotations

from typing import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from sklearn.metrics import average_precision_score, roc_auc_score

from tvad.metrics.common import MetricError, check_both_classes, check_frames, pair_wins, weighted_auc

Frames = Sequence[Float[np.ndarray, "n"]]
Weighted = Callable[[np.ndarray], np.ndarray]  # (s, v) multiplicities -> (s,) values, NaN where undefined


def _pooled(scores: Frames, labels: Sequence, metric: str) -> tuple[np.ndarray, np.ndarray]:
    values, truths = check_frames(scores, labels)
    value, truth = np.concatenate(values), np.concatenate(truths)
    check_both_classes(int(truth.sum()), int((~truth).sum()), metric=metric, unit="frame")
    return value, truth


def micro_auc(scores: Frames, labels: Sequence) -> float:
    """ROC-AUC over the frames of all videos together.

    Raises:
        MetricError: lengths differ, NaN, labels other than 0/1, or one class is missing altogether.
    """
    value, truth = _pooled(scores, labels, "micro AUC")
    return float(roc_auc_score(truth, value))


def _video_aucs(scores: Frames, labels: Sequence) -> np.ndarray:
    values, truths = check_frames(scores, labels)
    aucs = []
    for index, (value, truth) in enumerate(zip(values, truths)):
        if len(value) and (value.min() < 0 or value.max() > 1):
            raise MetricError(
                f"video {index}: macro AUC needs scores in [0, 1], got {value.min():.4g} to {value.max():.4g}, because "
                "it adds a normal frame of score 0 and an anomalous one of score 1; rescale all videos alike"
            )
        aucs.append(roc_auc_score(np.concatenate(([False], truth, [True])), np.concatenate(([0.0], value, [1.0]))))
    return np.array(aucs)


def macro_auc(scores: Frames, labels: Sequence) -> float:
    """Mean over videos of the ROC-AUC within each, by UBnormal's rule.

    Each video gets one more frame of label 0 and score 0 and one of label 1 and score 1, so videos of one class count
    too.

    Raises:
        MetricError: as for :func:`micro_auc`, and for scores outside [0, 1].
    """
    return float(_video_aucs(scores, labels).mean())


def average_precision(scores: Frames, labels: Sequence) -> float:
    """Average precision (step sum, not interpolated) over all frames; read it beside :func:`positive_rate`."""
    value, truth = _pooled(scores, labels, "average precision")
    return float(average_precision_score(truth, value))


def positive_rate(labels: Sequence) -> float:
    """Share of anomalous frames: the average precision of a random score."""
    truth = np.concatenate(check_frames([np.zeros(len(label)) for label in labels], labels)[1])
    if not len(truth):
        raise MetricError("positive rate is undefined: the videos have no frame at all")
    return float(truth.mean())


def smooth(scores: Frames, sigma: float) -> list[Float[np.ndarray, "n"]]:
    """Gaussian smoothing along the frames of each video by itself; ``sigma`` in frames, 0 leaves the scores as they
    are.

    The border repeats the first and last score, so nothing crosses from one video to the next.
    """
    if not np.isfinite(sigma) or sigma < 0:
        raise MetricError(f"sigma must be 0 or more frames, got {sigma}")
    values = check_frames(scores, [np.zeros(len(score), dtype=np.uint8) for score in scores])[0]
    return [
        gaussian_filter1d(value, sigma, mode="nearest") if sigma > 0 and len(value) else value.copy()
        for value in values
    ]


def _event_split(scores: Frames, labels: Sequence, spans: Sequence[Sequence[tuple[int, int]]]) -> tuple[list, list]:
    values, truths = check_frames(scores, labels)
    if len(spans) != len(values):
        raise MetricError(
            f"{len(values)} videos but spans for {len(spans)}; pass one (maybe empty) list of (start, stop) a video"
        )
    positives, negatives = [], []
    for index, (value, truth, parts) in enumerate(zip(values, truths, spans)):
        inside = np.zeros(len(value), dtype=bool)
        for start, stop in parts:
            if not 0 <= start < stop <= len(value):
                raise MetricError(
                    f"video {index}: span ({start}, {stop}) does not fit its {len(value)} frames; stop is exclusive"
                )
            inside[start:stop] = True
        positives.append(value[inside & truth])
        negatives.append(value[~truth])
    check_both_classes(
        sum(map(len, positives)), sum(map(len, negatives)), metric="event AUC", unit="frame (of this event, or normal)"
    )
    return positives, negatives


def event_auc(scores: Frames, labels: Sequence, *, spans: Sequence[Sequence[tuple[int, int]]]) -> float:
    """ROC-AUC of the anomalous frames of one event against the normal frames of all videos.

    ``spans`` has for each video the (start, stop) frame ranges of that event, stop exclusive. Frames of other events
    are left out; frames inside a span whose label is 0 (the target is out of sight) count as normal.
    """
    positives, negatives = (np.concatenate(parts) for parts in _event_split(scores, labels, spans))
    return float(
        roc_auc_score(
            np.arange(len(positives) + len(negatives)) < len(positives), np.concatenate((positives, negatives))
        )
    )


def _auc_weighted(positives: list, negatives: list) -> Weighted:
    wins = pair_wins(positives, negatives)
    sizes = [np.array([len(part) for part in parts], dtype=np.float64) for parts in (positives, negatives)]
    return lambda weights: weighted_auc(wins, *sizes, weights)


def micro_auc_weighted(scores: Frames, labels: Sequence) -> Weighted:
    """:func:`micro_auc` as a function of video multiplicities."""
    _pooled(scores, labels, "micro AUC")
    values, truths = check_frames(scores, labels)
    return _auc_weighted([v[t] for v, t in zip(values, truths)], [v[~t] for v, t in zip(values, truths)])


def event_auc_weighted(scores: Frames, labels: Sequence, *, spans: Sequence) -> Weighted:
    """:func:`event_auc` as a function of video multiplicities."""
    return _auc_weighted(*_event_split(scores, labels, spans))


def macro_auc_weighted(scores: Frames, labels: Sequence) -> Weighted:
    """:func:`macro_auc` as a function of video multiplicities."""
    aucs = _video_aucs(scores, labels)
    return lambda weights: (weights @ aucs) / weights.sum(axis=1)


def average_precision_weighted(scores: Frames, labels: Sequence) -> Weighted:
    """:func:`average_precision` as a function of video multiplicities."""
    value, truth = _pooled(scores, labels, "average precision")
    order = np.argsort(-value, kind="stable")
    owner = np.repeat(np.arange(len(scores)), [len(score) for score in scores])[order]
    truth = truth[order]
    ends = np.flatnonzero(np.append(np.diff(value[order]) != 0, True))  # last frame of each group of equal scores

    def evaluate(weights: np.ndarray) -> np.ndarray:
        results = np.full(len(weights), np.nan)
        step = max(1, 4_000_000 // max(1, len(owner)))
        for start in range(0, len(weights), step):
            count = np.asarray(weights[start : start + step], dtype=np.float64)[:, owner]
            seen = np.cumsum(count, axis=1)[:, ends]
            hits = np.cumsum(count * truth, axis=1)[:, ends]
            precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
            total = hits[:, -1]
            area = (np.diff(hits, axis=1, prepend=0) * precision).sum(axis=1)
            results[start : start + step] = np.divide(area, total, out=np.full_like(area, np.nan), where=total > 0)
        return results

    return evaluate
