"""Region-based and track-based detection criteria (RBDC, TBDC; Ramachandra and Jones 2020), and linking regions into
tracks.

Boxes are (x1, y1, x2, y2) with inclusive pixel corners, so a side is ``x2 - x1 + 1`` long.  A detection that overlaps
ground-truth boxes of its frame with an IoU of at least alpha finds all of them; one that overlaps none is a false
positive; one that only meets boxes found before is neither. A track is found once a share beta of its boxes is. Both
curves run over false positives per frame up to 1 and extend flat if they end before. Detections of equal score enter
together, so that the order of rows does not matter (the published program depends on it there).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from tvad.metrics.common import MetricError, area_under


def _rows(owner: object, kind: str, **columns: np.ndarray | None) -> None:
    """Convert, check and store the columns of a frozen table."""
    length = len(np.asarray(columns["frame"]))
    for name, column in columns.items():
        if column is None:
            column = np.full(length, -1)
        given = np.asarray(column)
        array = given.astype(np.float64 if name in ("box", "score") else np.int64)
        shape = (length, 4) if name == "box" else (length,)
        if array.shape != shape and not (length == 0 and array.size == 0):
            raise MetricError(f"{kind}.{name} has shape {array.shape}, expected {shape} as frame has {length} rows")
        array = array.reshape(shape)
        if array.dtype == np.float64 and np.isnan(array).any():
            raise MetricError(
                f"{kind}.{name} holds NaN, first in row {int(np.isnan(array).reshape(length, -1).any(1).argmax())}"
            )
        if name in ("frame", "track") and (given.reshape(shape) != array).any():
            raise MetricError(f"{kind}.{name} must hold whole numbers")
        if name == "frame" and (array < 0).any():
            raise MetricError(f"{kind}.frame holds {array.min()}; frames count from 0")
        if name == "box" and ((array[:, 2] < array[:, 0]) | (array[:, 3] < array[:, 1])).any():
            row = int(((array[:, 2] < array[:, 0]) | (array[:, 3] < array[:, 1])).argmax())
            raise MetricError(
                f"{kind}.box row {row} is {array[row].tolist()}; boxes are x1, y1, x2, y2 with x1 <= x2 and y1 <= y2"
            )
        object.__setattr__(owner, name, array)


@dataclass(frozen=True, eq=False)
class Regions:
    """Detected regions of one video, k rows; ``track`` is -1 where a region is not linked."""

    frame: Int[np.ndarray, "k"]
    box: Float[np.ndarray, "k 4"]
    score: Float[np.ndarray, "k"]
    track: Int[np.ndarray, "k"] | None = field(default=None)

    def __post_init__(self) -> None:
        _rows(self, "Regions", frame=self.frame, box=self.box, score=self.score, track=self.track)

    def __len__(self) -> int:
        return len(self.frame)

    @classmethod
    def empty(cls) -> Regions:
        """No region at all."""
        return cls(frame=np.zeros(0), box=np.zeros((0, 4)), score=np.zeros(0))


@dataclass(frozen=True, eq=False)
class GroundTruthTracks:
    """True boxes of the anomalous targets of one video, k rows; rows of one ``track`` belong to one target."""

    track: Int[np.ndarray, "k"]
    frame: Int[np.ndarray, "k"]
    box: Float[np.ndarray, "k 4"]

    def __post_init__(self) -> None:
        _rows(self, "GroundTruthTracks", track=self.track, frame=self.frame, box=self.box)

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True, eq=False)
class RegionScores:
    """RBDC and TBDC in [0, 1], the two curves behind them, and what they were measured on."""

    rbdc: float
    tbdc: float
    false_positive_rate: Float[np.ndarray, "p"]  # false positives per frame
    region_rate: Float[np.ndarray, "p"]
    track_rate: Float[np.ndarray, "p"]
    boxes: int
    tracks: int
    frames: int

    @property
    def reaches_limit(self) -> bool:
        """Whether the detections go as far as one false positive a frame, so that nothing was extended flat."""
        return bool(self.false_positive_rate[-1] >= 1)


def box_iou(one: Float[np.ndarray, "k 4"], two: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, "k"]:
    """Intersection over union of boxes row by row (broadcasts), corners inclusive."""
    wide = np.minimum(one[..., 2], two[..., 2]) - np.maximum(one[..., 0], two[..., 0]) + 1
    high = np.minimum(one[..., 3], two[..., 3]) - np.maximum(one[..., 1], two[..., 1]) + 1
    both = np.maximum(wide, 0) * np.maximum(high, 0)
    areas = [(box[..., 2] - box[..., 0] + 1) * (box[..., 3] - box[..., 1] + 1) for box in (one, two)]
    return both / (areas[0] + areas[1] - both)


def pairs_within(start: Int[np.ndarray, "k"], stop: Int[np.ndarray, "k"]) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (row, partner) with start[row] <= partner < stop[row], in order of rows."""
    count = stop - start
    row = np.repeat(np.arange(len(count)), count)
    skipped = np.cumsum(count) - count
    return row, np.arange(len(row)) - np.repeat(skipped - start, count)


