"""Frame metrics against twins written straight from the definitions."""

import numpy as np
import pytest

from tvad.metrics import MetricError, average_precision, event_auc, macro_auc, micro_auc, positive_rate, smooth


def slow_auc(positives, negatives):
    wins = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


def slow_average_precision(scores, labels):
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [label for score, label in zip(scores, labels) if score >= threshold]
        recall = sum(chosen) / sum(labels)
        total += (recall - before) * sum(chosen) / len(chosen)
        before = recall
    return total


@pytest.fixture
def videos():
    rng = np.random.default_rng(3)
    sizes = (12, 7, 1, 20)
    scores = [np.round(rng.random(size), 1) for size in sizes]  # one decimal: many ties
    labels = [(rng.random(size) < 0.4).astype(int) for size in sizes]
    labels[1][:] = 0
    labels[2][:] = 1
    return scores, labels


def test_micro_auc_counts_pairs_with_ties(videos):
    scores, labels = map(np.concatenate, videos)
    assert micro_auc(*videos) == pytest.approx(slow_auc(scores[labels == 1], scores[labels == 0]), abs=1e-12)


def test_macro_auc_adds_two_frames_to_each_video(videos):
    values = [slow_auc([*score[label == 1], 1.0], [*score[label == 0], 0.0]) for score, label in zip(*videos)]
    assert macro_auc(*videos) == pytest.approx(np.mean(values), abs=1e-12)


def test_macro_auc_of_one_class_videos_is_defined():
    assert macro_auc([np.array([0.5, 0.25])], [np.array([0, 0])]) == 1.0
    assert macro_auc([np.array([0.0, 0.0])], [np.array([1, 1])]) == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_micro_auc_does_not_squash_scores_outside_the_unit_range():
    scores = [np.array([-900.0, 800.0, -800.0, 900.0])]  # a sigmoid in float32 makes ties of these
    assert micro_auc(scores, [np.array([0, 1, 0, 1])]) == 1.0
    assert micro_auc([scores[0] / 10], [np.array([0, 1, 1, 0])]) == 0.5


def test_average_precision_and_base_rate(videos):
    scores, labels = map(np.concatenate, videos)
    assert average_precision(*videos) == pytest.approx(
        slow_average_precision(scores.tolist(), labels.tolist()), abs=1e-12
    )
    assert positive_rate(videos[1]) == pytest.approx(labels.mean())


def test_event_auc_leaves_other_events_out():
    scores = [np.array([0.1, 0.9, 0.2, 0.8, 0.3]), np.array([0.5, 0.7])]
    labels = [np.array([0, 1, 0, 1, 0]), np.array([0, 1])]
    spans = [[(1, 3)], []]  # frame 2 lies in the span but is normal; frames 3 and (1, 1) are other events
    assert event_auc(scores, labels, spans=spans) == slow_auc([0.9], [0.1, 0.2, 0.3, 0.5])
    scores[0][1] = 0.3
    assert event_auc(scores, labels, spans=spans) == slow_auc([0.3], [0.1, 0.2, 0.3, 0.5])
    with pytest.raises(MetricError, match=r"video 0: span \(3, 9\) does not fit its 5 frames"):
        event_auc(scores, labels, spans=[[(3, 9)], []])
    with pytest.raises(MetricError, match="no anomalous frame"):
        event_auc(scores, labels, spans=[[], []])
    with pytest.raises(MetricError, match="2 videos but spans for 1"):
        event_auc(scores, labels, spans=[[]])


def test_smoothing_stays_inside_a_video_and_zero_is_identity():
    first, second = smooth([np.zeros(10), np.ones(10)], 3.0)
    assert first.max() == 0 and second.min() == pytest.approx(1)
    values = np.random.default_rng(0).random(9)
    same = smooth([values], 0)[0]
    assert (same == values).all() and same is not values
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.0) ** 2)
    padded = np.pad(values, 4, mode="edge")
    slow = [(padded[i : i + 9] * kernel / kernel.sum()).sum() for i in range(9)]
    assert smooth([values], 1.0)[0] == pytest.approx(slow, abs=1e-12)
    assert smooth([np.zeros(0)], 2.0)[0].shape == (0,)
    with pytest.raises(MetricError, match="sigma must be 0 or more frames, got -1"):
        smooth([values], -1)


@pytest.mark.parametrize(
    "scores, labels, message",
    [
        ([np.zeros(3)], [np.zeros(4)], "video 0: 3 scores but 4 labels"),
        ([np.zeros(3)], [], "1 videos with scores but 0 with labels"),
        ([], [], "no video given"),
        ([np.array([0, np.nan])], [np.array([0, 1])], "video 0: score of frame 1 is NaN"),
        ([np.zeros(2)], [np.array([0, 2])], r"labels must be 0 \(normal\) or 1 \(anomalous\), got \[0, 2\]"),
        ([np.zeros(2)], [np.zeros(2)], "no anomalous frame among 2"),
        ([np.zeros(2)], [np.ones(2)], "no normal frame among 2"),
        ([np.zeros((2, 2))], [np.zeros(2)], r"scores \(2, 2\) and labels \(2,\) must each have one axis"),
    ],
)
def test_bad_frames_are_named(scores, labels, message):
    with pytest.raises(MetricError, match=message):
        micro_auc(scores, labels)


def test_macro_auc_refuses_scores_that_its_added_frames_would_not_bound():
    with pytest.raises(MetricError, match=r"video 1: macro AUC needs scores in \[0, 1\], got 0 to 3"):
        macro_auc([np.zeros(2), np.array([0.0, 3.0])], [np.array([0, 1])] * 2)
