"""Blobs that hold several people from their first frame to their last: a fight, divided between its people.

How many there are is found once for a target (``tvad.language.counting``).  Where they can be seen side by side in a
frame, with a gap or a thin bridge of arms between them, that column divides the blob; in the other frames the column
lies in the blob where it lay before and after.  Who was never seen apart gets his share of the pixels.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from tvad.language.circling import Turn, turn_of
from tvad.language.counting import LEAST, gap_between, people_in
from tvad.language.geometry import Box
from tvad.language.target import Target
from tvad.language.views import View, views_of

_SHARE = 0.15     # of the frames in which a column between people must be seen


def part_people(target: Target, labels: Int[np.ndarray, "n h w"]) -> list[Target]:
    """The people of a target on a spot, from left to right, or the target itself; ``labels``: label map of its blobs."""
    count = people_in(target, labels)
    if count == 1:
        return [target]
    views = views_of(target, labels)
    every = np.ones(len(views), bool)
    borders = [(np.zeros(len(views), int), every)]
    borders += [_column(views, place / count, reach=0.5 / count) for place in range(1, count)]
    borders += [(np.array([view.pixels.shape[1] for view in views]), every)]
    turn = turn_of(views, count)
    if turn is not None:
        return _circling(target, views, turn)
    people: list[dict[int, Box]] = []
    for (left, left_seen), (right, right_seen) in zip(borders, borders[1:]):
        told = left_seen & right_seen
        if told.sum() < LEAST:
            told = every
        boxes = {view.frame: _box(view, start, stop) for view, start, stop, use in zip(views, left, right, told) if use}
        people.append({frame: box for frame, box in boxes.items() if box is not None})
    return _persons(target, people)


def _circling(target: Target, views: Sequence[View], turn: Turn) -> list[Target]:
    """People who change places, in the order in which they begin from the left; each is as wide as the blob less what they
    are apart, at least his share of it, so that boxes lie upon each other while one stands before another."""
    found: list[dict[int, Box]] = [{} for _ in turn.places]
    for view, places in zip(views, turn.places.T):
        wide, apart = view.pixels.shape[1], float(np.ptp(places))
        own = max(wide / len(places), wide - apart)
        for seen, share in zip(found, (places - places.min()) / max(apart, 1e-9)):
            start = share * (wide - own)
            box = _box(view, round(start), max(round(start) + 1, round(start + own)))
            if box is not None:
                seen[view.frame] = box
    return _persons(target, found)


def _column(views: Sequence[View], share: float, *, reach: float) -> tuple[Int[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Columns, counted from the left of each view, that leave about ``share`` of the pixels to their left; and in which
    views a gap is there.  Where gaps are rare, all columns are those of the share alone."""
    cuts = [gap_between(view, (share - reach, share + reach)) for view in views]
    known = np.array([k for k, cut in enumerate(cuts) if cut is not None], int)
    if len(known) < max(LEAST, _SHARE * len(views)):
        even = [np.searchsorted(np.cumsum(view.pixels.sum(axis=0)), share * view.pixels.sum()) for view in views]
        return np.array(even), np.ones(len(views), bool)
    wide, frames = np.array([view.pixels.shape[1] for view in views]), np.array([view.frame for view in views])
    offset: Float[np.ndarray, "m"] = np.array([cuts[k] for k in known]) - wide[known] / 2
    column = np.round(wide / 2 + np.interp(frames, frames[known], offset)).astype(int)
    return np.clip(column, 1, wide - 1), np.isin(np.arange(len(views)), known)


def _box(view: View, start: int, stop: int) -> Box | None:
    """The box of a view's pixels in columns ``start`` to ``stop`` (exclusive), if there are any."""
    part = view.pixels[:, start:stop]
    rows, columns = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    x = view.x + start
    return x + int(columns[0]), view.y + int(rows[0]), x + int(columns[-1]), view.y + int(rows[-1])


def _persons(target: Target, people: Sequence[dict[int, Box]]) -> list[Target]:
    """A track for each, or the target itself where one of them has no pixel in any frame: then they are not so many."""
    return [_person(target, seen) for seen in people] if all(people) else [target]


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