@dataclass(frozen=True, eq=False)
class _Events:
    """What happens while the score threshold falls: false alarms, boxes found, tracks found; and in which video."""

    score: np.ndarray
    video: np.ndarray
    kind: np.ndarray  # 0 false positive, 1 box found, 2 track found
    boxes: np.ndarray  # per video
    tracks: np.ndarray  # per video


def _match(regions: Regions, truth: GroundTruthTracks, *, alpha: float, beta: float) -> tuple[list[np.ndarray], int]:
    """Scores at which the false positives, the boxes and the tracks of one video appear; and its number of tracks."""
    order = np.argsort(truth.frame, kind="stable")
    frames, boxes = truth.frame[order], truth.box[order]
    row, partner = pairs_within(*(np.searchsorted(frames, regions.frame, side=side) for side in ("left", "right")))
    hit = box_iou(regions.box[row], boxes[partner]) >= alpha
    row, partner = row[hit], partner[hit]
    alarm = np.ones(len(regions), dtype=bool)
    alarm[row] = False
    best = np.full(len(truth), -np.inf)  # the score at which a box is first found
    np.maximum.at(best, partner, regions.score[row])
    seen = np.zeros(len(truth), dtype=bool)  # not best > -inf: a detection may have that score
    seen[partner] = True
    track = truth.track[order]
    by_score = np.lexsort((-best, ~seen, track))
    ids, size = np.unique(track, return_counts=True)
    first = np.cumsum(size) - size
    needed = np.maximum(1, np.ceil(beta * size - 1e-9).astype(np.int64))  # least number of boxes whose share is >= beta
    last = by_score[first + needed - 1]
    return [regions.score[alarm], best[seen], best[last][seen[last]]], len(ids)


def _events(
    detections: Mapping[str, Regions], tracks: Mapping[str, GroundTruthTracks], *, alpha: float, beta: float
) -> _Events:
    missing = sorted(set(tracks) - set(detections))
    if missing:
        raise MetricError(
            f"no detections for {len(missing)} annotated videos, first {missing[0]!r}; pass Regions.empty() where "
            "nothing was found"
        )
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 < value <= 1:
            raise MetricError(f"{name} must lie in (0, 1], got {value}")
    if not sum(len(track) for track in tracks.values()):
        raise MetricError(
            f"RBDC and TBDC are undefined: no ground-truth box in any of {len(detections)} videos; evaluate on a split "
            "with annotated targets"
        )
    nothing = GroundTruthTracks(track=np.zeros(0), frame=np.zeros(0), box=np.zeros((0, 4)))
    scores, videos, kinds, boxes, counts = [], [], [], [], []
    for index, (name, regions) in enumerate(detections.items()):
        truth = tracks.get(name, nothing)
        parts, count = _match(regions, truth, alpha=alpha, beta=beta)
        scores += parts
        kinds += [np.full(len(part), kind, dtype=np.int8) for kind, part in enumerate(parts)]
        videos.append(np.full(sum(map(len, parts)), index))
        boxes.append(len(truth))
        counts.append(count)
    score, kind, video = (np.concatenate(parts) for parts in (scores, kinds, videos))
    order = np.argsort(-score, kind="stable")
    return _Events(score[order], video[order], kind[order], np.array(boxes), np.array(counts))


