"""Intervals over videos: the weighted forms against evaluating each metric on the videos actually drawn."""

import numpy as np
import pytest
from test_metrics_pixel import make as make_pixels
from test_metrics_region import make as make_regions

from tvad.metrics import (
    MetricError,
    aupro,
    average_precision,
    bootstrap,
    bootstrap_regions,
    event_auc,
    macro_auc,
    micro_auc,
    pixel_auroc,
    rbdc_tbdc,
)
from tvad.metrics.bootstrap import draw_videos
from tvad.metrics.pixel import aupro_weighted


def frames(seed=0, videos=7):
    rng = np.random.default_rng(seed)
    scores = [np.round(rng.random(rng.integers(3, 20)), 1) for _ in range(videos)]
    labels = [(rng.random(len(score)) < 0.4).astype(int) for score in scores]
    labels[0][:] = 0
    return scores, labels


@pytest.mark.parametrize("metric", [micro_auc, macro_auc, average_precision])
def test_frame_intervals_equal_resampled_lists(metric):
    inputs = frames()
    fast = bootstrap(metric, inputs, samples=60, seed=4)
    slow = bootstrap(lambda scores, labels: metric(scores, labels), inputs, samples=60, seed=4)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high), abs=1e-12)
    assert (fast.n, fast.samples) == (slow.n, slow.samples) and fast.low < fast.value < fast.high
    assert bootstrap(metric, inputs, samples=60, seed=4) == fast != bootstrap(metric, inputs, samples=60, seed=5)


def test_event_intervals_resample_the_spans_too():
    scores, labels = frames(1)
    spans = [[(0, 2)] if index % 2 else [] for index in range(len(scores))]
    fast = bootstrap(event_auc, (scores, labels), samples=60, spans=spans)
    slow = bootstrap(lambda *parts, spans: event_auc(*parts, spans=spans), (scores, labels), samples=60, spans=spans)
    assert (fast.low, fast.high, fast.samples) == pytest.approx((slow.low, slow.high, slow.samples), abs=1e-12)


@pytest.mark.parametrize("metric", [pixel_auroc, aupro])
@pytest.mark.parametrize("coarse", [1, 2])
def test_pixel_intervals_equal_resampled_lists(metric, coarse):
    heatmaps, masks = make_pixels(3, 2, sizes=((3, 8, 10), (2, 6, 6), (2, 8, 8), (3, 6, 8), (2, 6, 6)))
    heatmaps = [heat[:, ::coarse, ::coarse] for heat in heatmaps]
    fast = bootstrap(metric, (heatmaps, masks), samples=40)
    slow = bootstrap(lambda *parts: metric(*parts), (heatmaps, masks), samples=40)
    assert (fast.low, fast.high, fast.samples) == pytest.approx((slow.low, slow.high, slow.samples), abs=1e-12)


def test_aupro_through_fewer_points_is_close():
    rng = np.random.default_rng(0)
    masks = [np.zeros((4, 40, 40), dtype=np.uint8) for _ in range(3)]
    for mask in masks:
        mask[:, 5:20, 5:20] = 1
    heatmaps = [rng.random(mask.shape) + 0.5 * mask for mask in masks]
    weights = np.array([[1, 1, 1], [2, 0, 1]])
    exact, rough = (aupro_weighted(heatmaps, masks, points=points)(weights) for points in (10_000, 200))
    assert exact[0] == pytest.approx(aupro(heatmaps, masks), abs=1e-12)
    assert rough == pytest.approx(exact, abs=1 / 200) and (rough != exact).all()


@pytest.mark.parametrize("decimals", [1, 6])
def test_region_intervals_equal_resampled_videos(decimals):
    detections, tracks = make_regions(5, decimals=decimals, videos=4)
    lengths = {name: 8 + index for index, name in enumerate(detections)}
    fast = bootstrap_regions(detections, tracks, num_frames=lengths, samples=50, seed=2)
    values = []
    for row in draw_videos(4, samples=50, seed=2):
        drawn = {f"{name}#{copy}": name for name, times in zip(detections, row) for copy in range(times)}
        try:
            scores = rbdc_tbdc(
                {new: detections[old] for new, old in drawn.items()},
                {new: tracks[old] for new, old in drawn.items() if old in tracks},
                num_frames={new: lengths[old] for new, old in drawn.items()},
            )
        except MetricError:  # only the normal video was drawn
            continue
        values.append((scores.rbdc, scores.tbdc))
    for column, name in enumerate(("rbdc", "tbdc")):
        wanted = np.quantile([value[column] for value in values], (0.025, 0.975))
        assert (fast[name].low, fast[name].high) == pytest.approx(wanted, abs=1e-12)
        assert fast[name].samples == len(values)


def test_draws_are_seeded_and_whole():
    weights = draw_videos(6, samples=200, seed=1)
    assert (
        weights.shape == (200, 6)
        and (weights.sum(axis=1) == 6).all()
        and weights.mean(axis=0) == pytest.approx(1, abs=0.25)
    )
    assert (weights == draw_videos(6, samples=200, seed=1)).all()


def test_too_rare_a_class_is_an_error():
    scores = [np.array([0.1, 0.9]), *[np.array([0.5])] * 2]
    one_video = scores[:1], [np.array([0, 1])]
    assert bootstrap(micro_auc, one_video, samples=10).low == 1.0
    with pytest.raises(MetricError, match="per_video_inputs differ in length: \\[1, 3\\] entries"):
        bootstrap(micro_auc, (scores, [np.array([0, 1])]))
    rare = [np.array([0.5])] * 30, [np.array([index == 0]) for index in range(30)]
    assert bootstrap(micro_auc, rare, samples=200).samples < 200

    def needs_all(scores):
        if len({float(score[0]) for score in scores}) < 5:
            raise MetricError("undefined")
        return 1.0

    with pytest.raises(MetricError, match=r"defined on only \d+ of 60 resamples of 5 videos"):
        bootstrap(needs_all, ([np.array([index]) for index in range(5)],), samples=60)
    with pytest.raises(MetricError, match="confidence must lie between 0 and 1, got 95"):
        bootstrap(micro_auc, one_video, confidence=95, samples=10)
