"""What can be told of linked targets once all frames are known; the second half of ``tvad.language.linking``.

Pieces are given back to the target they came from: the ball of a thrower, in its flight and where it then lies, a car's
end that came out from behind a tree first, legs below a railing.  And of targets that parted, the blob that they shared
before is divided.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from tvad.language import geometry
from tvad.language.geometry import Box
from tvad.language.linking import split
from tvad.language.target import RECENT, YOUNG, Target

_LIFE = 25      # frames that a small thing may exist and still belong to what it came out of
_SMALL = 0.3    # its area as a share of its parent's
_PART = 0.75    # the same where it was in its parent's blob the frame before
_SPECK = 0.05   # area as a share of the parent's of what is never a target of its own beside it
_NEAR = 0.6     # own lengths within which a piece is still beside its parent
_FLIGHT = 0.4   # own lengths a frame at which a thing flies
_ALIKE, _STRANGE = 2.5, 0.7  # most ratio of areas, and distance in diagonals, of one target before and after hiding
_ROLL = 20      # frames that a thrown thing may be out of sight before it lies
STAYED = 4      # times the longest hiding, after which one who stayed about where he was is still taken for himself
_STRAY = 60     # frames of hiding in which he may have strayed one diagonal further
_FLOWN = 12     # frames after which a thing that was thrown lies
LEAST_STILL = 4  # frames from which a thing is known to lie
_LONG = 30      # frames before a parting in which the usual area of who was there is looked for
_GROWN = 1.25   # times it that tell of another in his blob
_SAME = 1.5     # most ratio of areas, and of heights, before and after so long a hiding


def stitch(targets: list[Target], *, max_gap: int) -> list[Target]:
    """Join what begins where another would have come to, after it was out of sight: unlike linking, with both their ways
    and usual sizes known, so that a first sliver of what comes out from behind a tree is no obstacle.

    Out of sight for at most ``max_gap`` frames; for ``STAYED`` times as many who comes out where he was, as large.
    """
    pairs, able = [], [target for target in targets if len(target.frames) >= 3]
    for early in able:
        for late in able:
            hidden = late.frames[0] - early.frames[-1] - 1
            if not 0 <= hidden <= STAYED * max_gap:
                continue
            away = _estrangement(early, late) if hidden <= max_gap else _absence(early, late)
            if away <= _STRANGE:
                pairs.append((away + (hidden > max_gap), late.frames[0], early, late))  # the short hiding first
    ended, begun = [], []
    for _, _, early, late in sorted(pairs, key=lambda pair: pair[:2]):
        if not any(early is one for one in ended) and not any(late is one for one in begun):
            ended.append(early)
            begun.append(late)
    gone = {}
    for early, late in sorted(zip(ended, begun), key=lambda pair: pair[1].frames[0]):
        first = gone.get(id(early), early)
        join(first, late)
        first.sides, first.velocity, first.unusual = late.sides, late.velocity, late.unusual
        gone[id(late)] = first
    repoint(targets, {late: [first] for late, first in gone.items()})
    return [target for target in targets if id(target) not in gone]


def repoint(targets: Sequence[Target], heirs: Mapping[int, Sequence[Target]]) -> None:
    """Let ``parent`` and ``whole`` of ``targets`` name heirs of those that are gone, by whose ids ``heirs`` are listed.

    Of several heirs the one that is nearest where and when a target begins, None where none is seen then.  Nobody is his
    own parent.
    """
    for target in targets:
        for name in ("parent", "whole"):
            able = heirs.get(id(getattr(target, name)))     # None is always alive, so its id is no key
            if able is not None:
                heir = able[0] if len(able) == 1 else _nearest(target, able)
                setattr(target, name, heir if heir is not target else None)


def _nearest(target: Target, others: Sequence[Target]) -> Target | None:
    start, box = target.frames[0], target.boxes[0]
    seen = [(geometry.gap(other.boxes[row], box), place) for place, other in enumerate(others)
            for row, frame in enumerate(other.frames) if start - 1 <= frame <= start and other is not target]
    return others[min(seen)[1]] if seen else None


def _estrangement(early: Target, late: Target) -> float:
    """How far the ways of two miss each other half-way between, in their mean diagonal; infinite where sizes differ."""
    sizes = [float(np.median(target.areas[part])) for target, part in ((early, slice(-15, None)), (late, slice(0, 15)))]
    if max(sizes) > _ALIKE * min(sizes):
        return np.inf
    diagonal = np.mean([np.median([np.hypot(*geometry.sides(box)) for box in target.boxes[part]])
                        for target, part in ((early, slice(-15, None)), (late, slice(0, 15)))])
    half = (early.frames[-1] + late.frames[0]) / 2
    points = []
    for target, part in ((early, slice(-8, None)), (late, slice(0, 8))):
        frames = np.array(target.frames[part], float)
        middles = np.array([geometry.middle(box) for box in target.boxes[part]])
        slope = np.polyfit(frames, middles, 1)[0] if len(frames) > 2 else np.zeros(2)
        points.append(np.median(middles - slope * (frames - half)[:, None], axis=0))
    return float(np.hypot(*(points[0] - points[1]))) / float(diagonal)


def _absence(early: Target, late: Target) -> float:
    """The same for one hidden for long, who may have paced about: how far from where he was last seen he comes out, in
    what he may have strayed; infinite where he looks another."""
    before, after = (np.median(np.array(target.boxes[part], float), axis=0)
                     for target, part in ((early, slice(-5, None)), (late, slice(0, 5))))
    areas = [float(np.median(target.areas[part])) for target, part in ((early, slice(-5, None)), (late, slice(0, 5)))]
    (wide, high), (other_wide, other_high) = geometry.sides(before), geometry.sides(after)
    if max(areas) > _SAME * min(areas) or max(high, other_high) > _SAME * min(high, other_high):
        return np.inf
    diagonal = (np.hypot(wide, high) + np.hypot(other_wide, other_high)) / 2
    stray = 1 + (late.frames[0] - early.frames[-1]) / _STRAY
    return _STRANGE * _distance(before, after) / float(diagonal * stray)


def give_back(targets: list[Target]) -> list[Target]:
    """Join to their parents what came out of them and was small and short-lived, or never left them."""
    kept, pieces = [], []
    seen: dict[int, list[tuple[int, int]]] = defaultdict(list)      # of each frame, who is seen in which of his rows
    for place, target in enumerate(targets):
        for row, frame in enumerate(target.frames):
            seen[frame].append((place, row))
    for target in targets:
        target.parent = _parent(target, targets, seen)
    for target in sorted(targets, key=lambda target: target.frames[0], reverse=True):
        parent = target.whole or target.parent
        if parent is not None and (target.whole is parent or _belongs(target, parent)):
            pieces.append((parent, Target(target.frames, target.boxes, target.areas, target.parts, target.sides)))
            join(parent, target)
            repoint(targets, {id(target): [parent]})
        else:
            kept.append(target)
    for target in list(kept):
        owner = next((parent for parent, piece in pieces
                      if _lies_where_landed(target, parent, piece) and any(parent is one for one in kept)), None)
        if owner is None and lies_still(target):
            owner = next((parent for parent in kept if parent is not target and _shares_fate(target, parent)), None)
        if owner is not None:
            join(owner, target)
            kept = [other for other in kept if other is not target]
            repoint(kept, {id(target): [owner]})
            pieces = [(owner if parent is target else parent, piece) for parent, piece in pieces]
    return kept


def _parent(target: Target, targets: list[Target], seen: Mapping[int, Sequence[tuple[int, int]]]) -> Target | None:
    """What a target came out of: of all then seen, what is nearest to where it would have been two frames before."""
    start = target.frames[0]
    if target.parent is None or len(target.frames) < 2 or target.frames[1] != start + 1:
        return target.parent
    (x, y), (next_x, next_y) = (geometry.middle(box) for box in target.boxes[:2])
    if np.hypot(next_x - x, next_y - y) < 0.5 * max(geometry.sides(target.boxes[0])):
        return target.parent  # not flying
    point = (3 * x - 2 * next_x, 3 * y - 2 * next_y)
    near = [(geometry.gap(targets[place].boxes[row], (*point, *point)), place) for place, row in seen.get(start - 1, ())]
    return targets[min(near)[1]] if near else target.parent


def _belongs(target: Target, parent: Target) -> bool:
    at = {frame: row for row, frame in enumerate(parent.frames)}
    pairs = [(target.boxes[row], parent.boxes[at[frame]]) for row, frame in enumerate(target.frames) if frame in at]
    share = float(np.median(target.areas) / np.median(parent.areas))
    before = parent.boxes[at[target.frames[0] - 1]] if target.frames[0] - 1 in at else None
    parted = before is not None and geometry.gap(before, target.boxes[0]) <= 0.25 * max(geometry.sides(before))
    if (share < _SMALL or parted and share < _PART) and len(target.frames) <= _LIFE:
        # what goes away without flying is somebody who came out from behind the other
        beside = all(geometry.gap(one, two) <= _NEAR * max(geometry.sides(one)) for one, two in pairs)
        if beside or share < _SPECK or _flies(target):
            return True
    most = 0.8 * len(target.frames)
    touching = sum(geometry.gap(one, two) <= 2 for one, two in pairs)
    if share < _SMALL and (touching >= most or _comes_to_rest(target)):
        return True
    if share < _PART and _flies(target) and lies_still(target, after=_FLOWN):
        return True
    if len(pairs) >= 0.5 * len(target.frames) and touching >= 0.8 * len(pairs) and _travel_together(pairs):
        return True
    if parted and sum(_stacked(one, two) for one, two in pairs) >= most:
        return True
    # a piece as large as the rest, gone again before it could be a target of its own, and never far
    return len(target.frames) < YOUNG and touching >= most and len(pairs) == len(target.frames)


def _flies(target: Target) -> bool:
    """Whether it moves a good part of its own length in two of its steps, or is seen once."""
    steps = sorted(_distance(one, two) for one, two in zip(target.boxes, target.boxes[1:]))
    length = float(np.median([max(geometry.sides(box)) for box in target.boxes]))
    return not steps or steps[-min(2, len(steps))] >= _FLIGHT * length


def _comes_to_rest(target: Target) -> bool:
    """Whether it flies off and then lies: a ball whose flight and rest were linked."""
    rest = [box for frame, box in zip(target.frames, target.boxes) if frame >= target.frames[0] + _LIFE]
    diagonal = float(np.hypot(*geometry.sides(target.boxes[0])))
    flew = _distance(target.boxes[0], target.boxes[-1]) > diagonal
    return bool(rest and flew and _distance(rest[0], rest[-1]) <= 0.5 * diagonal)


def _travel_together(pairs: list[tuple[Box, Box]]) -> bool:
    """Whether two that touch go a long way side by side: somebody and what he pushes."""
    high = float(np.median([geometry.sides(two)[1] for _, two in pairs]))
    return _distance(pairs[0][1], pairs[-1][1]) > 1.5 * high


def _stacked(one: Box, two: Box) -> bool:
    """Whether one lies right above the other: a railing hides what is between."""
    across = min(one[2], two[2]) - max(one[0], two[0]) + 1
    narrow = min(geometry.sides(one)[0], geometry.sides(two)[0])
    apart = max(one[1], two[1]) - min(one[3], two[3]) - 1
    return across >= 0.6 * narrow and 0 <= apart <= 0.3 * max(geometry.sides(one)[1], geometry.sides(two)[1])


def _lies_where_landed(target: Target, parent: Target, piece: Target) -> bool:
    """Whether a small still target is where a piece of another went to: the ball that lies after the throw."""
    if target is parent or not 0 <= target.frames[0] - piece.frames[-1] <= _ROLL:
        return False
    diagonal = float(np.hypot(*geometry.sides(target.boxes[0])))
    area, flying = float(np.median(target.areas)), float(np.median(piece.areas))
    small = area < _PART * np.median(parent.areas) and 0.5 <= area / flying <= 2
    still = _distance(target.boxes[0], target.boxes[-1]) <= diagonal
    flew = _distance(piece.boxes[0], piece.boxes[-1]) > diagonal
    return bool(small and still and flew and _distance(piece.boxes[-1], target.boxes[0]) <= 4 * diagonal)


def _shares_fate(target: Target, parent: Target) -> bool:
    """Whether a thing (that lies) is seen only while another is, and comes or goes in the very frame in which that comes
    back or goes: the ball of a thrower whose mask is there while he throws."""
    start, stop = target.frames[0], target.frames[-1]
    if not parent.frames[0] <= start <= stop <= parent.frames[-1] \
            or float(np.median(target.areas)) >= _PART * float(np.median(parent.areas)):
        return False
    seen, begun = set(parent.frames), parent.frames[0]
    if not seen.issuperset(target.frames):
        return False
    comes = start > begun and start - 1 not in seen
    goes = stop < parent.frames[-1] and stop + 1 not in seen
    return comes or goes


def lies_still(target: Target, *, after: int = 0) -> bool:
    """Whether it is, ``after`` frames from its first, a thing that lies: people breathe, things do not."""
    boxes = [box for frame, box in zip(target.frames, target.boxes) if frame >= target.frames[0] + after]
    return len(boxes) >= LEAST_STILL and float(np.ptp(np.array(boxes), axis=0).max()) <= 2


def _distance(one: Box, two: Box) -> float:
    (x, y), (other_x, other_y) = geometry.middle(one), geometry.middle(two)
    return float(np.hypot(x - other_x, y - other_y))


def join(parent: Target, target: Target) -> None:
    """Make ``target`` a part of ``parent``, in the frames of both; what either shared with others stays shared."""
    rows = {frame: (box, area, parts)
            for frame, box, area, parts in zip(parent.frames, parent.boxes, parent.areas, parent.parts)}
    for frame, box, area, parts in zip(target.frames, target.boxes, target.areas, target.parts):
        if frame in rows:
            old, much, others = rows[frame]
            rows[frame] = (geometry.union([old, box]), much + area, tuple(dict.fromkeys(others + parts)))
        else:
            rows[frame] = (box, area, parts)
    parent.frames = sorted(rows)
    parent.shared |= target.shared
    for name, place in (("boxes", 0), ("areas", 1), ("parts", 2)):
        setattr(parent, name, [rows[frame][place] for frame in parent.frames])


def divide_before(target: Target, labels: np.ndarray) -> None:
    """Extend a target that parted from its parent back through the blob they shared, and a few frames of its growth."""
    parent, start = target.parent, target.frames[0]
    if parent is None or len(target.frames) < YOUNG or start not in parent.frames:
        return
    row = parent.frames.index(start)
    if row == 0 or parent.frames[row - 1] != start - 1 or geometry.gap(parent.boxes[row - 1], target.boxes[0]) > 2:
        return
    expected = float(np.median(target.areas[:RECENT]) + np.median(parent.areas[row:row + RECENT]))
    mine, its = target.boxes[0], parent.boxes[row]
    alone = [area for frame, area in zip(parent.frames, parent.areas) if start - _LONG <= frame < start]
    grown = _GROWN * float(np.median(alone)) if len(alone) == _LONG else np.inf
    coming = 0      # frames in which the blob is larger than its owner was, yet less than both: another comes in
    while row and parent.frames[row - 1] == target.frames[0] - 1:
        if parent.areas[row - 1] < 0.7 * expected:
            coming += 1
            if parent.areas[row - 1] < grown or coming > YOUNG:
                break
        row -= 1
        frame, parts = parent.frames[row], parent.parts[row]
        if frame in parent.shared:      # with a third
            break
        (mine, area), (its, rest) = split(labels[frame], parts, parent.boxes[row], [mine, its])
        if not area or not rest:
            break
        target.frames.insert(0, frame)
        target.boxes.insert(0, mine)
        target.areas.insert(0, area)
        target.parts.insert(0, parts)
        parent.boxes[row], parent.areas[row] = its, rest
        target.shared.add(frame)
        parent.shared.add(frame)


def settle(targets: Sequence[Target], areas: Int[np.ndarray, "k"]) -> None:
    """Let ``shared`` of targets name the frames in which they have not all pixels of their blobs, whose labels count from 1
    in ``areas``: who was divided from a blob and is joined to it again shares it no more."""
    for target in targets:
        target.shared = {frame for frame, area, parts in zip(target.frames, target.areas, target.parts)
                         if area < sum(int(areas[part - 1]) for part in parts)}
