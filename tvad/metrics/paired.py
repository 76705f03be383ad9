"""Is one system better than another on the same videos?  Paired bootstrap and sign-flip permutation over videos.

Both systems are measured on the same drawn videos, so what the videos have in common cancels.  The bootstrap serves any
metric that is a function of how often each video counts (``*_weighted`` of this package); the permutation test serves
metrics that are a mean of per-video values, for which it is exact (Fisher 1935; up to 16 videos all flips are taken).
Several comparisons at once are corrected by Holm (1979).
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tvad.metrics.bootstrap import draw_videos
from tvad.metrics.common import MetricError

Weighted = Callable[[np.ndarray], np.ndarray]
_EXACT_VIDEOS = 16


@dataclass(frozen=True)
class Difference:
    """First system less second: the value, its percentile interval, and a two-sided ``p`` for no difference.

    ``n`` videos; ``samples`` resamples (or flips) that the figures are of; ``test``: "bootstrap" or "sign flips".
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    samples: int
    test: str


def paired_bootstrap(first: Weighted, second: Weighted, videos: int, *, samples: int = 1000, seed: int = 0,
                     confidence: float = 0.95) -> Difference:
    """Difference of a metric between two systems over the same resampled videos.

    ``first``, ``second``: the metric of each system as a function of multiplicities (s, v), videos in the same order.
    ``p``: twice the smaller share of resamples on either side of zero, at least 2 / (samples + 1).

    Raises:
        MetricError: undefined on the videos as they are, or on more than half of the resamples.
    """
    whole = np.ones((1, videos))
    value = float(first(whole)[0] - second(whole)[0])
    if np.isnan(value):
        raise MetricError(f"the metric is undefined for one of both systems on these {videos} videos")
    draws = draw_videos(videos, samples=samples, seed=seed)
    found = first(draws) - second(draws)
    found = found[~np.isnan(found)]
    if 2 * len(found) < samples:
        raise MetricError(f"the difference is defined on only {len(found)} of {samples} resamples of {videos} videos; a "
                          "test needs more videos of the class that is missing")
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    tail = min(int((found <= 0).sum()), int((found >= 0).sum()))
    p = min(1.0, 2 * (1 + tail) / (1 + len(found)))
    return Difference(value, float(low), float(high), p, videos, len(found), "bootstrap")


def sign_flips(first: Sequence[float], second: Sequence[float], *, samples: int = 10_000, seed: int = 0,
               confidence: float = 0.95) -> Difference:
    """Mean difference of per-video values, tested by flipping the sign of each video's difference.

    The interval is the bootstrap's. With at most 16 videos ``p`` is exact over all flips, else over ``samples`` random
    ones (the observed one counted in).

    Raises:
        MetricError: unequal numbers of videos, none, or NaN.
    """
    gaps = np.asarray(first, np.float64) - np.asarray(second, np.float64) if len(first) == len(second) else None
    if gaps is None or not len(gaps) or np.isnan(gaps).any():
        raise MetricError(f"sign flips need one value a video of both systems, got {len(first)} and {len(second)}; none "
                          "may be missing or NaN")
    n, observed = len(gaps), abs(gaps.mean())
    if n <= _EXACT_VIDEOS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice((-1, 1), size=(samples, n))
    # a tolerance, since equal sums in another order differ by rounding
    extreme = int((np.abs(signs @ gaps) / n >= observed - 1e-12).sum())
    p = extreme / len(signs) if n <= _EXACT_VIDEOS else (1 + extreme) / (1 + len(signs))
    means = _means(gaps, draw_videos(n, samples=1000, seed=seed))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Difference(float(gaps.mean()), float(low), float(high), float(p), n, len(signs), "sign flips")


def _means(values: Float[np.ndarray, "v"], weights: np.ndarray) -> Float[np.ndarray, "s"]:
    return weights @ values / weights.sum(axis=1)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the given order, at most 1."""
    order = np.argsort(values, kind="stable")
    scaled = np.asarray(values, np.float64)[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0) if len(values) else scaled
    return corrected.tolist()
