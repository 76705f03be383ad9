"""How early events are raised, false alarms, calibration and paired tests: by hand, and against slow twins."""
from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tvad.metrics import MetricError, average_precision, micro_auc
from tvad.metrics.bootstrap import draw_videos, interval_of
from tvad.metrics.early import (
    count_false_alarms,
    false_alarms_weighted,
    latency_ap,
    latency_ap_weighted,
    operating_point,
)
from tvad.metrics.frame import macro_auc, macro_auc_weighted, micro_auc_weighted
from tvad.metrics.paired import holm, paired_bootstrap, sign_flips
from tvad.metrics.reliability import brier_weighted, ece_weighted, reliability


def toy(seed=0, videos=5, n=30, levels=6):
    """Scores with many ties, and labels with one or two events a video, one video normal."""
    rng = np.random.default_rng(seed)
    scores = [rng.integers(0, levels, n) / (levels - 1) for _ in range(videos)]
    labels = [np.zeros(n, np.uint8) for _ in range(videos)]
    for index, label in enumerate(labels[:-1]):
        label[3 + index:9 + index] = 1
        if index % 2:
            label[20:26] = 1
    return scores, labels


def events_of(label):
    return [(group[0], group[-1] + 1) for group in
            (list(part) for value, part in itertools.groupby(range(len(label)), key=lambda i: label[i]) if value)]


def slow_latency_ap(scores, labels, fps, patience):
    """Threshold by threshold, from the definition."""
    pooled, truth = np.concatenate(scores), np.concatenate(labels)
    area, before = 0.0, 0.0
    for threshold in sorted(set(pooled), reverse=True):
        earned, count = 0.0, 0
        for score, label in zip(scores, labels):
            for start, stop in events_of(label):
                count += 1
                hits = [t for t in range(start, stop) if score[t] >= threshold]
                earned += max(0.0, 1 - (hits[0] - start) / fps / patience) if hits else 0.0
        recall = earned / count
        precision = truth[pooled >= threshold].mean()
        area += precision * (recall - before)
        before = recall
    return area


@pytest.mark.parametrize("seed", range(4))
def test_latency_ap_is_its_definition(seed):
    scores, labels = toy(seed)
    assert latency_ap(scores, labels, fps=4.0, patience=1.0) == pytest.approx(slow_latency_ap(scores, labels, 4.0, 1.0))


def test_latency_ap_knows_early_from_late():
    label = np.zeros(40, np.uint8)
    label[10:30] = 1
    at_once, late = label.astype(float), label * (np.arange(40) >= 20)
    assert latency_ap([at_once], [label], fps=10.0) == 1.0
    assert latency_ap([late], [label], fps=10.0) == pytest.approx(2 / 3 + 1 / 3 * 0.5)  # a second of three
    assert latency_ap([late], [label], fps=1.0) == pytest.approx(0.5)     # ten seconds: no better than
    assert latency_ap([np.full(40, 0.3)], [label], fps=10.0) == pytest.approx(0.5)  # the base rate
    assert average_precision([late], [label]) > average_precision([np.full(40, 0.3)], [label])


def test_weighted_forms_are_the_metric_on_repeated_videos():
    scores, labels = toy(1)
    fps = [4.0, 5.0, 4.0, 5.0, 4.0]
    weights = draw_videos(5, samples=6, seed=3)
    fast = latency_ap_weighted(scores, labels, fps=fps, patience=1.0)(weights)
    alarms = false_alarms_weighted(scores, labels, fps=fps, recall=0.7)(weights)
    for row, weight in enumerate(weights):
        rows = np.repeat(np.arange(5), weight)
        drawn = [scores[i] for i in rows], [labels[i] for i in rows]
        rates = [fps[i] for i in rows]
        if not np.concatenate(drawn[1]).any():
            assert np.isnan(fast[row])
            continue
        assert fast[row] == pytest.approx(latency_ap(*drawn, fps=rates, patience=1.0))
        assert alarms[row] == pytest.approx(operating_point(*drawn, fps=rates, recall=0.7).false_alarms_per_hour)


def test_false_alarms_are_joined_renewed_and_parted_by_events():
    truth = np.zeros(100, bool)
    truth[40:50] = True
    score = np.zeros(100)
    score[[5, 6, 9, 30]] = 1        # frames 5 to 9 with a pause of two frames, and one more
    assert count_false_alarms(score, truth, 0.5, fps=2.0) == 2
    assert count_false_alarms(score, truth, 0.5, fps=1.0) == 3      # the pause is longer than a second
    assert count_false_alarms(np.ones(100), truth, 0.5, fps=1.0) == 4 + 5       # always on: every ten seconds, both sides
    assert count_false_alarms(score * truth, truth, 0.5, fps=1.0) == 0


def test_the_operating_point_is_the_highest_threshold_of_the_recall():
    label = np.zeros(60, np.uint8)
    for start in (5, 25, 45):
        label[start:start + 5] = 1
    score = np.where(label, 0.0, 0.1)
    score[[7, 25, 49]] = 0.9, 0.6, 0.3
    score[15] = 0.7
    found = operating_point([score], [label], fps=2.0, recall=0.66)
    assert (found.threshold, found.recall, found.events) == (0.6, pytest.approx(2 / 3), 3)
    assert found.delay == pytest.approx((1.0 + 0.0) / 2) and found.hours == pytest.approx(45 / 2 / 3600)
    assert found.false_alarms_per_hour == pytest.approx(1 / found.hours)
    assert found.false_frames == pytest.approx(1 / 45)
    assert operating_point([score], [label], fps=2.0, recall=1.0).threshold == 0.3


