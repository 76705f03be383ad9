"""Connected components of stacks of frames: regions out of heatmaps, ground-truth tracks out of masks.

Components are 8-connected and never reach from one frame into the next. A whole stack is labelled by one library call
on a tall image in which an empty row divides the frames, so that all further work on components is done on arrays of
them instead of frame by frame.
"""

from __future__ import annotations

from typing import Iterator, Literal, Sequence

import cv2
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from tvad.metrics.common import MetricError
from tvad.metrics.region import GroundTruthTracks, Regions, box_iou, pairs_within

_PIXELS_AT_ONCE = 8_000_000  # bounds memory: labels take 4 bytes a pixel


def label_frames(binary: np.ndarray) -> tuple[Int[np.ndarray, "n h w"], Int[np.ndarray, "k 6"]]:
    """8-connected components of each frame of a (n, h, w) stack.

    Returns:
        labels, 0 for background and 1..k counted through the stack; and a row (frame, x1, y1, x2, y2, area) for each
        label in order, with inclusive pixel corners.
    """
    count, height, width = binary.shape
    tall = np.zeros((count, height + 1, width), dtype=np.uint8)
    np.not_equal(binary, 0, out=tall[:, :height].view(bool))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(tall.reshape(-1, width), connectivity=8, ltype=cv2.CV_32S)
    left, top, wide, high, area = (stats[1:, column].astype(np.int64) for column in range(5))
    frame, top = np.divmod(top, height + 1)
    table = np.stack((frame, left, top, left + wide - 1, top + high - 1, area), axis=1)
    return labels.reshape(count, height + 1, width)[:, :height], table


