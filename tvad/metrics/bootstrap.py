"""Bootstrap intervals over videos for every metric of this package.

Frames of one video hang together, so videos are what is drawn, with replacement. For the package's own metrics a
resample is not evaluated from its frames: each metric is written once as a function of how often every video counts
(``*_weighted``), and a thousand resamples are a few matrix products. Any other function of per-video inputs works
too, one call a resample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Mapping, Sequence

import numpy as np

from tvad.metrics import frame, pixel, region
from tvad.metrics.common import MetricError


@dataclass(frozen=True)
class Interval:
    """A metric's value on the videos as they are, and the percentile interval of its resamples."""

    value: float
    low: float
    high: float
    n: int  # videos
    samples: int  # resamples on which the metric was defined


_WEIGHTED: dict[Callable, Callable] = {
    frame.micro_auc: frame.micro_auc_weighted,
    frame.macro_auc: frame.macro_auc_weighted,
    frame.average_precision: frame.average_precision_weighted,
    frame.event_auc: frame.event_auc_weighted,
    pixel.pixel_auroc: pixel.pixel_auroc_weighted,
    pixel.aupro: pixel.aupro_weighted,
}
_PER_VIDEO_OPTIONS = ("spans",)


def draw_videos(count: int, *, samples: int = 1000, seed: int = 0) -> np.ndarray:
    """Multiplicities (samples, count) of ``count`` videos drawn with replacement; each row sums to ``count``."""
    if count < 1 or samples < 1:
        raise MetricError(f"a bootstrap needs at least one video and one sample, got {count} and {samples}")
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)


def _interval(value: float, values: np.ndarray, count: int, confidence: float) -> Interval:
    if not 0 < confidence < 1:
        raise MetricError(f"confidence must lie between 0 and 1, got {confidence}")
    usable = values[~np.isnan(values)]
    if 2 * len(usable) < len(values):
        raise MetricError(
            f"the metric is defined on only {len(usable)} of {len(values)} resamples of {count} videos (one class is "
            "missing in the others); an interval needs more videos of that class"
        )
    low, high = np.quantile(usable, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(value), float(low), float(high), count, len(usable))


def bootstrap(
    metric: Callable[..., float],
    per_video_inputs: Sequence[Sequence],
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    **options,
) -> Interval:
    """Interval of ``metric(*per_video_inputs, **options)`` over resampled videos.

    Args:
        metric: ``micro_auc``, ``macro_auc``, ``average_precision``, ``event_auc``, ``pixel_auroc``, ``aupro``, or any
            function.
        per_video_inputs: the metric's positional arguments, each a sequence with one entry a video.
        samples, seed: number of resamples and their seed; equal seeds draw the same videos for every metric.
        options: passed on; ``spans`` of ``event_auc`` is resampled with its videos.

    Resamples in which the metric is undefined (one class missing) are left out and counted in ``Interval.samples``.

    Raises:
        MetricError: what the metric raises on the videos as they are, or fewer than half of the resamples defined.
    """
    counts = {len(part) for part in per_video_inputs}
    if len(counts) != 1:
        raise MetricError(
            f"per_video_inputs differ in length: {sorted(counts)} entries; each needs one a video"
        )
    count = counts.pop()
    weights = draw_videos(count, samples=samples, seed=seed)
    value = metric(*per_video_inputs, **options)
    if metric in _WEIGHTED:
        return _interval(value, _WEIGHTED[metric](*per_video_inputs, **options)(weights), count, confidence)
    values = np.full(samples, np.nan)
    for row, chosen in enumerate(weights):
        rows = np.repeat(np.arange(count), chosen)
        drawn = {
            name: [part[i] for i in rows] if name in _PER_VIDEO_OPTIONS else part for name, part in options.items()
        }
        try:
            values[row] = metric(*([part[i] for i in rows] for part in per_video_inputs), **drawn)
        except MetricError:  # this draw lacks a class
            continue
    return _interval(value, values, count, confidence)


def interval_of(evaluate: Callable[[np.ndarray], np.ndarray], count: int, *, samples: int = 1000, seed: int = 0,
                confidence: float = 0.95) -> Interval:
    """Interval of a metric given as a function of the multiplicities (s, v) of ``count`` videos, s values.

    The value is a float of any size. Raises MetricError as :func:`bootstrap`.
    """
    value = evaluate(np.ones((1, count)))[0]
    return _interval(value, evaluate(draw_videos(count, samples=samples, seed=seed)), count, confidence)


def bootstrap_regions(
    detections: Mapping[str, region.Regions],
    tracks: Mapping[str, region.GroundTruthTracks],
    *,
    num_frames: Mapping[str, int],
    alpha: float = 0.1,
    beta: float = 0.1,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of RBDC and TBDC over resampled videos, keys ``rbdc`` and ``tbdc``; arguments as for ``rbdc_tbdc``."""
    whole = region.rbdc_tbdc(detections, tracks, num_frames=num_frames, alpha=alpha, beta=beta)
    evaluate = region.rbdc_tbdc_weighted(detections, tracks, num_frames=num_frames, alpha=alpha, beta=beta)
    values = evaluate(draw_videos(len(detections), samples=samples, seed=seed))
    return {
        name: _interval(value, values[:, column], len(detections), confidence)
        for column, (name, value) in enumerate((("rbdc", whole.rbdc), ("tbdc", whole.tbdc)))
    }
