"""Blobs that hold several people from their first frame to their last: a fight, told apart by the people's outlines.

Linking divides a blob between targets that were seen apart.  Fighters are often never apart: their masks touch through
every arm.  But most of the time two upright figures can be seen side by side, with a gap or a thin bridge of arms
between them.  Where that is so in enough frames of a target that stays on a spot, it is two people; a pair that travels
as one is left as one, since a person behind a loaded hand truck looks the same.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from tvad.language.geometry import Box
from tvad.language.linking import Target

_SHARE, _LEAST = 0.15, 4     # of a target's frames, and frames, in which two figures must be seen
_SPOT = 1.5                  # heights within which a target stays on a spot
_THIN = 0.4                  # pixels of the thinnest column between figures, as a share of their fullest
_UPRIGHT = 1.2               # height over width of a figure
_SWAY = 2.0                  # pixels that the column between two people wanders
_ALIKE = 0.7                 # height of the lower figure over that of the other
_MOST = 3                    # people that are looked for in a blob


@dataclass
class _View:
    """Pixels of a target in one frame, within its box whose corner is at ``x``, ``y``."""

    frame: int
    x: int
    y: int
    pixels: Bool[np.ndarray, "h w"]


def part_people(target: Target, labels: Int[np.ndarray, "n h w"]) -> list[Target]:
    """The people of a target on a spot, or the target itself; ``labels`` is the label map of its blobs."""
    high = float(np.median([box[3] - box[1] + 1 for box in target.boxes]))
    wide = max(box[2] - box[0] + 1 for box in target.boxes)
    if len(target.frames) < _LEAST or wide < 6 or _travel(target.boxes) > _SPOT * high:
        return [target]
    views = [_view(labels[frame], frame, box, parts)
             for frame, box, parts in zip(target.frames, target.boxes, target.parts) if frame not in target.shared]
    people = _figures(views, least=max(_LEAST, _SHARE * len(target.frames)), most=_MOST)
    return [_person(target, seen) for seen in people] if len(people) > 1 else [target]


def _travel(boxes: list[Box]) -> float:
    first, last = (np.median(np.array(part, float), axis=0) for part in (boxes[:5], boxes[-5:]))
    return float(np.hypot(*((last[:2] + last[2:] - first[:2] - first[2:]) / 2)))


def _view(labels: Int[np.ndarray, "h w"], frame: int, box: Box, parts: tuple[int, ...]) -> _View:
    x1, y1, x2, y2 = (int(edge) for edge in box)
    window = labels[y1:y2 + 1, x1:x2 + 1]
    return _View(frame, x1, y1, window == parts[0] if len(parts) == 1 else np.isin(window, parts))


def _figures(views: list[_View], *, least: float, most: int) -> list[dict[int, Box]]:
    """Boxes by frame of each figure, from left to right, in the frames in which they are told apart."""
    halves = [(view, cut) for view in views if (cut := _cut(view)) is not None]
    where = [view.x + cut for view, cut in halves]
    if len(halves) < least or np.ptp(np.percentile(where, (10, 90))) < _SWAY:  # a lamp post stands still
        return [{view.frame: _box(view) for view in views}]
    left = [_tight(_View(view.frame, view.x, view.y, view.pixels[:, :cut])) for view, cut in halves]
    right = [_tight(_View(view.frame, view.x + cut, view.y, view.pixels[:, cut:])) for view, cut in halves]
    found = [left, right]
    people = [[{view.frame: _box(view) for view in side}] for side in found]
    if most > 2:  # one of the two may be two again
        for index, side in enumerate(found):
            finer = _figures(side, least=max(_LEAST, 0.4 * len(side)), most=2)
            if len(finer) > 1:
                people[index] = finer
                break
    return [person for side in people for person in side]


def _cut(view: _View) -> int | None:
    """The column between two upright figures side by side, or None."""
    count = view.pixels.sum(axis=0)
    share = np.cumsum(count) / max(1, count.sum())
    inner = np.flatnonzero((share >= 0.25) & (share <= 0.75))
    if not len(inner):
        return None
    cut = int(inner[np.argmin(count[inner])])
    if not cut or cut + 1 >= len(count):
        return None
    sides = view.pixels[:, :cut], view.pixels[:, cut + 1:]
    if count[cut] > _THIN * min(count[:cut].max(), count[cut + 1:].max()):
        return None
    spans = [[np.flatnonzero(side.any(axis=axis)) for axis in (1, 0)] for side in sides]
    (high, wide), (other_high, other_wide) = ([int(at[-1] - at[0] + 1) for at in span] for span in spans)
    alike = min(high, other_high) >= _ALIKE * max(high, other_high)
    upright = high >= _UPRIGHT * wide and other_high >= _UPRIGHT * other_wide
    return cut if alike and upright else None


def _tight(view: _View) -> _View:
    rows, columns = (np.flatnonzero(view.pixels.any(axis=axis)) for axis in (1, 0))
    return _View(view.frame, view.x + int(columns[0]), view.y + int(rows[0]),
                 view.pixels[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1])


def _box(view: _View) -> Box:
    high, wide = view.pixels.shape
    return view.x, view.y, view.x + wide - 1, view.y + high - 1


def _person(target: Target, seen: dict[int, Box]) -> Target:
    """A track of one figure: seen where told apart, elsewhere as it then lay in the blob, cut at the blob's box."""
    frames, whole = np.array(target.frames), np.array(target.boxes, float)
    known = np.array([k for k, frame in enumerate(target.frames) if frame in seen])
    boxes = np.array([seen[target.frames[k]] for k in known], float)
    middle = np.tile((whole[:, :2] + whole[:, 2:]) / 2, 2)
    offset = boxes - middle[known]
    guess = middle + np.stack([np.interp(frames, frames[known], offset[:, side]) for side in range(4)], axis=1)
    low, high = np.tile(whole[:, :2], 2), np.tile(whole[:, 2:], 2)
    guess = np.clip(np.round(guess), low, high)
    guess[known] = boxes
    surface = (guess[:, 2] - guess[:, 0] + 1) * (guess[:, 3] - guess[:, 1] + 1)
    extent = (whole[:, 2] - whole[:, 0] + 1) * (whole[:, 3] - whole[:, 1] + 1)
    areas = np.maximum(1, np.round(np.array(target.areas) * surface / extent)).astype(int)
    rows = [tuple(row) for row in guess.tolist()]
    return Target(list(target.frames), rows, areas.tolist(), list(target.parts),
                  (rows[-1][2] - rows[-1][0] + 1, rows[-1][3] - rows[-1][1] + 1), shared=set(target.frames))
