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
from tvad.language.linking import YOUNG, Blob, Target, link
from tvad.language.mending import join, lies_still

_LARGE = 0.3      # area, as a share of the largest strand's, of what may be a target
_APART = 0.5      # heights of the higher by which two strands must move against each other, and be apart once
_ALIKE = 0.5      # least ratio of their heights: a hand beside a pole is nobody


def unglue(targets: Sequence[Target], frames: Sequence[Sequence[Blob]], labels: Int[np.ndarray, "n h w"], *,
           max_gap: int, least_area: int) -> list[Target]:
    """Targets with those divided whose pieces go different ways; ``frames`` has the blobs of ``labels`` by frame."""
    found: list[Target] = []
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
        found += _regrouped(apart, strands) if len(apart) > 1 else [target]
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
    """The strands that go their own ways, each with the others that are nearest to it."""
    for strand in strands:
        if any(strand is one for one in apart):
            continue
        gaps = [min((geometry.gap(box, one.boxes[one.frames.index(frame)])
                     for frame, box in zip(strand.frames, strand.boxes) if frame in one.frames), default=np.inf)
                for one in apart]
        if min(gaps) < np.inf:
            join(apart[int(np.argmin(gaps))], strand)
        else:
            apart = [*apart, strand]
    for one in apart:
        one.parent = one.whole = None
    return list(apart)
