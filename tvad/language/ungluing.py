"""Two targets that linking took for pieces of one, told apart by their ways once all frames are known.

A skateboarder who enters beside a car that leaves, a motorcycle that starts behind two who fight: where two blobs begin
side by side, nothing says that they are no pieces of one target cut by a lamp post.  Pieces of one move together, however
much of each is seen; two targets do not.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from tvad.language import geometry
from tvad.language.linking import link
from tvad.language.mending import join, lies_still, repoint
from tvad.language.target import YOUNG, Blob, Target

_LARGE = 0.3      # area, as a share of the largest strand's, of what may be a target
_APART = 0.5      # heights of the higher by which two strands must move against each other, and be apart once
_ALIKE = 0.5      # least ratio of their heights: a hand beside a pole is nobody


def unglue(targets: Sequence[Target], frames: Sequence[Sequence[Blob]], labels: Int[np.ndarray, "n h w"], *,
           max_gap: int, least_area: int) -> list[Target]:
    """Targets with those divided whose pieces go different ways; ``frames`` has the blobs of ``labels`` by frame."""
    found: list[Target] = []
    heirs: dict[int, list[Target]] = {}
    for target in targets:
        many = sum(len(parts) > 1 for parts in target.parts)
        if many < YOUNG or target.shared:
            found.append(target)
            continue
        own: list[list[Blob]] = [[] for _ in frames]
        for frame, parts in zip(target.frames, target.parts):
            own[frame] = [blob for blob in frames[frame] if blob.label in parts]
        strands = link(own, labels, max_gap=max_gap, least_area=least_area, pieces_belong=False)
        large = max(float(np.median(strand.areas)) for strand in strands) if strands else 0.0
        able = [strand for strand in strands if len(strand.frames) >= YOUNG and not lies_still(strand)
                and float(np.median(strand.areas)) >= _LARGE * large]
        apart: list[Target] = []
        for strand in sorted(able, key=lambda strand: -len(strand.frames)):
            if all(_part(strand, other) for other in apart):  # with the longest of each group; the others join them
                apart.append(strand)
        if len(apart) > 1:
            heirs[id(target)] = _regrouped(apart, _completed(strands, own))
        found += heirs.get(id(target), [target])
    repoint(found, heirs)
    return found


def _completed(strands: Sequence[Target], own: Sequence[Sequence[Blob]]) -> list[Target]:
    """The strands, which have one blob each in a frame, with all pixels of the target's ``own`` blobs: what linking left
    out of a shared blob goes to the strand with most of it, and a blob that founded nothing is a strand of its own."""
    holders: dict[int, list[tuple[Target, int]]] = {}
    for strand in strands:
        for row, (label,) in enumerate(strand.parts):
            holders.setdefault(label, []).append((strand, row))
    found = list(strands)
    for frame, blobs in enumerate(own):
        for blob in blobs:
            left = blob.area - sum(strand.areas[row] for strand, row in holders.get(blob.label, ()))
            if blob.label not in holders:
                found.append(Target([frame], [blob[:4]], [blob.area], [(blob.label,)], geometry.sides(blob)))
            elif left:
                strand, row = max(holders[blob.label], key=lambda holder: holder[0].areas[holder[1]])
                strand.boxes[row], strand.areas[row] = blob[:4], strand.areas[row] + left
    return found


def _part(one: Target, two: Target) -> bool:
    """Whether two strands move against each other while both are seen, and are well apart for once."""
    rows = {frame: row for row, frame in enumerate(two.frames) if frame not in two.shared}
    pairs = [(one.boxes[row], two.boxes[rows[frame]]) for row, frame in enumerate(one.frames)
             if frame in rows and frame not in one.shared]
    if len(pairs) < YOUNG:
        return False
    offset = np.array([np.subtract(geometry.middle(first), geometry.middle(second)) for first, second in pairs])
    ends = [np.median(part, axis=0) for part in (offset[:3], offset[-3:])]
    low, high = sorted(float(np.median([geometry.sides(box)[1] for box in boxes])) for boxes in zip(*pairs))
    gap = max(geometry.gap(*pair) for pair in pairs)
    return low >= _ALIKE * high and min(gap, float(np.hypot(*(ends[1] - ends[0])))) > _APART * high


def _regrouped(apart: Sequence[Target], strands: Sequence[Target]) -> list[Target]:
    """The strands that go their own ways, each with the others that are nearest to it: in a frame of both, else in the
    frames of each that are nearest in time."""
    joined: list[list[Target]] = [[] for _ in apart]
    for strand in strands:
        if not any(strand is one for one in apart):
            joined[min(range(len(apart)), key=lambda place: _away(strand, apart[place]))].append(strand)
    for one, others in zip(apart, joined):
        for strand in others:
            join(one, strand)
        one.parent = one.whole = None
    return list(apart)


def _away(strand: Target, other: Target) -> tuple[int, float, float]:
    """Frames between two strands, then the pixels between them at that time, then between their middles."""
    rows = {frame: row for row, frame in enumerate(other.frames)}
    pairs = [(box, other.boxes[rows[frame]]) for frame, box in zip(strand.frames, strand.boxes) if frame in rows]
    late = 0
    if not pairs:
        times = np.abs(np.subtract.outer(strand.frames, other.frames))
        mine, its = np.unravel_index(times.argmin(), times.shape)
        pairs, late = [(strand.boxes[mine], other.boxes[its])], int(times.min())
    gap = min(geometry.gap(*pair) for pair in pairs)
    middles = [[geometry.middle(box) for box in pair] for pair in pairs]
    return late, gap, min(float(np.hypot(x - other_x, y - other_y)) for (x, y), (other_x, other_y) in middles)
