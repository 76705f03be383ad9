"""New targets, out of the blobs that continue none."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from tvad.language import geometry
from tvad.language.target import Blob, Target

_BESIDE = 0.5          # lengths within which two that begin together may be pieces of one
_MINOR = 0.3           # area, as a share of another's, of what is the other's piece although it is a little away


def births(live: Sequence[Target], blobs: Sequence[Blob], frame: int, *, least_area: int, merging: bool) -> list[Target]:
    """New targets out of the ``blobs`` that belong to none; if ``merging``, those that nearly touch, or small ones beside
    large ones, are one.  A target's parent is what was seen nearest to where it begins."""
    blobs = sorted(blobs, key=lambda blob: -blob.area)
    groups = [[blobs[index] for index in group] for group in _grouped(blobs)] if merging else [[blob] for blob in blobs]
    groups = [group for group in groups if sum(blob.area for blob in group) >= least_area]
    if not groups:
        return []
    born: list[Target] = []
    seen = _Seen([target for target in live if target.frames[-1] >= frame - 1], len(groups))
    for group in sorted(groups, key=lambda group: -sum(blob.area for blob in group)):
        target = found(frame, group, None)
        target.parent = seen.nearest(target.boxes[0])
        seen.add(target)
        born.append(target)
    return born


def found(frame: int, group: Sequence[Blob], parent: Target | None) -> Target:
    """A target that begins with a group of blobs."""
    box = geometry.union(group)
    return Target([frame], [box], [sum(blob.area for blob in group)], [tuple(blob.label for blob in group)],
                  geometry.sides(box), parent=parent)


class _Seen:
    """Targets seen in this frame or the one before, by where they are."""

    def __init__(self, targets: Sequence[Target], more: int) -> None:
        self.targets: list[Target] = []
        self.boxes, self.reach, self.area = np.zeros((2, len(targets) + more, 4)), np.zeros(len(targets) + more), []
        for target in targets:
            self.add(target)

    def add(self, target: Target) -> None:
        place = len(self.targets)
        self.boxes[:, place] = target.boxes[-2:]  # of one box twice the same
        self.reach[place] = (_BESIDE if len(target.frames) == 1 else 1) * max(geometry.sides(target.boxes[-1]))
        self.area.append(target.areas[-1])
        self.targets.append(target)

    def nearest(self, box: Sequence[float]) -> Target | None:
        """The nearest within its length, of equally near ones the largest."""
        count = len(self.targets)
        away = geometry.gaps(self.boxes[:, :count].reshape(-1, 4), np.asarray(box, float)).reshape(2, count).min(axis=0)
        near = np.flatnonzero(away <= self.reach[:count])
        return self.targets[min(near.tolist(), key=lambda place: (away[place], -self.area[place]))] if len(near) else None


def _grouped(blobs: Sequence[Blob]) -> list[list[int]]:
    """Indices of blobs that are one: of all pairs the first that belong together are joined, then again from the start.

    Only pairs with what was last joined can have changed, so each row of pairs is looked at about once.
    """
    groups = [[index] for index in range(len(blobs))]
    if len(blobs) < 2:
        return groups
    box, area = np.array([blob[:4] for blob in blobs], float), np.array([blob.area for blob in blobs])
    alive: Bool[np.ndarray, "n"] = np.ones(len(blobs), bool)
    here = reached = 0      # of all groups before ``reached`` no pair belongs together
    while here < len(blobs):
        later = np.flatnonzero(alive[here + 1:] & _belong(box[here], area[here], box[here + 1:], area[here + 1:]))
        if not alive[here] or not len(later):
            here = reached = max(reached, here + 1)
            continue
        first, second = here, here + 1 + int(later[0])
        while True:
            groups[first] += groups[second]
            box[first] = geometry.union(box[[first, second]].tolist())
            area[first] += area[second]
            alive[second] = False
            earlier = np.flatnonzero(alive[:first] & _belong(box[:first], area[:first], box[first], area[first]))
            if not len(earlier):
                break
            first, second = int(earlier[0]), first
        here = first
    return [group for group, lives in zip(groups, alive) if lives]


def _belong(large: Float[np.ndarray, "*n 4"], area: Int[np.ndarray, "*n"], small: Float[np.ndarray, "*m 4"],
            its: Int[np.ndarray, "*m"]) -> Bool[np.ndarray, "k"]:
    """Whether the second of two nearly touches the first, or is a minor piece beside it; one of them may be many."""
    side, other = ((box[..., 2:] - box[..., :2] + 1).max(axis=-1) for box in (large, small))
    away = geometry.gaps(large, small)
    return (away <= 2 + 0.1 * side) | ((its < _MINOR * area) & (away <= 1 + 0.3 * other))
