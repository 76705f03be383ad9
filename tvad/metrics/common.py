"""What all metrics share: input checks, areas under curves and the pair counts behind a ROC-AUC."""

from __future__ import annotations

from typing import Sequence

import numpy as np
from jaxtyping import Float, Int

from tvad.errors import TvadError


class MetricError(TvadError, ValueError):
    """A metric's inputs contradict each other, or leave the metric undefined."""


def check_frames(scores: Sequence, labels: Sequence) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per-video frame scores as float64 and labels as bool, after checking both.

    Raises:
        MetricError: different numbers of videos or frames, NaN, labels other than 0 and 1, or no frame at all.
    """
    if len(scores) != len(labels):
        raise MetricError(
            f"{len(scores)} videos with scores but {len(labels)} with labels; pass one array a video in both"
        )
    if not len(scores):
        raise MetricError("no video given; pass one array of scores and one of labels a video")
    values, truths = [], []
    for index, (score, label) in enumerate(zip(scores, labels)):
        # float64, because bfloat16 and float16 arithmetic would collapse scores into ties
        score, label = np.asarray(score, dtype=np.float64), np.asarray(label)
        if score.ndim != 1 or label.ndim != 1:
            raise MetricError(
                f"video {index}: scores {score.shape} and labels {label.shape} must each have one axis (frames); "
                "pass a list with one array a video"
            )
        if len(score) != len(label):
            raise MetricError(
                f"video {index}: {len(score)} scores but {len(label)} labels; both need one value a frame"
            )
        if np.isnan(score).any():
            raise MetricError(
                f"video {index}: score of frame {int(np.isnan(score).argmax())} is NaN; mend the detector first"
            )
        if not np.isin(label, (0, 1)).all():
            raise MetricError(
                f"video {index}: labels must be 0 (normal) or 1 (anomalous), got {sorted(set(label.tolist()))[:5]}"
            )
        values.append(score)
        truths.append(label.astype(bool))
    return values, truths


def check_both_classes(positives: int, negatives: int, *, metric: str, unit: str) -> None:
    """Raise MetricError where one class is missing, which leaves a ranking metric undefined."""
    if not positives or not negatives:
        kind = "anomalous" if not positives else "normal"
        raise MetricError(
            f"{metric} is undefined: no {kind} {unit} among {positives + negatives}; "
            "evaluate on a split that holds both classes"
        )


def area_under(x: Float[np.ndarray, "*s n"], y: Float[np.ndarray, "*s n"], limit: float) -> Float[np.ndarray, "*s"]:
    """Trapezoid area under the polylines (x, y) from 0 to ``limit``; x is non-decreasing along the last axis.

    The segment that crosses ``limit`` is cut by linear interpolation; a curve that ends before is extended flat.
    """
    width = np.diff(x, axis=-1)
    rise = np.diff(y, axis=-1)
    kept = np.diff(np.minimum(x, limit), axis=-1)
    slope = np.divide(rise, width, out=np.zeros_like(rise), where=width > 0)
    area = (kept * (y[..., :-1] + slope * kept / 2)).sum(axis=-1)
    return area + np.maximum(limit - x[..., -1], 0) * y[..., -1]


def pair_wins(positives: Sequence[np.ndarray], negatives: Sequence[np.ndarray]) -> Int[np.ndarray, "v v"]:
    """Twice the number of won pairs, positives of video i (row) against negatives of video j (column); a tie is half
    a win.

    The ROC-AUC of any multiset of the videos is a ratio of two forms in the videos' multiplicities, with this matrix
    above the line: that makes resampling videos cheap (Mann-Whitney statistic).
    """
    scores = np.concatenate(positives)
    sizes = np.array([len(part) for part in positives])
    order = np.argsort(scores, kind="stable")  # sorted needles keep searchsorted in cache
    needles, owner = scores[order], np.repeat(np.arange(len(sizes)), sizes)[order]
    wins = np.zeros((len(sizes), len(negatives)), dtype=np.int64)
    for column, part in enumerate(negatives):
        part = np.sort(part)
        count = np.searchsorted(part, needles, "left") + np.searchsorted(part, needles, "right")
        # float64 sums of integers stay exact below 2**53
        wins[:, column] = np.bincount(owner, weights=count, minlength=len(sizes)).astype(np.int64)
    return wins


def weighted_auc(
    wins: np.ndarray, positives: np.ndarray, negatives: np.ndarray, weights: np.ndarray
) -> Float[np.ndarray, "s"]:
    """ROC-AUC for each row of video multiplicities ``weights`` (s, v); NaN where a row lacks a class."""
    weights = np.asarray(weights, dtype=np.float64)
    above = ((weights @ wins) * weights).sum(axis=1)
    pairs = 2.0 * (weights @ positives) * (weights @ negatives)
    return np.divide(above, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
