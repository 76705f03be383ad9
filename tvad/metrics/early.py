"""How early is an event raised, and what does that cost in false alarms?

An event is a run of anomalous frames; it is raised at a threshold by its first frame with at least that score, and the
delay runs from its first frame.  What is ours here: the exact formulas below.  The idea of an average precision that
rewards early alarms is published (Liu et al. 2025, "Rethinking metrics and benchmarks of video anomaly detection"); our
formula was written without theirs and differs.

Latency-aware AP (``latency_ap``): as the threshold falls over all scores, precision P is taken over frames (anomalous
among raised ones) and recall R over events, where an event raised after d seconds counts max(0, 1 - d / patience).  R
never falls while the threshold does, so the step sum of P dR is an average precision: 1 for scores that rise at once
with every event and stay low elsewhere; the base rate of anomalous frames for a constant score, and for one that rises
only after ``patience`` (3 seconds here), since what is left to earn is earned when everything is raised.

False alarms (``operating_point``): the threshold is the highest at which the wanted share of events is raised at all.
A false alarm is a run of raised normal frames; pauses of at most a second do not end it, an event does, and it counts
again every 10 seconds, so that an alarm left on cannot pass for one.  The rate is by the hour of normal footage.

Scores must be causal to speak of earliness: take raw ones, as smoothing looks ahead by its sigma.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from tvad.metrics.common import MetricError, check_both_classes, check_frames
from tvad.metrics.paired import Weighted

PATIENCE, PAUSE, RENEWAL = 3.0, 1.0, 10.0      # seconds
_HOUR = 3600.0


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold gives: ``recall`` of events, false alarms and their frames, and the delay of those raised.

    ``false_frames``: share of normal frames raised. ``delay``: mean seconds over the raised events. ``hours`` of normal
    footage, number of ``events``.
    """

    threshold: float
    recall: float
    false_alarms_per_hour: float
    false_frames: float
    delay: float
    events: int
    hours: float


def latency_ap(scores: Sequence, labels: Sequence, *, fps: float | Sequence[float], patience: float = PATIENCE) -> float:
    """Latency-aware average precision (see the head of this file), 0 to 1.

    ``fps``: frames a second, of all videos or of each. ``patience`` in seconds.

    Raises:
        MetricError: as for ``micro_auc``, or a rate or patience that is not positive.
    """
    return float(latency_ap_weighted(scores, labels, fps=fps, patience=patience)(np.ones((1, len(scores))))[0])


