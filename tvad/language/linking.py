"""Linking the blobs of successive frames into targets; the work behind ``tvad.language.tracks``.

Forward through the frames: each target predicts its box, SciPy assigns blobs to predictions at least cost within a gate
on position and size, and what is left over is explained in turn as a piece of a target (a lamp post cuts it), as a
second target inside a shared blob (its pixels are divided), as hidden (it coasts on its prediction), or as new.  What
can only be told with all frames known comes after, in ``tvad.language.mending``.
"""
from __future__ import annotations

import numpy as np
from jaxtyping import Int

from tvad.language import geometry
from tvad.language.assigning import assign
from tvad.language.founding import births, found
from tvad.language.geometry import Box
from tvad.language.target import RECENT, YOUNG, Blob, Target

_STRETCH = 1.3         # how much larger than remembered a target may be when pieces are put together
_LEFT = 0.4            # IoU with the prediction below which a target's part of a blob is not it any more
_STEADY = 1.4          # most over least area of a target that is of one size
_COVERED = 0.5         # of a predicted box under another's blob, from which a target cannot be seen


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
        chosen = assign(live, predicted, blobs, frame)
        for row in _under(predicted, blobs, chosen):
            live[row].covered += 1
        taken = set(chosen.values())
        free = [index for index in range(len(blobs)) if index not in taken]
        if labels is None:
            for row, index in chosen.items():
                live[row].add(frame, blobs[index][:4], area=blobs[index].area, parts=(blobs[index].label,))
            live += [found(frame, [blobs[index]], None) for index in free]
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
        live += births(live, [blobs[index] for index in free], frame, least_area=least_area, merging=pieces_belong)
    return done + live


def _under(predicted: list[Box], blobs: list[Blob], chosen: dict[int, int]) -> list[int]:
    """Targets without a blob that cannot be seen, since another's lies over where they should be."""
    missing = [row for row in range(len(predicted)) if row not in chosen]
    if not missing or not chosen:
        return []
    boxes = np.array([predicted[row] for row in missing], float)
    over = geometry.overlaps(boxes, np.array([blobs[index][:4] for index in chosen.values()], float))
    least = _COVERED * np.array([geometry.surface(predicted[row]) for row in missing])
    return [row for row, hidden in zip(missing, (over >= least[:, None]).any(axis=1)) if hidden]


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
    owners, held = list(chosen), np.array([blobs[index][:4] for index in chosen.values()], float)
    for row, box in enumerate(predicted):
        if not owners or row in chosen or frame - live[row].frames[-1] > 3:
            continue
        away = [geometry.gaps(held, np.array(place, float)) for place in (live[row].boxes[-1], box)]
        near = np.minimum(*away)
        owner = owners[int(near.argmin())]
        if min(len(live[row].frames), len(live[owner].frames)) < YOUNG \
                and not _are_two(live[row], live[owner], blobs[chosen[owner]]):
            side = max(geometry.sides(blobs[chosen[owner]]))
            if live[row].whole is None and frame - live[row].frames[-1] == 1 and near.min() <= 0.25 * side:
                live[row].whole = live[owner]
            continue
        covered = geometry.overlaps(np.array([box], float), held)[0] / geometry.surface(box)
        owner = owners[int(covered.argmax())]
        if covered.max() < 0.4:
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


def _agreement(one: Box, two: Box) -> float:
    """Intersection over union."""
    shared = geometry.overlap(one, two)
    return shared / (geometry.surface(one) + geometry.surface(two) - shared)


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
