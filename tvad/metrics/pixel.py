"""Pixel-level metrics: ROC-AUC over pixels and AUPRO, exact with ties, in bounded memory.

Anomalous pixels are few, so their distinct scores are the only thresholds that matter: between two of them neither
the number of won pairs nor the per-region overlap changes. Normal pixels are sorted block by block and counted
against those thresholds, the blocks in threads; nothing the size of the data set is ever held (about 40 bytes an
anomalous pixel stay).

A heatmap may be coarser than its masks by whole factors (24x36 cells for 240x360 pixels). The result is then the one
of the heatmap enlarged by repetition, at full mask resolution, without enlarging it: a cell counts with its numbers
of anomalous and normal pixels. Items may be arrays or functions without arguments that return them; those are called
two to four times.

AUPRO follows the MVTec evaluation: regions are the 8-connected components of each mask frame, the mean share of a
region above the threshold is integrated over the false positive rate up to ``limit`` and divided by ``limit``.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, Sequence

import numpy as np
from jaxtyping import Float

from tvad.metrics.common import MetricError, area_under, check_both_classes, weighted_auc
from tvad.metrics.components import label_frames

Stack = np.ndarray | Callable[[], np.ndarray]
_BLOCK = 4_000_000  # pixels sorted at once in a thread


def _load(heatmaps: Sequence[Stack], masks: Sequence[Stack], index: int) -> tuple[np.ndarray, np.ndarray]:
    heat, mask = (np.asarray(item() if callable(item) else item) for item in (heatmaps[index], masks[index]))
    if heat.ndim != 3 or mask.ndim != 3 or len(heat) != len(mask):
        raise MetricError(
            f"video {index}: heatmap {heat.shape} and mask {mask.shape} must be (frames, height, width), equally long"
        )
    if 0 in heat.shape[1:] or mask.shape[1] % heat.shape[1] or mask.shape[2] % heat.shape[2]:
        raise MetricError(
            f"video {index}: masks of {mask.shape[1]}x{mask.shape[2]} pixels are no whole multiple of the heatmap's "
            f"{heat.shape[1]}x{heat.shape[2]} cells; resize the heatmap to the masks first"
        )
    if not (np.issubdtype(heat.dtype, np.floating) or np.issubdtype(heat.dtype, np.integer)):
        raise MetricError(f"video {index}: heatmap must hold numbers, got {heat.dtype}")
    # float32 holds every 16-bit value exactly and sorts fastest
    heat = heat.astype(np.float32 if heat.dtype.itemsize <= 2 or heat.dtype == np.float32 else np.float64, copy=False)
    if heat.size and np.isnan(heat.max()):
        frame = int(np.isnan(heat).any(axis=(1, 2)).argmax())
        raise MetricError(f"video {index}: heatmap of frame {frame} holds NaN; mend the detector's output first")
    return heat, mask


def fitted(heat: Float[np.ndarray, "n h w"], size: tuple[int, int]) -> Float[np.ndarray, "n gh gw"]:
    """The heatmap on a grid that divides the mask: itself, or enlarged to the mask's size by repetition."""
    if not (size[0] % heat.shape[1] or size[1] % heat.shape[2]):
        return heat
    rows = np.arange(size[0]) * heat.shape[1] // size[0]
    columns = np.arange(size[1]) * heat.shape[2] // size[1]
    return heat[:, rows][:, :, columns]


def _threads() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, available)  # each thread holds a block


@dataclass(frozen=True, eq=False)
class _Positives:
    """The anomalous pixels of all videos; equal score, video and region share an entry where cells are coarse."""

    levels: np.ndarray  # (u,) distinct scores, rising
    level: np.ndarray  # (k,) index into levels
    video: np.ndarray  # (k,)
    count: np.ndarray  # (k,) pixels
    share: np.ndarray  # (k,) pixels as a share of their region
    pixels: np.ndarray  # (v,) anomalous pixels of each video
    normal: np.ndarray  # (v,) normal pixels of each video
    regions: np.ndarray  # (v,) regions of each video
    cells: np.ndarray  # (v,) heatmap cells, for dealing out work


