"""Who is who once a blob has parted: linking goes forward and decides at once; here what comes after is known too.

Somebody enters close beside one who stands, is taken for a piece of him, and when the blob parts the one who stays looks
new.  So each target that came out of another's blob is compared, as that other is, with what the other was before they
met: place, speed, height and area.  Where it agrees much better it is the other, and the two exchange all later frames.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tvad.language import geometry
from tvad.language.target import Target

_NEAR = 8         # frames before and after a meeting that are compared
_LEAST = 3        # of them that must be seen
_LONG = 30        # frames before the parting in which the usual area is looked for
_USUAL = 1.25     # most ratio of an area to the usual one while a target is alone in its blob
_PARTED = 20      # frames after a target's first within which it must be seen apart
_CLEARLY = 0.8    # by how much an exchange must be the cheaper
_AHEAD = 5        # frames over which a difference of speed is a difference of place


@dataclass(frozen=True)
class _Side:
    """A target before or after a meeting: its way at time t is ``place + speed * (t - frame)``."""

    frame: float
    place: Float[np.ndarray, "2"]
    speed: Float[np.ndarray, "2"]
    high: float
    area: float
    diagonal: float


def exchange(targets: Sequence[Target]) -> None:
    """Exchange what comes after a parting between two targets, where that agrees much better with what was before."""
    for late in sorted(targets, key=lambda target: target.frames[0]):
        for early in targets:
            if early is not late and _parts_from(late, early) and _better_exchanged(early, late):
                _swap(early, late)


def _parts_from(late: Target, early: Target) -> bool:
    """Whether the first box of one lies at the other's of the frame before, who is older and goes on."""
    start = late.frames[0]
    if not early.frames[0] <= start - _LEAST or early.frames[-1] < start or start - 1 not in early.frames:
        return False
    before = early.boxes[early.frames.index(start - 1)]
    return geometry.gap(before, late.boxes[0]) <= 2


def _better_exchanged(early: Target, late: Target) -> bool:
    start, held = late.frames[0], dict(zip(early.frames, early.parts))
    apart = [frame for frame, parts in zip(late.frames, late.parts)
             if frame < start + _PARTED and frame in held and not set(parts) & set(held[frame])][:_NEAR]
    rows = [row for row, frame in enumerate(early.frames) if start - _LONG <= frame < start]
    usual = float(np.median([early.areas[row] for row in rows]))
    alone = [early.frames[row] for row in rows if usual / _USUAL <= early.areas[row] <= usual * _USUAL][-_NEAR:]
    if min(len(apart), len(alone)) < _LEAST:
        return False
    before, kept, other = _side(early, alone), _side(early, apart), _side(late, apart)
    return _unlike(before, other) + _CLEARLY < _unlike(before, kept)


def _side(target: Target, frames: Sequence[int]) -> _Side:
    rows = [target.frames.index(frame) for frame in frames]
    when, boxes = np.array(frames, float), np.array([target.boxes[row] for row in rows], float)
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2] + 1
    since = when - when.mean()
    wide, high = np.median(sides, axis=0)
    return _Side(float(when.mean()), middles.mean(axis=0), since @ middles / (since @ since), float(high),
                 float(np.median([target.areas[row] for row in rows])), float(np.hypot(wide, high)))


def _unlike(early: _Side, late: _Side) -> float:
    """How badly two sides of a meeting agree: place half-way, speed, height and area."""
    half, diagonal = (early.frame + late.frame) / 2, (early.diagonal + late.diagonal) / 2
    ahead, back = (side.place + side.speed * (half - side.frame) for side in (early, late))
    miss = float(np.linalg.norm(ahead - back)) + _AHEAD * float(np.linalg.norm(early.speed - late.speed))
    return miss / diagonal + abs(float(np.log(early.high / late.high))) + 0.5 * abs(float(np.log(early.area / late.area)))


def _swap(early: Target, late: Target) -> None:
    """Give each the other's frames from the first of ``late`` on."""
    row = early.frames.index(late.frames[0]) if late.frames[0] in early.frames else \
        next(row for row, frame in enumerate(early.frames) if frame > late.frames[0])
    for name in ("frames", "boxes", "areas", "parts"):
        mine, its = getattr(early, name), getattr(late, name)
        setattr(early, name, mine[:row] + its)
        setattr(late, name, mine[row:])
    start = late.frames[0]
    both = early.shared, late.shared
    early.shared = {frame for frame in both[0] if frame < start} | both[1]
    late.shared = {frame for frame in both[0] if frame >= start}
    early.sides, late.sides = late.sides, early.sides
    early.velocity, late.velocity = late.velocity, early.velocity
    early.unusual, late.unusual = late.unusual, early.unusual
