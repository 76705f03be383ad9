"""How well found tracks agree with true ones: HOTA, identity switches, and errors of the entry and exit frame.

HOTA is that of Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking" (IJCV 2021), with box
IoU as similarity and thresholds alpha from 0.05 to 0.95: in each frame boxes are matched one to one, so that first the
tracks that agree over the whole video and then the boxes that overlap most are paired; a pair counts at alpha if its IoU
is at least alpha.  DetA = TP / (TP + FN + FP); AssA is the mean over TP of TPA / (TPA + FNA + FPA); HOTA(alpha) is the
root of their product and HOTA the mean over alpha.  Over videos the counts are summed, as its authors do.

An identity switch is that of CLEAR MOT (Bernardin and Stiefelhagen, 2008): a true target is matched to another found
track than when it was last matched; pairs of the frame before are kept while their IoU lasts.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from tvad.metrics.common import MetricError
from tvad.metrics.region import GroundTruthTracks, box_iou

ALPHAS: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(1, 20))
_SLACK = 1e-9  # IoU is a quotient: 0.5 may come out as 0.49999999


@dataclass(frozen=True, eq=False)
class Hota:
    """HOTA and its two factors in [0, 1], means over ``ALPHAS``; ``by_alpha`` has HOTA at each."""

    hota: float
    detection: float
    association: float
    by_alpha: Float[np.ndarray, "19"]


@dataclass(frozen=True, eq=False)
class EdgeErrors:
    """Found minus true first (``entry``) and last (``exit``) frame of each true track, NaN where none was found for it.

    ``track`` is the id of the true track, ``found`` of the track that was matched to it (-1: none).
    """

    track: Int[np.ndarray, "k"]
    found: Int[np.ndarray, "k"]
    entry: Float[np.ndarray, "k"]
    exit: Float[np.ndarray, "k"]

    def within(self, frames: int) -> tuple[float, float]:
        """Shares of true tracks whose entry, and whose exit, is at most ``frames`` off; a missed track is not within.

        Raises:
            MetricError: no true track at all.
        """
        if not len(self.track):
            raise MetricError("no true track, so no share of them is defined; give videos with targets")
        return float((np.abs(self.entry) <= frames).mean()), float((np.abs(self.exit) <= frames).mean())


def hota(found: Mapping[str, GroundTruthTracks], truth: Mapping[str, GroundTruthTracks]) -> Hota:
    """HOTA of ``found`` against ``truth``, both tracks of boxes by video.

    Raises:
        MetricError: the two name different videos, no box in either, or two boxes of one track in one frame.
    """
    _same_videos(found, truth)
    hits, missed, false = np.zeros(len(ALPHAS)), np.zeros(len(ALPHAS)), np.zeros(len(ALPHAS))
    linked = np.zeros(len(ALPHAS))
    for name in truth:
        one, two = _Table(truth[name], name), _Table(found[name], name)
        frames = list(_frames(one, two))
        together = np.zeros((len(one.ids), len(two.ids)))  # how much two tracks overlap over the whole video
        for rows, columns, iou in frames:
            both = iou / np.maximum(iou.sum(1, keepdims=True) + iou.sum(0) - iou, 1e-12)
            together[np.ix_(rows, columns)] += np.where(iou > 0, both, 0)
        agree = together / np.maximum(one.lengths[:, None] + two.lengths - together, 1e-12)
        pairs = np.zeros((len(ALPHAS), *together.shape))
        for rows, columns, iou in frames:
            row, column = linear_sum_assignment(-agree[np.ix_(rows, columns)] * iou)
            for level, alpha in enumerate(ALPHAS):
                kept = iou[row, column] >= alpha - _SLACK
                pairs[level, rows[row[kept]], columns[column[kept]]] += 1
        matched = pairs.sum(axis=(1, 2))
        hits, missed, false = hits + matched, missed + len(truth[name]) - matched, false + len(found[name]) - matched
        linked += (pairs * pairs / np.maximum(one.lengths[:, None] + two.lengths - pairs, 1)).sum(axis=(1, 2))
    if not (hits + missed + false)[0]:
        raise MetricError("HOTA is undefined: no box, neither true nor found; give videos with targets")
    detection, association = hits / (hits + missed + false), linked / np.maximum(hits, 1)
    levels = np.sqrt(detection * association)
    return Hota(float(levels.mean()), float(detection.mean()), float(association.mean()), levels)


def identity_switches(found: GroundTruthTracks, truth: GroundTruthTracks, *, alpha: float = 0.5) -> int:
    """Times that a true target of one video is matched to another found track than when last matched, at an IoU of at
    least ``alpha``."""
    one, two = _Table(truth, "truth"), _Table(found, "found")
    last = np.full(len(one.ids), -1)      # the found track of each true one, ever
    before = np.full(len(one.ids), -1)    # in the frame before
    switches, previous = 0, None
    for frame, (rows, columns, iou) in zip(_shared_frames(one, two), _frames(one, two)):
        if previous is not None and frame != previous + 1:
            before[:] = -1
        gain = np.where(iou >= alpha - _SLACK, iou + 1000.0 * (before[rows][:, None] == columns), 0.0)
        row, column = linear_sum_assignment(-gain)
        kept = gain[row, column] > 0
        ours, theirs = rows[row[kept]], columns[column[kept]]
        switches += int(((last[ours] >= 0) & (last[ours] != theirs)).sum())
        before[:] = -1
        before[ours] = last[ours] = theirs
        previous = frame
    return switches


def edge_errors(found: GroundTruthTracks, truth: GroundTruthTracks, *, alpha: float = 0.1) -> EdgeErrors:
    """First and last frames of the tracks of one video against the true ones.

    True and found tracks are paired one to one so that most boxes agree with an IoU of at least ``alpha``.
    """
    one, two = _Table(truth, "truth"), _Table(found, "found")
    agree = np.zeros((len(one.ids), len(two.ids)))
    for rows, columns, iou in _frames(one, two):
        agree[np.ix_(rows, columns)] += np.where(iou >= alpha - _SLACK, 1 + 1e-3 * iou, 0)
    partner = np.full(len(one.ids), -1)
    entry, leave = np.full((2, len(one.ids)), np.nan)
    for row, column in zip(*linear_sum_assignment(-agree)):
        if agree[row, column] > 0:
            partner[row] = two.ids[column]
            entry[row] = two.first[column] - one.first[row]
            leave[row] = two.last[column] - one.last[row]
    return EdgeErrors(one.ids, partner, entry, leave)


class _Table:
    """Tracks with consecutive indices, sorted by frame."""

    def __init__(self, tracks: GroundTruthTracks, name: str) -> None:
        self.ids, index, lengths = np.unique(tracks.track, return_inverse=True, return_counts=True)
        order = np.lexsort((index, tracks.frame))
        self.frame, self.index, self.box = tracks.frame[order], index[order], tracks.box[order]
        double = (np.diff(self.frame) == 0) & (np.diff(self.index) == 0)
        if double.any():
            row = int(double.argmax())
            raise MetricError(f"{name}: track {self.ids[self.index[row]]} has two boxes in frame {self.frame[row]}; a "
                              "track is one target, give its parts one box")
        self.lengths = lengths.astype(np.float64)
        self.first, self.last = (np.array([side(self.frame[self.index == k]) for k in range(len(self.ids))], np.int64)
                                 for side in (np.min, np.max))

    def at(self, frame: int) -> slice:
        return slice(*np.searchsorted(self.frame, [frame, frame + 1]))


def _shared_frames(one: _Table, two: _Table) -> Int[np.ndarray, "f"]:
    return np.intersect1d(one.frame, two.frame)


def _frames(one: _Table, two: _Table) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Indices of the tracks of both in each frame that has some of both, and the IoU of their boxes."""
    for frame in _shared_frames(one, two):
        mine, its = one.at(frame), two.at(frame)
        yield one.index[mine], two.index[its], box_iou(one.box[mine][:, None], two.box[its][None])


def _same_videos(found: Mapping[str, GroundTruthTracks], truth: Mapping[str, GroundTruthTracks]) -> None:
    if odd := sorted(set(found) ^ set(truth)):
        side = "truth" if odd[0] in truth else "found"
        raise MetricError(f"found and true tracks are of different videos: {odd[0]!r} is in {side} alone; give both for "
                          "each video, empty tables where there is none")