def _positives_of(heatmaps: Sequence[Stack], masks: Sequence[Stack], index: int, *, by_region: bool) -> tuple:
    heat, mask = _load(heatmaps, masks, index)
    positive = np.not_equal(mask, 0)
    down, across = mask.shape[1] // heat.shape[1], mask.shape[2] // heat.shape[2]
    frames = np.flatnonzero(positive.any(axis=(1, 2)))
    score, count, share, regions = [np.zeros(0, heat.dtype)], [np.zeros(0, np.int64)], [np.zeros(0)], 0
    step = max(1, _BLOCK // max(1, mask.shape[1] * mask.shape[2]))
    for start in range(0, len(frames), step):
        chosen = frames[start : start + step]
        part = positive[chosen]
        frame, y, x = np.nonzero(part)
        size = np.ones(len(y), dtype=np.int64)
        owner = np.zeros(len(y), dtype=np.int64)
        if by_region:
            labels, table = label_frames(part)
            owner = labels[frame, y, x].astype(np.int64) - 1
            size = table[:, 5]
            regions += len(table)
        cell = (chosen[frame] * heat.shape[1] + y // down) * heat.shape[2] + x // across
        amount = np.ones(len(y), dtype=np.int64)
        if down * across > 1:
            key, amount = np.unique(owner * heat.size + cell, return_counts=True)
            owner, cell = np.divmod(key, heat.size)
        score.append(heat.reshape(-1)[cell])
        count.append(amount)
        share.append(amount / size[owner])
    score, count, share = (np.concatenate(parts) for parts in (score, count, share))
    total = int(count.sum())
    return score, count, share, total, mask.size - total, regions, heat.size


def _positives(heatmaps: Sequence[Stack], masks: Sequence[Stack], *, by_region: bool, metric: str) -> _Positives:
    if len(heatmaps) != len(masks) or not len(heatmaps):
        raise MetricError(
            f"{len(heatmaps)} heatmaps but {len(masks)} masks; pass one stack of each a video, and at least one video"
        )
    with ThreadPoolExecutor(_threads()) as pool:
        found = list(
            pool.map(lambda index: _positives_of(heatmaps, masks, index, by_region=by_region), range(len(heatmaps)))
        )
    score, count, share, pixels, normal, regions, cells = zip(*found)
    check_both_classes(sum(pixels), sum(normal), metric=metric, unit="pixel")
    levels, level = np.unique(np.concatenate(score), return_inverse=True)
    video = np.repeat(np.arange(len(score)), [len(part) for part in score])
    return _Positives(
        levels,
        level,
        video,
        np.concatenate(count),
        np.concatenate(share),
        *(np.array(values, dtype=np.float64) for values in (pixels, normal, regions)),
        np.array(cells),
    )


def _count_normal(
    heatmaps: Sequence[Stack], masks: Sequence[Stack], videos: Sequence[int], levels: np.ndarray
) -> np.ndarray:
    """Normal pixels of some videos (2, u): with scores below, and not above, each of the rising ``levels``."""
    total = np.zeros((2, len(levels)), dtype=np.int64)
    waiting, held = [], 0
    block = max(_BLOCK, 4 * len(levels))  # searching all thresholds should cost less than the sort

    def flush() -> None:
        nonlocal waiting, held
        scores = np.concatenate([score for score, _ in waiting]) if len(waiting) != 1 else waiting[0][0]
        if waiting and waiting[0][1] is None:
            scores.sort()
            for row, side in enumerate(("left", "right")):
                total[row] += np.searchsorted(scores, levels, side)
        elif waiting:
            order = np.argsort(scores)
            below = np.append(0, np.cumsum(np.concatenate([amount for _, amount in waiting])[order]))
            for row, side in enumerate(("left", "right")):
                total[row] += below[np.searchsorted(scores[order], levels, side)]
        waiting, held = [], 0

    for index in videos:
        heat, mask = _load(heatmaps, masks, index)
        down, across = mask.shape[1] // heat.shape[1], mask.shape[2] // heat.shape[2]
        step = max(1, block // max(1, heat.shape[1] * heat.shape[2]))
        for start in range(0, len(heat), step):
            part, truth = heat[start : start + step], mask[start : start + step]
            if down * across == 1:
                score, amount = part[truth == 0], None
            else:
                cells = (truth == 0).reshape(len(part), heat.shape[1], down, heat.shape[2], across)
                amount = cells.sum(axis=(2, 4), dtype=np.int64).reshape(-1)
                score = part.reshape(-1)
            if waiting and (held + len(score) > 1.5 * block or (waiting[0][1] is None) != (amount is None)):
                flush()
            waiting.append((score, amount))
            held += len(score)
    if waiting:
        flush()
    return total


def _shares(cells: np.ndarray, size: int) -> list[list[int]]:
    """Videos dealt out in runs of about ``size`` cells."""
    runs, held = [[]], 0
    for index, amount in enumerate(cells):
        if runs[-1] and held + amount > size:
            runs.append([])
            held = 0
        runs[-1].append(index)
        held += amount
    return runs


def _count_pooled(heatmaps: Sequence[Stack], masks: Sequence[Stack], positives: _Positives) -> np.ndarray:
    runs = _shares(positives.cells, max(_BLOCK, int(positives.cells.sum() / _threads() / 2)))
    with ThreadPoolExecutor(_threads()) as pool:
        return sum(pool.map(lambda run: _count_normal(heatmaps, masks, run, positives.levels), runs))


def _count_by_video(
    heatmaps: Sequence[Stack], masks: Sequence[Stack], levels: np.ndarray, reduce: Callable
) -> list[np.ndarray]:
    """``reduce`` of each video's counts, in threads and without keeping the counts themselves."""
    with ThreadPoolExecutor(_threads()) as pool:
        return list(
            pool.map(lambda index: reduce(_count_normal(heatmaps, masks, [index], levels)), range(len(heatmaps)))
        )


def pixel_auroc(heatmaps: Sequence[Stack], masks: Sequence[Stack]) -> float:
    """ROC-AUC over the pixels of all videos together; masks are anomalous where they are not 0.

    Args:
        heatmaps: per video (n, h, w) scores, floating or whole numbers.
        masks: per video (n, H, W), H and W whole multiples of h and w.

    Raises:
        MetricError: shapes that do not fit, NaN, or one class missing altogether.
    """
    positives = _positives(heatmaps, masks, by_region=False, metric="pixel AUROC")
    twice = _count_pooled(heatmaps, masks, positives).sum(axis=0)  # below + not above: two for a win, one for a tie
    pixels = np.bincount(positives.level, weights=positives.count, minlength=len(positives.levels))
    return float((pixels * twice).sum() / (2 * positives.pixels.sum() * positives.normal.sum()))


def pixel_auroc_weighted(heatmaps: Sequence[Stack], masks: Sequence[Stack]) -> Callable[[np.ndarray], np.ndarray]:
    """:func:`pixel_auroc` as a function of video multiplicities (s, v), exact."""
    positives = _positives(heatmaps, masks, by_region=False, metric="pixel AUROC")

    def wins_against(counts: np.ndarray) -> np.ndarray:
        return np.bincount(
            positives.video, weights=positives.count * counts.sum(axis=0)[positives.level], minlength=len(heatmaps)
        )

    wins = np.stack(_count_by_video(heatmaps, masks, positives.levels, wins_against), axis=1)
    return lambda weights: weighted_auc(wins, positives.pixels, positives.normal, weights)


def _check_limit(limit: float) -> None:
    if not 0 < limit <= 1:
        raise MetricError(f"limit must lie in (0, 1], got {limit}; the usual false positive rate is 0.3")


def _polyline(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Points (..., 2u + 2) of a curve from 0 through every threshold to 1; values as thresholds rise."""
    points = np.stack((before, after), axis=-1)[..., ::-1, :]
    points = points.reshape(*before.shape[:-1], -1)
    edge = np.zeros((*points.shape[:-1], 1))
    return np.concatenate((edge, points, edge + 1), axis=-1)


def aupro(heatmaps: Sequence[Stack], masks: Sequence[Stack], *, limit: float = 0.3) -> float:
    """Area under the per-region-overlap curve up to the false positive rate ``limit``, divided by ``limit``.

    Arguments and errors as for :func:`pixel_auroc`; every region weighs the same however large it is.
    """
    _check_limit(limit)
    positives = _positives(heatmaps, masks, by_region=True, metric="AUPRO")
    rate, overlap = _pro_curve(positives, _count_pooled(heatmaps, masks, positives))
    return float(area_under(rate, overlap, limit) / limit)


def _pro_curve(positives: _Positives, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    normal = positives.normal.sum()
    rate = _polyline((normal - counts[1]) / normal, (normal - counts[0]) / normal)
    step = (
        np.bincount(positives.level, weights=positives.share, minlength=len(positives.levels)) / positives.regions.sum()
    )
    after = np.minimum(np.cumsum(step[::-1])[::-1], 1.0)
    return rate, _polyline(np.append(after[1:], 0.0), after)


def aupro_weighted(
    heatmaps: Sequence[Stack], masks: Sequence[Stack], *, limit: float = 0.3, points: int = 4096
) -> Callable[[np.ndarray], np.ndarray]:
    """:func:`aupro` as a function of video multiplicities (s, v).

    Exact while there are at most ``points`` distinct anomalous scores. Beyond, the curve is drawn through ``points``
    of its own thresholds, spread evenly along it, which moves the area by at most about 1 / points.
    """
    _check_limit(limit)
    positives = _positives(heatmaps, masks, by_region=True, metric="AUPRO")
    chosen = np.arange(len(positives.levels))
    if len(chosen) > points:
        rate, overlap = (
            curve[2:-1:2][::-1] for curve in _pro_curve(positives, _count_pooled(heatmaps, masks, positives))
        )
        along = np.minimum(rate / limit, 1.0) + overlap  # falls while thresholds rise
        chosen = np.unique(np.searchsorted(-along, np.linspace(-along[0], -along[-1], points)).clip(0, len(along) - 1))
    counts = _count_by_video(heatmaps, masks, positives.levels[chosen], lambda found: found)
    above = positives.normal[:, None, None] - np.stack(counts)  # (v, 2, c): not below, above
    shares = np.zeros((len(heatmaps), 2, len(chosen)))
    for index in range(len(heatmaps)):
        mine = np.flatnonzero(positives.video == index)
        mine = mine[np.argsort(positives.level[mine], kind="stable")]
        left = np.append(np.cumsum(positives.share[mine][::-1])[::-1], 0.0)
        for row, side in enumerate(("left", "right")):
            shares[index, row] = left[np.searchsorted(positives.level[mine], chosen, side)]

    def evaluate(weights: np.ndarray) -> np.ndarray:
        weights = np.asarray(weights, dtype=np.float64)
        values = np.full(len(weights), np.nan)
        for start in range(0, len(weights), 250):
            part = weights[start : start + 250]
            normal, regions = part @ positives.normal, part @ positives.regions
            usable = np.flatnonzero((normal > 0) & (regions > 0))
            part, curves = part[usable], []
            for table, scale in ((above, normal), (shares, regions)):
                after, before = (np.minimum(part @ table[:, row] / scale[usable, None], 1.0) for row in range(2))
                curves.append(_polyline(before, after))
            values[start + usable] = area_under(*curves, limit) / limit
        return values

    return evaluate