def test_timing_refuses_what_it_cannot_mean():
    scores, labels = toy()
    with pytest.raises(MetricError, match="no anomalous frame"):
        latency_ap(scores[-1:], labels[-1:], fps=4.0)
    with pytest.raises(MetricError, match="positive frame rate for each of 5 videos.*got 2 rates"):
        latency_ap(scores, labels, fps=[4.0, 4.0])
    with pytest.raises(MetricError, match=r"recall must lie in \(0, 1\], got 0"):
        operating_point(scores, labels, fps=4.0, recall=0)


# Calibration

def test_the_reliability_diagram_by_hand():
    found = reliability([0.1, 0.15, 0.9, 1.0, 0.95], [False, True, True, True, False], bins=2)
    assert found.count.tolist() == [2, 3] and found.base == 0.6 and found.n == 5
    assert found.probability.tolist() == pytest.approx([0.125, 2.85 / 3])
    assert found.share.tolist() == pytest.approx([0.5, 2 / 3])
    assert found.ece == pytest.approx((2 * 0.375 + 3 * (2.85 / 3 - 2 / 3)) / 5) and found.mce == pytest.approx(0.375)
    assert found.brier == pytest.approx((0.01 + 0.85**2 + 0.01 + 0 + 0.95**2) / 5)
    assert math.isnan(reliability([0.1], [True], bins=10).share[5])
    with pytest.raises(MetricError, match=r"probabilities in \[0, 1\]"):
        reliability([1.2], [True])
    with pytest.raises(MetricError, match="let the model answer some yes/no questions first"):
        reliability([], [])


def test_calibration_of_repeated_videos_is_that_of_their_answers():
    rng = np.random.default_rng(0)
    chances = [rng.random(size) for size in (3, 5, 0, 4)]
    truths = [rng.random(len(part)) < 0.5 for part in chances]
    weights = np.array([[1, 1, 1, 1], [2, 0, 1, 1]])
    for name, make in (("ece", ece_weighted), ("brier", brier_weighted)):
        for weight, value in zip(weights, make(chances, truths)(weights)):
            rows = np.repeat(np.arange(4), weight)
            whole = reliability(np.concatenate([chances[i] for i in rows]), np.concatenate([truths[i] for i in rows]))
            assert value == pytest.approx(getattr(whole, name))


# Paired tests

def test_the_same_system_twice_differs_by_nothing():
    scores, labels = toy()
    same = micro_auc_weighted(scores, labels)
    found = paired_bootstrap(same, same, 5, samples=50)
    assert (found.value, found.low, found.high, found.p, found.n) == (0, 0, 0, 1.0, 5)
    values = [0.5, 0.7, 0.9]
    assert sign_flips(values, values).p == 1.0


def test_paired_bootstrap_draws_both_systems_alike():
    scores, labels = toy(2)
    better = [0.5 * score + 0.5 * label for score, label in zip(scores, labels)]
    found = paired_bootstrap(micro_auc_weighted(better, labels), micro_auc_weighted(scores, labels), 5, samples=200)
    assert found.value == pytest.approx(micro_auc(better, labels) - micro_auc(scores, labels))
    gaps = []
    for weight in draw_videos(5, samples=200, seed=0):       # slow twin
        rows = np.repeat(np.arange(5), weight)
        drawn = [labels[i] for i in rows]
        if np.concatenate(drawn).any():
            gaps.append(micro_auc([better[i] for i in rows], drawn) - micro_auc([scores[i] for i in rows], drawn))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])))
    assert found.p == pytest.approx(2 / (1 + len(gaps))) and found.test == "bootstrap"
    with pytest.raises(MetricError, match="undefined for one of both systems on these 1 videos"):
        paired_bootstrap(lambda w: np.full(len(w), np.nan), lambda w: np.zeros(len(w)), 1)


def test_sign_flips_are_exact_for_few_videos_and_agree_with_many():
    first, second = np.array([0.9, 0.8, 0.7, 0.6]), np.array([0.8, 0.9, 0.5, 0.3])
    gaps = first - second
    flips = [abs(np.mean(gaps * signs)) >= abs(gaps.mean()) - 1e-12 for signs in itertools.product((1, -1), repeat=4)]
    assert sign_flips(first, second).p == pytest.approx(np.mean(flips))
    rng = np.random.default_rng(0)
    many = rng.normal(0.02, 0.1, 40)
    found = sign_flips(many, np.zeros(40), samples=4000)
    assert found.samples == 4000 and 0.05 < found.p < 0.9 and found.value == pytest.approx(many.mean())
    assert sign_flips(many + 1, np.zeros(40)).p == pytest.approx(1 / 10_001)
    with pytest.raises(MetricError, match="one value a video of both systems, got 2 and 3"):
        sign_flips([1, 2], [1, 2, 3])


def test_holm_steps_down_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0]) and holm([]) == []


def test_an_interval_of_a_weighted_metric_is_the_bootstrap_of_it():
    scores, labels = toy(3)
    found = interval_of(macro_auc_weighted(scores, labels), 5, samples=80)
    assert found.value == pytest.approx(macro_auc(scores, labels)) and found.low <= found.value <= found.high
