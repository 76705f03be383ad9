"""Which blob continues which target: at least total cost, by SciPy, within a gate on position and size."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from tvad.language import geometry
from tvad.language.geometry import Box
from tvad.language.target import YOUNG, Blob, Target

_REACH = 1.0           # gate on distance, in mean diagonals, where boxes do not overlap
_LEAP = 3.0            # the same for targets seen once, whose velocity is unknown
_SIMILAR = 2.5         # gate on size: most ratio of the sides of boxes that do not overlap
_GROWING = 6.0         # the same for targets seen twice at most: they may still be coming into view
_UNLIKE = 0.2          # dearness of a larger blob where boxes overlap, times the logarithm of the areas' ratio
_TOO_DEAR = 1.0        # a blob that covers the prediction and is this unlike is what covers the target
_SPLINTER = 0.1        # area, as a share of the usual, of what continues a target only where nothing else does
_FORBIDDEN = 1e6
_FEW = 64              # pairs of targets and blobs up to which each is asked; beyond, those that are near alone


def assign(live: Sequence[Target], predicted: Sequence[Box], blobs: Sequence[Blob], frame: int) -> dict[int, int]:
    """One blob for each target at most: {target: blob}, of least total cost within the gate."""
    if not live:
        return {}
    cost = np.full((len(live), len(blobs)), _FORBIDDEN)
    missed = [frame - target.frames[-1] - 1 for target in live]
    pairs = product(range(len(live)), range(len(blobs))) if cost.size <= _FEW else _near(live, predicted, blobs, missed)
    for row, column in pairs:
        cost[row, column] = _cost(live[row], predicted[row], blobs[column], missed[row])
    chosen = _cheapest(cost, 1.0)  # first where boxes overlap: none gives way so that one from afar finds a place
    if len(chosen) < min(cost.shape):
        cost[list(chosen)] = _FORBIDDEN
        cost[:, list(chosen.values())] = _FORBIDDEN
        chosen |= _cheapest(cost, _FORBIDDEN)
    return chosen


def _cheapest(cost: Float[np.ndarray, "t b"], limit: float) -> dict[int, int]:
    """The assignment of most pairs dearer than none of ``limit``, at least total cost."""
    if cost.size == 1:
        return {0: 0} if cost[0, 0] < limit else {}
    able = cost < limit
    rows, columns = np.flatnonzero(able.any(axis=1)), np.flatnonzero(able.any(axis=0))  # the others change no total
    cost = np.where(able, cost, limit)[np.ix_(rows, columns)]
    return {int(rows[row]): int(columns[column]) for row, column in zip(*linear_sum_assignment(cost))
            if cost[row, column] < limit}


def _near(live: Sequence[Target], predicted: Sequence[Box], blobs: Sequence[Blob],
          missed: Sequence[int]) -> list[list[int]]:
    """The pairs (target, blob) that :func:`_cost` may allow, so that the others need not be asked."""
    boxes, last = np.array(predicted, float), np.array([target.boxes[-1] for target in live], float)
    found = np.array([blob[:4] for blob in blobs], float)
    sides = np.array([target.sides for target in live])
    reach = np.array([_reach(target, unseen) for target, unseen in zip(live, missed)])
    diagonal = (np.hypot(*(found[:, 2:] - found[:, :2] + 1).T) + np.hypot(*sides.T)[:, None]) / 2
    (x, y), (other_x, other_y) = (((box[:, :2] + box[:, 2:]) / 2).T for box in (boxes, found))
    away = np.hypot(x[:, None] - other_x, y[:, None] - other_y)
    near = away <= (reach[:, None] + 1e-6) * diagonal
    return np.argwhere(near | (geometry.overlaps(boxes, found) > 0) | (geometry.overlaps(last, found) > 0)).tolist()


def _reach(target: Target, missed: int) -> float:
    """Mean diagonals within which it is looked for where boxes do not overlap."""
    return _LEAP if len(target.frames) == 1 else _REACH + 0.05 * missed


def _cost(target: Target, box: Box, blob: Blob, missed: int) -> float:
    """Dearness of a blob as the next observation; below 1 where boxes overlap."""
    least = min(_meeting(box, blob), _meeting(target.boxes[-1], blob) + 0.1)  # it may halt, or pieces swung its middle
    usual = target.areas[-1 - target.unusual]
    if least < 1:
        if blob.area < _SPLINTER * usual:
            return 1 + least
        if len(target.frames) < YOUNG:  # still coming into view
            return least
        cost = least + _UNLIKE * max(0.0, float(np.log(blob.area / usual)))  # being covered makes smaller, nothing larger
        return cost if cost < _TOO_DEAR else _FORBIDDEN
    wide, high = geometry.sides(blob)
    ratio = max(wide / target.sides[0], target.sides[0] / wide, high / target.sides[1], target.sides[1] / high)
    edge = missed and geometry.gap(box, blob) <= 0.25 * max(target.sides)  # an edge of what comes out from behind another
    if ratio > (_SIMILAR if len(target.frames) > 2 else _GROWING) and not (edge and blob.area < usual):
        return _FORBIDDEN
    (ax, ay), (bx, by) = geometry.middle(box), geometry.middle(blob)
    diagonal = (np.hypot(wide, high) + np.hypot(*target.sides)) / 2
    distance = float(np.hypot(ax - bx, ay - by)) / diagonal
    return 1 + distance if distance <= _reach(target, missed) else _FORBIDDEN


def _meeting(box: Box, blob: Blob) -> float:
    """Below 1 where a box and a blob agree, 0 where they are the same."""
    shared = geometry.overlap(box, blob)
    mine, its = geometry.surface(box), geometry.surface(blob)
    iou, inside = shared / (mine + its - shared), shared / min(mine, its)
    return 1 - (2 * iou + inside) / 3 if iou > 0.1 or inside > 0.5 else np.inf
