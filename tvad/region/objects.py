"""What is warm in a heatmap, thing by thing: the few tracks that its hottest regions make from step to step.

A map of several targets has no single place.  Here each step's map is cut into regions above a share of the clip's
peak, regions of neighbouring steps are linked one to one by distance, and the tracks with the most heat are kept, told in
the order of the texts: by their first step, then from left to right.  Nothing is learned and no gradient passes; the
numbers of a track are facts for what is learned behind it.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation, find_objects, label
from scipy.optimize import linear_sum_assignment

STEP_FACTS = 9      # there; middle x y; box x1 y1 x2 y2; root of the area; hottest heat
_ROUND = np.ones((3, 3), bool)
_SHARE = 0.4        # of the clip's peak: what is colder belongs to no region
_REACH = 0.3        # of the map's longer side: how far something may go in a step
_GAP = 2            # steps that a track may be missed
_FAINT = 0.12       # of a track's peak: how hot it is still in a step where it is taken for the same
_NEAR = 0.12        # of the map's longer side: how far from where it should be
_LEAST = 0.1        # of the strongest track's heat: what has less is clutter


@dataclass(frozen=True)
class Warm:
    """One track: ``facts`` of every step, places in -1 to 1 (x right, y down) and all 0 where it is not seen, and its own
    ``heat``, 0 outside its regions."""

    facts: Float[np.ndarray, "t 9"]
    heat: Float[np.ndarray, "t h w"]

    @property
    def present(self) -> Bool[np.ndarray, " t"]:
        """The steps in which it is seen."""
        return self.facts[:, 0] > 0


def warm_things(heatmap: Float[np.ndarray, "t h w"], *, most: int) -> list[Warm]:
    """At most ``most`` tracks of a heatmap of probabilities, in the order in which they are told.

    A flat map has none.
    """
    heat = np.asarray(heatmap, np.float32)
    peak = float(heat.max())
    if not peak > float(heat.min()) + 1e-6:
        return []
    rows, columns = heat.shape[1:]
    tracks: list[list[tuple[int, np.ndarray, np.ndarray]]] = []      # (step, middle, mask) of each region
    for step, one in enumerate(heat):
        regions = [(step, _middle(one, mask), mask) for mask in _regions(one, _SHARE * peak)]
        alive = [track for track in tracks if step - track[-1][0] <= _GAP]
        joined = _linked(alive, regions, reach=_REACH * max(rows, columns))
        for number, region in enumerate(regions):
            if number in joined:
                joined[number].append(region)
            else:
                tracks.append([region])
    tracks = [_followed(heat, track) for track in tracks]
    weights = [sum(float(heat[step][mask].sum()) for step, _, mask in track) for track in tracks]
    strong = sorted(range(len(tracks)), key=lambda number: (-weights[number], number))[:most]
    kept = [tracks[number] for number in strong if weights[number] >= _LEAST * weights[strong[0]]]
    kept = [track for number, track in enumerate(kept) if not any(_same(track, other) for other in kept[:number])]
    kept.sort(key=lambda track: (track[0][0], track[0][1][0]))
    return [_warm(heat, track) for track in kept]


def _followed(heat: Float[np.ndarray, "t h w"], track: list) -> list:
    """The track with each region cut at a share of its own step's heat, and with the steps in which the thing is fainter:
    near where it should be, still a share of its usual heat."""
    found = {step: _around(heat[step], mask) for step, _, mask in track}
    usual = _FAINT * max(float(heat[step][mask].max()) for step, _, mask in track)
    reach = _NEAR * max(heat.shape[1:])
    rows, columns = np.indices(heat.shape[1:])
    outward = sorted(set(range(len(heat))) - set(found), key=lambda step: min(abs(step - other) for other in found))
    for step in outward:
        known = sorted(found, key=lambda other: abs(other - step))[:2]
        places = np.array([found[other][0] for other in known])
        share = (step - known[0]) / (known[-1] - known[0]) if len(known) > 1 else 0.0
        ahead = places[0] + (places[-1] - places[0]) * share
        if min(abs(step - other) for other in found) > 1 and not min(found) < step < max(found):
            continue        # it was lost the step before
        near = np.hypot(columns - ahead[0], rows - ahead[1]) <= reach
        near |= np.hypot(columns - places[0][0], rows - places[0][1]) <= reach
        local = np.where(near, heat[step], 0)
        if local.max() >= usual:
            seed = np.zeros_like(near)
            seed[np.unravel_index(local.argmax(), near.shape)] = True
            found[step] = _around(heat[step], seed)
    return [(step, *found[step]) for step in sorted(found)]


def _around(heat: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> tuple[np.ndarray, np.ndarray]:
    """Middle and mask of the region about the hottest patch of a mask, cut at a share of this patch's heat."""
    peak = np.unravel_index(np.where(mask, heat, -1).argmax(), heat.shape)
    region = next(region for region in _regions(heat, _SHARE * heat[peak]) if region[peak])
    return _middle(heat, region), region