def _parts(count: int, frame_pixels: int) -> Iterator[tuple[int, int]]:
    step = max(1, _PIXELS_AT_ONCE // max(1, frame_pixels))
    for start in range(0, count, step):
        yield start, min(count, start + step)


def _check_stack(stack: np.ndarray, what: str) -> np.ndarray:
    stack = np.asarray(stack)
    if stack.ndim != 3 or 0 in stack.shape[1:]:
        raise MetricError(f"{what} must be a stack of frames (n, h, w), got shape {stack.shape}")
    return stack


def regions_from_heatmap(
    heatmap: Float[np.ndarray, "n h w"],
    *,
    thresholds: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
    min_area: int = 1,
    scale: float | tuple[float, float] = 1.0,
    score: Literal["mean", "max"] = "mean",
    duplicate_iou: float = 0.9,
) -> Regions:
    """Regions of a video: the components of its heatmap above each threshold.

    Args:
        heatmap: anomaly heat of each frame.
        thresholds: a cell belongs to a component where its heat is strictly above the threshold.
        min_area: smallest component kept, in heatmap cells.
        scale: video pixels per heatmap cell, one number or (vertical, horizontal).
        score: mean or maximum of the heat inside a component.
        duplicate_iou: of two boxes in one frame whose IoU is above this, the one of lower score is dropped (1 keeps
            all but
            equal boxes).

    Returns:
        Regions in video pixels, ordered by frame and then by falling score, not linked.

    Raises:
        MetricError: wrong shape, NaN in the heatmap, no threshold, or a bad option.
    """
    heatmap = _check_stack(heatmap, "heatmap")
    if not len(thresholds):
        raise MetricError("thresholds is empty; give at least one")
    if score not in ("mean", "max"):
        raise MetricError(f"score must be 'mean' or 'max', got {score!r}")
    if not 0 < duplicate_iou <= 1:
        raise MetricError(f"duplicate_iou must lie in (0, 1], got {duplicate_iou}")
    if heatmap.size and np.isnan(heatmap.max()):
        frame = int(np.isnan(heatmap).any(axis=(1, 2)).argmax())
        raise MetricError(f"heatmap of frame {frame} holds NaN; mend the detector's output first")
    tables, scores = [np.zeros((0, 5), dtype=np.int64)], [np.zeros(0)]
    for start, stop in _parts(len(heatmap), heatmap.shape[1] * heatmap.shape[2]):
        part = heatmap[start:stop]
        for threshold in sorted(set(float(value) for value in thresholds)):
            labels, table = label_frames(part > threshold)
            heat = _inside(part, labels, table[:, 5], score)
            kept = table[:, 5] >= min_area
            tables.append(table[kept, :5] + np.array([start, 0, 0, 0, 0]))
            scores.append(heat[kept])
    table, heat = np.concatenate(tables), np.concatenate(scores)
    order = np.lexsort((table[:, 4], table[:, 3], table[:, 2], table[:, 1], -heat, table[:, 0]))
    table, heat = table[order], heat[order]
    kept = _best_of_duplicates(table[:, 0], table[:, 1:].astype(np.float64), heat, duplicate_iou)
    down, across = (scale, scale) if np.isscalar(scale) else scale
    low = table[kept, 1:3] * np.array([across, down])
    high = (table[kept, 3:5] + 1) * np.array([across, down]) - 1  # the far corner is the last pixel of its cell
    return Regions(frame=table[kept, 0], box=np.concatenate((low, high), axis=1), score=heat[kept])


def _inside(heat: np.ndarray, labels: np.ndarray, area: np.ndarray, score: str) -> np.ndarray:
    chosen = labels > 0
    owner, value = labels[chosen] - 1, heat[chosen].astype(np.float64)
    if score == "mean":
        return np.bincount(owner, weights=value, minlength=len(area)) / np.maximum(area, 1)
    best = np.full(len(area), -np.inf)
    np.maximum.at(best, owner, value)
    return best


def _best_of_duplicates(frame: np.ndarray, box: np.ndarray, heat: np.ndarray, limit: float) -> np.ndarray:
    """Indices kept by greedy suppression within frames; rows are in order of frame, then of falling score."""
    _, first = np.unique(np.column_stack((frame, box)), axis=0, return_index=True)
    first = np.sort(first)  # of equal boxes the first, which has the best score
    frame, box, heat = frame[first], box[first], heat[first]
    area = (box[:, 2] - box[:, 0] + 1) * (box[:, 3] - box[:, 1] + 1)
    # Unequal boxes differ by a cell at least, so small ones cannot exceed the limit; nor can very unequal areas.
    large = np.flatnonzero(area * (1 - limit) > 1)
    by_area = large[np.lexsort((area[large], frame[large]))]
    key = frame[by_area] * 64.0 + np.log(area[by_area])  # log area < 64 keeps frames apart
    reach = np.searchsorted(key, key - np.log(limit) + 1e-6, side="right")
    one, two = pairs_within(np.arange(1, len(key) + 1), np.maximum(reach, np.arange(1, len(key) + 1)))
    one, two = by_area[one], by_area[two]
    close = box_iou(box[one], box[two]) > limit
    one, two = np.minimum(one[close], two[close]), np.maximum(one[close], two[close])
    alive = np.ones(len(frame), dtype=bool)
    for at in np.lexsort((two, one)):  # the better of each pair is settled before it may strike out the other
        if alive[one[at]]:
            alive[two[at]] = False
    return first[alive]


def tracks_from_masks(
    masks: np.ndarray, *, kind: Literal["instance", "binary"] = "instance", min_area: int = 1
) -> GroundTruthTracks:
    """Ground-truth boxes of a video out of its (n, h, w) masks.

    ``kind="instance"``: each value above 0 is one track; its box spans all its pixels in a frame, also where an
    occluder cuts it in two.  ``kind="binary"``: every component of a frame is one target, and the components of
    successive frames are joined one to one where they share most pixels; a target that vanishes for a frame starts a
    new track.  What is smaller than ``min_area`` pixels is left out.

    Raises:
        MetricError: wrong shape, negative or fractional ids, or an unknown kind.
    """
    masks = _check_stack(masks, "masks")
    if kind not in ("instance", "binary"):
        raise MetricError(f"kind must be 'instance' or 'binary', got {kind!r}")
    if masks.dtype != bool and not np.issubdtype(masks.dtype, np.integer):
        raise MetricError(f"masks must hold whole numbers or booleans, got {masks.dtype}")
    if masks.size and masks.min() < 0:
        raise MetricError(f"masks hold the negative id {masks.min()}; 0 is background and ids count up from 1")
    return _tracks_by_id(masks, min_area) if kind == "instance" else _tracks_by_overlap(masks, min_area)


def _tracks_by_id(masks: np.ndarray, min_area: int) -> GroundTruthTracks:
    frame, y, x = np.nonzero(masks)
    ids = masks[frame, y, x].astype(np.int64)
    order = np.lexsort((ids, frame))
    frame, y, x, ids = frame[order], y[order], x[order], ids[order]
    starts = (
        np.flatnonzero(np.append(True, (np.diff(frame) != 0) | (np.diff(ids) != 0)))
        if len(ids)
        else np.zeros(0, dtype=int)
    )
    if not len(starts):
        return GroundTruthTracks(track=np.zeros(0), frame=np.zeros(0), box=np.zeros((0, 4)))
    box = np.stack(
        [function.reduceat(axis, starts) for function in (np.minimum, np.maximum) for axis in (x, y)], axis=1
    )
    kept = np.diff(np.append(starts, len(ids))) >= min_area
    return GroundTruthTracks(track=ids[starts][kept], frame=frame[starts][kept], box=box[kept])


def _tracks_by_overlap(masks: np.ndarray, min_area: int) -> GroundTruthTracks:
    tracks, tables, fresh = [], [], 0
    previous, before = None, np.zeros(0, dtype=np.int64)  # labels and tracks of the frame just passed
    for start, stop in _parts(len(masks), masks.shape[1] * masks.shape[2]):
        labels, table = label_frames(masks[start:stop])
        track = np.full(len(table), -1, dtype=np.int64)
        first = np.searchsorted(table[:, 0], np.arange(stop - start + 1))  # labels count up through the frames
        for index in range(stop - start):
            low, high = first[index], first[index + 1]
            now = np.where(labels[index] > 0, labels[index] - low, 0) if high > low else None
            if high > low and previous is not None:
                both = (now > 0) & (previous > 0)
                shared = np.zeros((high - low, len(before)), dtype=np.int64)
                np.add.at(shared, (now[both] - 1, previous[both] - 1), 1)
                for row, column in zip(*linear_sum_assignment(-shared)):
                    if shared[row, column]:
                        track[low + row] = before[column]
            for row in range(low, high):
                if track[row] < 0:
                    track[row], fresh = fresh, fresh + 1
            previous, before = now, track[low:high]
        kept = table[:, 5] >= min_area
        tables.append(table[kept] + np.array([start, 0, 0, 0, 0, 0]))
        tracks.append(track[kept])
    table = np.concatenate(tables) if tables else np.zeros((0, 6), dtype=np.int64)
    return GroundTruthTracks(
        track=np.concatenate(tracks) if tracks else np.zeros(0), frame=table[:, 0], box=table[:, 1:5]
    )