def latency_ap_weighted(scores: Sequence, labels: Sequence, *, fps: float | Sequence[float],
                        patience: float = PATIENCE) -> Weighted:
    """:func:`latency_ap` as a function of video multiplicities."""
    values, truths, rates = _checked(scores, labels, fps, patience)
    gains = [(level, gain, video) for video, (value, truth, rate) in enumerate(zip(values, truths, rates))
             for start, stop in _runs(truth) for level, gain in _credits(value[start:stop], rate, patience)]
    level, gain, owner = (np.array(part) for part in zip(*gains))
    events = np.array([len(_runs(truth)) for truth in truths], np.float64)
    pooled, truth = np.concatenate(values), np.concatenate(truths)
    order = np.argsort(-pooled, kind="stable")
    frame_of = np.repeat(np.arange(len(values)), [len(value) for value in values])[order]
    truth = truth[order]
    last = np.searchsorted(-pooled[order], -level, side="right") - 1      # last frame that each level raises

    def evaluate(weights: np.ndarray) -> np.ndarray:
        weights = np.asarray(weights, np.float64)
        found, step = np.full(len(weights), np.nan), max(1, 4_000_000 // len(pooled))
        for begin in range(0, len(weights), step):
            part = weights[begin:begin + step]
            count = part[:, frame_of]
            seen, hits = np.cumsum(count, axis=1)[:, last], np.cumsum(count * truth, axis=1)[:, last]
            precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
            total = part @ events
            area = (part[:, owner] * gain * precision).sum(axis=1)
            found[begin:begin + step] = np.divide(area, total, out=np.full_like(area, np.nan), where=total > 0)
        return found

    return evaluate


def operating_point(scores: Sequence, labels: Sequence, *, fps: float | Sequence[float],
                    recall: float = 0.8) -> OperatingPoint:
    """The highest threshold at which at least ``recall`` of the events are raised, and what it costs.

    Raises:
        MetricError: as for ``micro_auc``, or a recall outside (0, 1].
    """
    values, truths, rates = _checked(scores, labels, fps, PATIENCE)
    if not 0 < recall <= 1:
        raise MetricError(f"recall must lie in (0, 1], got {recall}")
    spans = [(video, start, stop) for video, truth in enumerate(truths) for start, stop in _runs(truth)]
    highest = np.array([values[video][start:stop].max() for video, start, stop in spans])
    threshold = float(np.sort(highest)[::-1][math.ceil(recall * len(spans) - 1e-9) - 1])
    delays = [int((values[video][start:stop] >= threshold).argmax()) / rates[video]
              for (video, start, stop), top in zip(spans, highest) if top >= threshold]
    normal = [value[~truth] for value, truth in zip(values, truths)]
    hours = sum(len(part) / rate for part, rate in zip(normal, rates)) / _HOUR
    alarms = sum(count_false_alarms(value, truth, threshold, fps=rate) for value, truth, rate in zip(values, truths, rates))
    raised = float((np.concatenate(normal) >= threshold).mean())
    return OperatingPoint(threshold, len(delays) / len(spans), alarms / hours, raised, float(np.mean(delays)), len(spans),
                          hours)


def false_alarms_weighted(scores: Sequence, labels: Sequence, *, fps: float | Sequence[float],
                          recall: float = 0.8) -> Weighted:
    """``operating_point(...).false_alarms_per_hour`` as a function of video multiplicities."""
    values, truths, rates = _checked(scores, labels, fps, PATIENCE)
    spans = [(video, start, stop) for video, truth in enumerate(truths) for start, stop in _runs(truth)]
    highest = np.array([values[video][start:stop].max() for video, start, stop in spans])
    order = np.argsort(-highest, kind="stable")
    owner = np.array([video for video, _, _ in spans])[order]
    hours = np.array([(~truth).sum() / rate / _HOUR for truth, rate in zip(truths, rates)])
    counted: dict[float, np.ndarray] = {}

    def alarms(threshold: float) -> np.ndarray:
        if threshold not in counted:      # few thresholds are ever chosen
            counted[threshold] = np.array([count_false_alarms(value, truth, threshold, fps=rate)
                                           for value, truth, rate in zip(values, truths, rates)], np.float64)
        return counted[threshold]

    def evaluate(weights: np.ndarray) -> np.ndarray:
        found = np.full(len(weights), np.nan)
        for row, weight in enumerate(np.asarray(weights, np.float64)):
            raised = np.cumsum(weight[owner])
            if raised[-1] > 0 and weight @ hours > 0:
                place = int(np.searchsorted(raised, recall * raised[-1] - 1e-9))
                found[row] = weight @ alarms(float(highest[order[place]])) / (weight @ hours)
        return found

    return evaluate


def count_false_alarms(score: Float[np.ndarray, "n"], truth: Bool[np.ndarray, "n"], threshold: float, *,
                       fps: float) -> int:
    """False alarms of one video at a threshold (see the head of this file)."""
    count = 0
    for start, stop in _runs(~np.asarray(truth, bool)):
        runs = _runs(score[start:stop] >= threshold)
        merged: list[list[int]] = []
        for begin, end in runs:
            if merged and begin - merged[-1][1] <= PAUSE * fps:
                merged[-1][1] = end
            else:
                merged.append([begin, end])
        count += sum(math.ceil((end - begin) / (RENEWAL * fps) - 1e-9) for begin, end in merged)
    return count


def _credits(score: Float[np.ndarray, "k"], fps: float, patience: float) -> list[tuple[float, float]]:
    """(threshold, gain in credit) of one event as the threshold falls: at each new maximum it is raised earlier."""
    top = np.maximum.accumulate(score)
    records = np.flatnonzero(np.append(True, top[1:] > top[:-1]))
    credit = np.maximum(0.0, 1 - records / fps / patience)
    gain = credit - np.append(credit[1:], 0.0)
    # records without a gain (raised too late) stay: an event that earns nothing must count as one
    return [(float(score[record]), float(value)) for record, value in zip(records, gain)]


def _runs(mask: Bool[np.ndarray, "n"]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2])]


def _checked(scores: Sequence, labels: Sequence, fps: float | Sequence[float],
             patience: float) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    values, truths = check_frames(scores, labels)
    positive = sum(int(truth.sum()) for truth in truths)
    check_both_classes(positive, sum(map(len, truths)) - positive, metric="alarm timing", unit="frame")
    rates = [float(fps)] * len(values) if np.ndim(fps) == 0 else [float(rate) for rate in fps]
    if len(rates) != len(values) or min(rates) <= 0 or patience <= 0:
        raise MetricError(f"alarm timing needs a positive frame rate for each of {len(values)} videos and a positive "
                          f"patience, got {len(rates)} rates, the lowest {min(rates)}, and patience {patience}")
    return values, truths, rates