def _frames_by_video(detections: Mapping[str, Regions], num_frames: Mapping[str, int]) -> np.ndarray:
    missing = sorted(set(detections) - set(num_frames))
    if missing:
        raise MetricError(f"num_frames lacks {len(missing)} videos, first {missing[0]!r}")
    for name, regions in detections.items():
        if len(regions) and regions.frame.max() >= num_frames[name]:
            raise MetricError(
                f"{name}: a detection lies in frame {regions.frame.max()} but the video has {num_frames[name]} frames"
            )
    return np.array([num_frames[name] for name in detections], dtype=np.float64)


def rbdc_tbdc(
    detections: Mapping[str, Regions],
    tracks: Mapping[str, GroundTruthTracks],
    *,
    num_frames: int | Mapping[str, int],
    alpha: float = 0.1,
    beta: float = 0.1,
) -> RegionScores:
    """RBDC and TBDC over a set of videos.

    Args:
        detections: regions of every video, by name; videos without ``tracks`` are normal, all their regions false.
        tracks: true boxes of the anomalous videos, by name.
        num_frames: frames in all, normal videos included, or of each video by name (then frame numbers are checked).
        alpha: least IoU of a hit.
        beta: least share of a track's boxes that must be found.

    Raises:
        MetricError: a video without detections entry, no ground truth at all, or numbers out of range.
    """
    total = float(_frames_by_video(detections, num_frames).sum() if isinstance(num_frames, Mapping) else num_frames)
    if total <= 0:
        raise MetricError(f"num_frames must be positive, got {total:g}")
    events = _events(detections, tracks, alpha=alpha, beta=beta)
    ends = np.flatnonzero(np.append(np.diff(events.score) != 0, True)) if len(events.score) else np.zeros(0, dtype=int)
    curves = [np.append(0, np.cumsum(events.kind == kind)[ends]) for kind in range(3)]
    rate, regions, found = (
        curve / scale for curve, scale in zip(curves, (total, events.boxes.sum(), events.tracks.sum()))
    )
    return RegionScores(
        rbdc=float(area_under(rate, regions, 1.0)),
        tbdc=float(area_under(rate, found, 1.0)),
        false_positive_rate=rate,
        region_rate=regions,
        track_rate=found,
        boxes=int(events.boxes.sum()),
        tracks=int(events.tracks.sum()),
        frames=int(total),
    )