def _same(one: list, other: list) -> bool:
    """Whether two tracks share most of their regions, after they were followed."""
    places = {step: mask for step, _, mask in other}
    shared = sum(bool((mask & places[step]).any()) for step, _, mask in one if step in places)
    return shared > len(one) / 2


def right_half(thing: Warm) -> Warm:
    """What is warm in the right half of a thing's boxes: two who fight make one region, and are told as two."""
    track = []
    for step in np.flatnonzero(thing.present):
        own = thing.heat[step] > 0
        x = find_objects(own.astype(np.int8))[0][1]
        kept = own & (np.arange(own.shape[1]) >= (x.start + x.stop) // 2)
        track.append((step, None, kept if kept.any() else own))
    return _warm(thing.heat, track)


def warm_boxes(boxes: Float[np.ndarray, "t 4"], grid: tuple[int, int]) -> Warm:
    """A known thing as a map of it alone would show it: warm in all patches of which its box (x1 y1 x2 y2 in patches, nan
    where it is not seen) takes a quarter of a side."""
    heat = np.zeros((len(boxes), *grid), np.float32)
    track = []
    for step, box in enumerate(boxes):
        if not np.isnan(box).any():
            left, top = (np.floor(box[:2] + 0.25).astype(int)).clip(0, (grid[1] - 1, grid[0] - 1))
            right, bottom = np.maximum(np.ceil(box[2:] - 0.25).astype(int), (left + 1, top + 1))
            heat[step, top:bottom, left:right] = 1
            track.append((step, None, heat[step] > 0))
    return _warm(heat, track)


def _regions(heat: Float[np.ndarray, "h w"], level: float) -> list[Bool[np.ndarray, "h w"]]:
    """The regions above a level; those with a gap of at most two patches between them are one."""
    hot = heat > level
    if not hot.any():
        return []
    numbers, count = label(binary_dilation(hot, _ROUND), _ROUND)
    return [(numbers == number) & hot for number in range(1, count + 1)]


def _middle(heat: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "2"]:
    """Column and row of the middle of a region's box, which is what the texts place."""
    own = find_objects(mask.astype(np.int8))[0]
    return np.array([(own[1].start + own[1].stop - 1) / 2, (own[0].start + own[0].stop - 1) / 2])


def _linked(alive: list, regions: list, *, reach: float) -> dict[int, list]:
    """The living track that each region goes on, by the regions' numbers; one to one, nearest in sum."""
    if not alive or not regions:
        return {}
    far = np.array([[np.linalg.norm(track[-1][1] - middle) for _, middle, _ in regions] for track in alive])
    return {column: alive[row] for row, column in zip(*linear_sum_assignment(np.minimum(far, 4 * reach)))
            if far[row, column] <= reach}


def _warm(heat: Float[np.ndarray, "t h w"], track: list) -> Warm:
    steps, rows, columns = heat.shape
    facts, own = np.zeros((steps, STEP_FACTS), np.float32), np.zeros_like(heat)
    size = np.array([columns, rows, columns, rows], np.float32)
    for step, _, mask in track:
        own[step][mask] = heat[step][mask]
        y, x = find_objects(mask.astype(np.int8))[0]
        box = 2 * np.array([x.start, y.start, x.stop, y.stop], np.float32) / size - 1
        weight = heat[step] * mask
        middle = np.array([weight.sum(0) @ np.arange(columns), weight.sum(1) @ np.arange(rows)]) / weight.sum()
        place = (2 * middle + 1) / size[:2] - 1
        facts[step] = [1, *place, *box, np.sqrt(mask.mean()), heat[step][mask].max()]
    return Warm(facts, own)
