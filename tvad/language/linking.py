"""Linking the blobs of successive frames into targets; the work behind ``tvad.language.tracks``.

Forward through the frames: each target predicts its box, SciPy assigns blobs to predictions at least cost within a gate
on position and size, and what is left over is explained in turn as a piece of a target (a lamp post cuts it), as a
second target inside a shared blob (its pixels are divided), as hidden (it coasts on its prediction), or as new.  What
can only be told with all frames known comes after, in ``tvad.language.mending``.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from tvad.language import geometry
from tvad.language.geometry import Box

RECENT = 5            # observations that velocity is measured over
YOUNG = 8             # frames before which a target that vanishes into another was a piece of it
_BOUND, _LESS = 1.4, 1.25  # growth and loss of area that tell of another target in the blob, or before it
_COMING = 2.0          # growth in a few frames of what comes in by the border of the picture, at most
_UNUSUAL = 20          # frames after which such a size is the usual one
_CREEP = 1.04          # growth of the remembered sides from frame to frame, at most
_STRETCH = 1.3         # how much larger than remembered a target may be when pieces are put together
_REACH = 1.0           # gate on distance, in mean diagonals, where boxes do not overlap
_LEAP = 3.0            # the same for targets seen once, whose velocity is unknown
_SIMILAR = 2.5         # gate on size: most ratio of the sides of boxes that do not overlap
_UNLIKE = 0.2          # dearness of a larger blob where boxes overlap, times the logarithm of the areas' ratio
_TOO_DEAR = 1.0        # a blob that covers the prediction and is this unlike is what covers the target
_GROWING = 6.0         # the same for targets seen twice at most: they may still be coming into view
_LEFT = 0.4            # IoU with the prediction below which a target's part of a blob is not it any more
_SPLINTER = 0.1        # area, as a share of the usual, of what continues a target only where nothing else does
_BESIDE = 0.5          # lengths within which two that begin together may be pieces of one
_STEADY = 1.4          # most over least area of a target that is of one size
_COVERED = 0.5         # of a predicted box under another's blob, from which a target cannot be seen
_FORBIDDEN = 1e6


class Blob(NamedTuple):
    """A component, or all pixels of one instance, in one frame; ``label`` is its value in the label map."""

    x1: int
    y1: int
    x2: int
    y2: int
    area: int
    label: int


@dataclass
class Target:
    """What is known of one target so far. ``parts`` holds the labels of its blobs in each frame."""

    frames: list[int]
    boxes: list[Box]
    areas: list[int]
    parts: list[tuple[int, ...]]
    sides: tuple[float, float]
    parent: Target | None = None
    whole: Target | None = None                       # what it was a piece of all the time
    shared: set[int] = field(default_factory=set)     # frames in which its blob is another's too
    unusual: int = 0                                  # frames since its area changed at a bound
    velocity: tuple[float, float] = (0.0, 0.0)
    covered: int = 0                                  # frames since last seen in which another's blob lay over it

    def unseen(self, frame: int) -> int:
        """Frames before ``frame`` in which it was not seen; those in which it could not be count a third."""
        return frame - self.frames[-1] - 1 - 2 * self.covered // 3

    def predict(self, frame: int) -> Box:
        """The box expected in ``frame``: the last one moved on, or the last before its area changed at a bound."""
        last = len(self.frames) - 1 - self.unusual
        steps = frame - self.frames[last]
        x1, y1, x2, y2 = self.boxes[last]
        dx, dy = self.velocity[0] * steps, self.velocity[1] * steps
        return x1 + dx, y1 + dy, x2 + dx, y2 + dy

    def add(self, frame: int, box: Box, *, area: int, parts: tuple[int, ...], shared: bool = False,
            cut: bool = False) -> None:
        """Take in an observation; ``cut``: by the border of the picture, so that it may grow."""
        self.whole, self.covered = None, 0
        usual = np.median(self.areas[-RECENT - self.unusual:len(self.areas) - self.unusual])
        comes = cut and len(parts) == 1 and usual <= area <= usual * _COMING
        unusual = not (shared or comes) and len(self.frames) > YOUNG and not usual / _LESS <= area <= usual * _BOUND
        self.unusual = self.unusual + 1 if unusual and self.unusual < _UNUSUAL else 0
        self.frames.append(frame)
        self.boxes.append(box)
        self.areas.append(area)
        self.parts.append(parts)
        wide, high = geometry.sides(box)
        if shared:  # the middle of a part of a blob says little of where its target is going
            self.shared.add(frame)
            return
        if self.unusual:  # a covered side seems to move to the other, another's blob seems to be its own
            return
        # pieces may drift apart, and a blob may take up another target: what is remembered then grows slowly
        most = _CREEP if len(parts) > 1 or len(self.frames) > YOUNG and not comes else np.inf
        self.sides = tuple(min(old + 0.3 * (new - old), most * old) for old, new in zip(self.sides, (wide, high)))
        first = max(0, len(self.frames) - RECENT)
        span = self.frames[-1] - self.frames[first]
        if span:
            (ax, ay), (bx, by) = geometry.middle(self.boxes[first]), geometry.middle(box)
            self.velocity = ((bx - ax) / span, (by - ay) / span)


def link(
    frames: list[list[Blob]],
    labels: Int[np.ndarray, "n h w"] | None,
    *,
    max_gap: int,
    least_area: int,
    pieces_belong: bool = True,
) -> list[Target]:
    """Targets out of the blobs of each frame.

    With ``labels`` (the label map of the blobs) blobs may be pieces of a target (not so with ``pieces_belong`` False) or
    hold several; without, each blob is one target's.  The rest as in ``tracks_from_binary``.
    """
    live: list[Target] = []
    done: list[Target] = []
    for frame, blobs in enumerate(frames):
        if not blobs:
            continue
        lost = [target.unseen(frame) > max_gap for target in live]
        done += [target for target, gone in zip(live, lost) if gone]
        live = [target for target, gone in zip(live, lost) if not gone]
        predicted = [target.predict(frame) for target in live]
        chosen = _assign(live, predicted, blobs, frame)
        for row, box in enumerate(predicted):
            if row not in chosen and any(geometry.overlap(box, blobs[index]) >= _COVERED * geometry.surface(box)
                                         for index in chosen.values()):
                live[row].covered += 1
        free = [index for index in range(len(blobs)) if index not in set(chosen.values())]
        if labels is None:
            for row, index in chosen.items():
                live[row].add(frame, blobs[index][:4], area=blobs[index].area, parts=(blobs[index].label,))
            live += [_found(frame, [blobs[index]], None) for index in free]
            continue
        pieces = {row: [index] for row, index in chosen.items()}
        if pieces_belong:
            free = _give_pieces(live, blobs, pieces, free)
        holders = _sharing(live, predicted, blobs, chosen, frame)
        for row, owned in pieces.items():
            if row not in holders:
                _observe(live[row], frame, [blobs[index] for index in owned], labels.shape[1:])
        for rows in _groups(holders):
            owned = [blobs[index] for row in rows for index in pieces.get(row, ())]
            _divide([live[row] for row in rows], [predicted[row] for row in rows], frame, owned, labels[frame])
        live += _births(live, blobs, free, frame, least_area, merging=pieces_belong)
    return done + live


def _assign(live: list[Target], predicted: list[Box], blobs: list[Blob], frame: int) -> dict[int, int]:
    """One blob for each target at most: {target: blob}, of least total cost within the gate."""
    if not live:
        return {}
    cost = np.full((len(live), len(blobs)), _FORBIDDEN)
    for row, (target, box) in enumerate(zip(live, predicted)):
        missed = frame - target.frames[-1] - 1
        for column, blob in enumerate(blobs):
            cost[row, column] = _cost(target, box, blob, missed)
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
    cost = np.where(cost < limit, cost, limit)
    return {int(row): int(column) for row, column in zip(*linear_sum_assignment(cost)) if cost[row, column] < limit}


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
    reach = _LEAP if len(target.frames) == 1 else _REACH + 0.05 * missed
    return 1 + distance if distance <= reach else _FORBIDDEN


def _agreement(one: Box, two: Box) -> float:
    """Intersection over union."""
    shared = geometry.overlap(one, two)
    return shared / (geometry.surface(one) + geometry.surface(two) - shared)


def _meeting(box: Box, blob: Blob) -> float:
    """Below 1 where a box and a blob agree, 0 where they are the same."""
    shared = geometry.overlap(box, blob)
    mine, its = geometry.surface(box), geometry.surface(blob)
    iou, inside = shared / (mine + its - shared), shared / min(mine, its)
    return 1 - (2 * iou + inside) / 3 if iou > 0.1 or inside > 0.5 else np.inf


def _give_pieces(live: list[Target], blobs: list[Blob], pieces: dict[int, list[int]], free: list[int]) -> list[int]:
    """Add free blobs to the targets that they complete; returns the others."""
    left = []
    for index in sorted(free, key=lambda index: -blobs[index].area):
        blob, best, least = blobs[index], None, np.inf
        for row, owned in pieces.items():
            whole = geometry.union([blobs[other] for other in owned])
            both = geometry.union([whole, blob])
            limit = [max(old, new) * _STRETCH + 2 for old, new in zip(live[row].sides, geometry.sides(whole))]
            fits = all(side <= most for side, most in zip(geometry.sides(both), limit))
            speck = blob.area < 0.15 * sum(blobs[other].area for other in owned)
            gap = geometry.gap(whole, blob)
            if (fits or speck and gap <= 0.25 * max(geometry.sides(whole))) and gap < least:
                best, least = row, gap
        if best is None:
            left.append(index)
        else:
            pieces[best].append(index)
    return left


def _sharing(live: list[Target], predicted: list[Box], blobs: list[Blob], chosen: dict[int, int],
             frame: int) -> dict[int, int]:
    """{target: blob} for all targets that share a blob: those without one whose prediction lies in another's.

    Where one of the two is young, they were pieces of one target (a car that comes out from behind a tree).
    """
    holders: dict[int, int] = {}
    for row, box in enumerate(predicted):
        if row in chosen or frame - live[row].frames[-1] > 3:
            continue
        near = {other: min(geometry.gap(live[row].boxes[-1], blobs[index]), geometry.gap(box, blobs[index]))
                for other, index in chosen.items()}
        owner = min(near, key=near.get, default=None)
        if owner is not None and min(len(live[row].frames), len(live[owner].frames)) < YOUNG \
                and not _are_two(live[row], live[owner], blobs[chosen[owner]]):
            side = max(geometry.sides(blobs[chosen[owner]]))
            if live[row].whole is None and frame - live[row].frames[-1] == 1 and near[owner] <= 0.25 * side:
                live[row].whole = live[owner]
            continue
        covered = {other: geometry.overlap(box, blobs[index]) / geometry.surface(box) for other, index in chosen.items()}
        owner = max(covered, key=covered.get, default=None)
        if owner is None or covered[owner] < 0.4:
            continue
        blob = blobs[chosen[owner]]
        expected = float(np.median(live[owner].areas[-RECENT:]))
        inside = [other for other in (*holders, owner) if chosen.get(other, holders.get(other)) == chosen[owner]]
        if blob.area > 1.25 * expected or any(frame - 1 in live[other].shared for other in inside):
            holders[row] = holders[owner] = chosen[owner]  # too large for its owner alone
    return holders


def _are_two(one: Target, two: Target, blob: Blob) -> bool:
    """Whether a blob is the meeting of two whole targets though one is young: the other is old and was of one size, the
    young one is no small piece, and the blob is as large as both."""
    young, old = sorted((one, two), key=lambda target: len(target.frames))
    before = old.areas[-RECENT - 1:-1]
    if len(old.frames) < YOUNG or not before or max(before) > _STEADY * min(before):
        return False
    usual, more = float(np.median(before)), float(young.areas[-1])
    return more >= 0.4 * usual and blob.area >= 0.8 * (usual + more)


def _groups(holders: dict[int, int]) -> list[list[int]]:
    return [[row for row in holders if holders[row] == blob] for blob in sorted(set(holders.values()))]


def _observe(target: Target, frame: int, owned: list[Blob], size: tuple[int, int]) -> None:
    box = geometry.union(owned)
    cut = box[0] <= 0 or box[1] <= 0 or box[2] >= size[1] - 1 or box[3] >= size[0] - 1
    target.add(frame, box, area=sum(blob.area for blob in owned), parts=tuple(blob.label for blob in owned), cut=cut)


def _divide(targets: list[Target], predicted: list[Box], frame: int, owned: list[Blob], labels: np.ndarray) -> None:
    """Give each pixel of the shared blobs to the target whose predicted box is nearest."""
    parts = tuple(dict.fromkeys(blob.label for blob in owned))
    boxes = [geometry.resized(box, target.sides) for box, target in zip(predicted, targets)]
    for target, expected, (box, area) in zip(targets, boxes, split(labels, parts, geometry.union(owned), boxes)):
        if area and _agreement(box, expected) >= _LEFT:
            target.add(frame, box, area=area, parts=parts, shared=True)


def split(labels: np.ndarray, parts: tuple[int, ...], within: Box, boxes: list[Box]) -> list[tuple[Box, int]]:
    """Bounding box and number of the pixels with labels ``parts`` that are nearest to each of ``boxes``, measured in
    half sides from its middle."""
    x1, y1, x2, y2 = (int(edge) for edge in within)
    y, x = np.nonzero(np.isin(labels[y1:y2 + 1, x1:x2 + 1], parts))
    x, y = x + x1, y + y1
    distance = []
    for box in boxes:
        (mx, my), (wide, high) = geometry.middle(box), geometry.sides(box)
        distance.append(np.hypot((x - mx) / wide, (y - my) / high))
    nearest = np.argmin(distance, axis=0)
    found = []
    for index in range(len(boxes)):
        own_x, own_y = x[nearest == index], y[nearest == index]
        box = tuple(float(edge) for edge in (own_x.min(), own_y.min(), own_x.max(), own_y.max())) if len(own_x) else within
        found.append((box, len(own_x)))
    return found


def _births(live: list[Target], blobs: list[Blob], free: list[int], frame: int, least_area: int, *,
            merging: bool) -> list[Target]:
    """New targets out of free blobs; if ``merging``, those that nearly touch, or small ones beside large ones, are one."""
    groups, merged = [[blobs[index]] for index in sorted(free, key=lambda index: -blobs[index].area)], merging
    while merged and len(groups) > 1:
        merged = False
        for one, two in combinations(range(len(groups)), 2):
            large, small = geometry.union(groups[one]), geometry.union(groups[two])
            gap, side = geometry.gap(large, small), max(geometry.sides(large))
            minor = sum(blob.area for blob in groups[two]) < 0.3 * sum(blob.area for blob in groups[one])
            if gap <= 2 + 0.1 * side or minor and gap <= 1 + 0.3 * max(geometry.sides(small)):
                groups[one] += groups.pop(two)
                merged = True
                break
    born = []
    for group in sorted(groups, key=lambda group: -sum(blob.area for blob in group)):
        if sum(blob.area for blob in group) >= least_area:
            box = geometry.union(group)
            near = []
            for target in live + born:
                away = min(geometry.gap(old, box) for old in target.boxes[-2:])
                reach = _BESIDE if len(target.frames) == 1 else 1
                if target.frames[-1] >= frame - 1 and away <= reach * max(geometry.sides(target.boxes[-1])):
                    near.append((away, -target.areas[-1], target))
            born.append(_found(frame, group, min(near, key=lambda item: item[:2])[2] if near else None))
    return born


def _found(frame: int, group: list[Blob], parent: Target | None) -> Target:
    box = geometry.union(group)
    return Target([frame], [box], [sum(blob.area for blob in group)], [tuple(blob.label for blob in group)],
                  geometry.sides(box), parent=parent)