def rbdc_tbdc_weighted(
    detections: Mapping[str, Regions],
    tracks: Mapping[str, GroundTruthTracks],
    *,
    num_frames: Mapping[str, int],
    alpha: float = 0.1,
    beta: float = 0.1,
) -> Callable[[np.ndarray], np.ndarray]:
    """:func:`rbdc_tbdc` as a function of the multiplicities (s, v) of the videos of ``detections``: (s, 2) values."""
    frames = _frames_by_video(detections, num_frames)
    events = _events(detections, tracks, alpha=alpha, beta=beta)
    ends = np.flatnonzero(np.append(np.diff(events.score) != 0, True)) if len(events.score) else np.zeros(0, dtype=int)
    # The curves are flat between scores that find something: keep those, the ones just before them, and the last.
    group = np.searchsorted(ends, np.flatnonzero(events.kind > 0))
    kept = np.unique(np.concatenate((group, group - 1, [len(ends) - 1])))
    ends = ends[kept[kept >= 0]]
    rows = [np.flatnonzero(events.kind == kind) for kind in range(3)]
    until = [np.searchsorted(part, ends, side="right") for part in rows]

    def evaluate(weights: np.ndarray) -> np.ndarray:
        weights = np.asarray(weights, dtype=np.float64)
        totals = np.stack((weights @ frames, weights @ events.boxes, weights @ events.tracks))
        values = np.full((len(weights), 2), np.nan)
        step = max(1, 1_000_000 // max(1, len(events.score)))
        for start in range(0, len(weights), step):
            part, total, curves = weights[start : start + step], totals[:, start : start + step, None], []
            for kind in range(3):
                risen = np.zeros((len(part), len(rows[kind]) + 1))
                np.cumsum(part[:, events.video[rows[kind]]], axis=1, out=risen[:, 1:])
                curve = np.concatenate((risen[:, :1], risen[:, until[kind]]), axis=1)
                curves.append(np.divide(curve, total[kind], out=np.full_like(curve, np.nan), where=total[kind] > 0))
            values[start : start + step] = np.stack([area_under(curves[0], curve, 1.0) for curve in curves[1:]], axis=1)
        return values

    return evaluate


def link_tracks(regions: Regions, *, min_iou: float = 0.2, max_distance: float = 1.0, max_gap: int = 4) -> Regions:
    """Link the regions of a video into tracks, frame after frame, one to one and at least total cost.

    A region may continue a track if their boxes' IoU is at least ``min_iou``, or else if their centres are at most
    ``max_distance`` mean box diagonals apart and their sizes within a factor of two a side; overlap goes before
    nearness. A track survives ``max_gap`` frames without a region. Track numbers count from 0 by first appearance.
    """
    if max_gap < 0:
        raise MetricError(f"max_gap must be 0 or more frames, got {max_gap}")
    order = np.lexsort((-regions.score, regions.frame))
    frames, starts = np.unique(regions.frame[order], return_index=True)
    track = np.full(len(regions), -1, dtype=np.int64)
    boxes, seen, names, fresh = np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 0
    for frame, rows in zip(frames, np.split(order, starts[1:])):
        alive = frame - seen <= max_gap + 1
        boxes, seen, names = boxes[alive], seen[alive], names[alive]
        new = regions.box[rows]
        if len(names):
            cost = _link_cost(boxes, new, min_iou=min_iou, max_distance=max_distance)
            for old, row in zip(*linear_sum_assignment(cost)):
                if cost[old, row] < _FORBIDDEN:
                    track[rows[row]] = names[old]
                    boxes[old], seen[old] = new[row], frame
        loose = np.flatnonzero(track[rows] < 0)
        track[rows[loose]] = np.arange(fresh, fresh + len(loose))
        names = np.append(names, track[rows[loose]])
        boxes, seen = np.concatenate((boxes, new[loose])), np.append(seen, np.full(len(loose), frame))
        fresh += len(loose)
    return Regions(frame=regions.frame, box=regions.box, score=regions.score, track=track)


_FORBIDDEN = 1e6  # dearer than any sum of allowed links, so the gate never costs an allowed one


def _link_cost(old: np.ndarray, new: np.ndarray, *, min_iou: float, max_distance: float) -> np.ndarray:
    iou = box_iou(old[:, None], new[None])
    sizes = [box[:, 2:] - box[:, :2] + 1 for box in (old, new)]
    centres = [(box[:, 2:] + box[:, :2]) / 2 for box in (old, new)]
    diagonal = (np.linalg.norm(sizes[0], axis=1)[:, None] + np.linalg.norm(sizes[1], axis=1)[None]) / 2
    distance = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2) / diagonal
    ratio = np.abs(np.log(sizes[0][:, None] / sizes[1][None])).max(axis=2)
    near = (distance <= max_distance) & (ratio <= np.log(2) + 1e-9)
    return np.where(iou >= min_iou, 1 - iou, np.where(near, 1 + distance, _FORBIDDEN))
