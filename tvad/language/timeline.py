"""A target's track to its timeline: when it enters and leaves, where it is in each frame, which way it goes, how fast.

The thesis named the 3x3 cell of the centroid frame by frame, and its captions tremble with every step a person takes.
Here positions are smoothed, a cell is left only when its border is clearly crossed, and the path is the few straight
legs that stay within reach of the smoothed positions; all tolerances grow with the target, so that near and far targets
are told alike.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import median_filter, uniform_filter1d

from tvad.language.grammar import PLACES, STOP, Path, parse, phrase
from tvad.language.tracks import MaskError, MaskTrack

__all__ = ["MOTION_STATES", "SPEEDS", "Leg", "Pace", "Path", "Timeline", "pace_of", "parse", "phrase", "timeline_of"]

SPEEDS: tuple[str, ...] = ("still", "slow", "walking", "fast", "very fast")
MOTION_STATES: tuple[str, ...] = ("staying", "moving", "stop-and-go")     # told where no motion word is given
_BOUNDS = (0.6, 1.6, 3.2)      # shares of the pedestrians' pace that divide slow, walking, fast, very fast
_HEIGHTS = 0.075               # heights that a pedestrian walks in a frame at 10 frames/s: 1.3 m/s, 1.75 m tall


@dataclass(frozen=True)
class Leg:
    """One piece of a path: ``way`` is a WAY of the grammar or STOP, in frames ``start`` to ``stop`` (exclusive)."""

    way: str
    start: int
    stop: int


@dataclass(frozen=True)
class Timeline:
    """What one target does in a clip.

    ``entry`` and ``exit`` are the first and the last frame in which it is seen.  ``places`` has one of PLACES for each
    frame from entry to exit; where it is hidden for a while, the place between.  ``origin`` and ``destination`` are
    where it is first and last seen, ``begins`` and ``ends`` how (BEGINNINGS, ENDINGS of the grammar).  ``speed`` is of
    SPEEDS, relative to the scene's pedestrians.  ``motion`` is the word given for it, else one of MOTION_STATES.
    """

    entry: int
    exit: int
    places: tuple[str, ...]
    legs: tuple[Leg, ...]
    origin: str
    destination: str
    speed: str
    motion: str | None
    begins: str
    ends: str

    @property
    def path(self) -> Path:
        """The part of it that :func:`phrase` tells and :func:`parse` reads."""
        return Path(self.begins, self.origin, tuple(leg.way for leg in self.legs), self.ends, self.destination)


@dataclass(frozen=True)
class Pace:
    """How many pixels a frame pedestrians of a scene walk at image row y (of their middle): ``intercept + slope * y``,
    at least ``least``.  Linear in y as the scale of a ground plane is."""

    intercept: float
    slope: float = 0.0
    least: float = 0.2

    def at(self, y: Float[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
        """Pixels a frame at rows ``y``."""
        return np.maximum(self.least, self.intercept + self.slope * np.asarray(y, float))


def pace_of(walkers: Sequence[MaskTrack]) -> Pace | None:
    """The pace of ordinary pedestrians, from their tracks; None if these show no two seconds of walking in all.

    A line through the medians of thirds of the rows, which a few that stand or hurry do not move.
    """
    rows, speeds = [], []
    for walker in walkers:
        centres, frames = walker.centres, walker.frames
        step = np.flatnonzero(frames[5:] - frames[:-5] == 5) if len(frames) > 5 else np.zeros(0, int)
        rows.append(centres[step, 1])
        speeds.append(np.linalg.norm(centres[step + 5] - centres[step], axis=1) / 5)
    row, speed = np.concatenate(rows or [np.zeros(0)]), np.concatenate(speeds or [np.zeros(0)])
    moving = speed > 0.25 * np.median(speed) if len(speed) else np.zeros(0, bool)
    row, speed = row[moving], speed[moving]
    if len(row) < 20:
        return None
    order = np.argsort(row, kind="stable")
    thirds = np.array([(np.median(row[part]), np.median(speed[part])) for part in np.array_split(order, 3)])
    (y0, v0), _, (y1, v1) = thirds
    slope = max(0.0, (v1 - v0) / (y1 - y0)) if y1 - y0 > 5 else 0.0
    middle = thirds.mean(axis=0)
    return Pace(float(middle[1] - slope * middle[0]), float(slope), least=float(0.3 * np.median(speed)))


def timeline_of(
    track: MaskTrack,
    *,
    frames: int,
    size: tuple[int, int],
    pace: Pace | float | None = None,
    motion: str | None = None,
) -> Timeline:
    """The timeline of a track in a clip.

    Args:
        track: with frames counted from the clip's first.
        frames: of the clip: who is there in the last has not left.
        size: (height, width) of the masks.
        pace: of the scene's pedestrians, as :func:`pace_of` finds it or in pixels a frame; where it is not known, that of
            a pedestrian as high as the target, at 10 frames a second.
        motion: the word for what the target does; where None, one of MOTION_STATES from the path.

    Raises:
        MaskError: a track that reaches beyond the clip or the picture, or a pace that is none.
    """
    height, width = size
    if track.frames[-1] >= frames:
        raise MaskError(f"track {track.id} is seen in frame {track.frames[-1]}, the clip has {frames}; count its frames "
                        "from the clip's first")
    if track.boxes[:, :2].min() < 0 or track.boxes[:, 2].max() >= width or track.boxes[:, 3].max() >= height:
        raise MaskError(f"track {track.id}: a box reaches beyond the picture of {height}x{width} (height x width); give "
                        "the size of the masks it was made from")
    entry, leave = int(track.frames[0]), int(track.frames[-1])
    when = np.arange(entry, leave + 1)
    box = np.stack([np.interp(when, track.frames, track.boxes[:, side]) for side in range(4)], axis=1)
    walk = _smooth(_middles(box, size))
    high = float(np.median(box[:, 3] - box[:, 1] + 1))
    if pace is None:
        pace = Pace(max(0.2, _HEIGHTS * high))
    elif not isinstance(pace, Pace):
        if not (np.isfinite(pace) and pace > 0):
            raise MaskError(f"pace must be pixels a frame above 0, got {pace}; leave it out to take the target's height")
        pace = Pace(float(pace))
    usual = pace.at(walk[:, 1])
    reach = max(0.03 * min(size), 0.5 * min(high, float(np.median(box[:, 2] - box[:, 0] + 1))))
    legs = _legs(walk, usual, reach=reach, least=max(0.03 * min(size), 0.5 * reach))
    borders = [_borders(box, size, end) for end in (0, -1)]
    begins = "starts" if entry == 0 else "enters" if borders[0] else "appears"
    ends = "stays" if leave == frames - 1 else "leaves" if borders[1] else "disappears"
    places = _places(walk, size)
    moving = {leg.way != STOP for leg in legs}
    state = MOTION_STATES[2 if len(moving) == 2 else int(True in moving)]
    return Timeline(
        entry=entry, exit=leave, places=places, begins=begins, ends=ends,
        origin=_at_border(walk[0], size, borders[0]) if begins == "enters" else places[0],
        destination=_at_border(walk[-1], size, borders[1]) if ends == "leaves" else places[-1],
        legs=tuple(Leg(leg.way, leg.start + entry, leg.stop + entry) for leg in legs),
        speed=_speed(walk, usual, legs), motion=motion or state,
    )


def _middles(box: Float[np.ndarray, "n 4"], size: tuple[int, int]) -> Float[np.ndarray, "n 2"]:
    """Middles of the whole target: where one border of the picture cuts it, half its side as last seen whole from its
    other edge.  Else whoever enters would seem to walk at half speed."""
    frames, middles = np.arange(len(box)), []
    for axis, extent in ((0, size[1]), (1, size[0])):
        low, high = box[:, axis], box[:, axis + 2]
        cut_low, cut_high = low <= 1, high >= extent - 2
        side, whole = high - low, np.flatnonzero(~(cut_low | cut_high))
        if len(whole):
            place = np.clip(np.searchsorted(whole, frames), 1, max(1, len(whole) - 1))
            before, after = whole[place - 1], whole[np.minimum(place, len(whole) - 1)]
            nearest = np.where(np.abs(frames - before) <= np.abs(frames - after), before, after)
            side = np.maximum(side, side[nearest])
        middle = (low + high) / 2
        middle = np.where(cut_low & ~cut_high, high - side / 2, middle)
        middles.append(np.where(cut_high & ~cut_low, low + side / 2, middle))
    return np.stack(middles, axis=1)


def _smooth(walk: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Median over 5 frames against leaps, mean over 5 against the swing of limbs."""
    if len(walk) < 3:
        return walk
    width = min(5, len(walk) // 2 * 2 - 1 if len(walk) > 3 else 3)
    walk = median_filter(walk, size=(width, 1), mode="nearest")
    return uniform_filter1d(walk, width, axis=0, mode="nearest")


def _borders(box: Float[np.ndarray, "n 4"], size: tuple[int, int], end: int) -> tuple[str, ...]:
    """Names of the borders that the first (``end`` 0) or last (-1) box touches, or would a frame further on."""
    height, width = size
    few = min(len(box) - 1, 3)
    at, inner = (0, few) if end == 0 else (len(box) - 1, len(box) - 1 - few)
    onward = (box[at] - box[inner]) / max(1, few)
    sides = {"left": (0, -1, 0), "top": (1, -1, 0), "right": (2, 1, width - 1), "bottom": (3, 1, height - 1)}
    reach = max(2.0, 0.01 * min(size))
    found = []
    for name, (column, sign, border) in sides.items():
        distance = sign * (border - box[at, column])
        step = max(0.0, sign * float(onward[[column % 2, column % 2 + 2]].mean()))
        if distance <= max(reach, step):
            found.append(name)
    return tuple(found)


def _cell(point: Float[np.ndarray, "2"], size: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the 3x3 cell."""
    return tuple(int(np.clip(3 * value // extent, 0, 2)) for value, extent in zip(point[::-1], size))


def _at_border(point: Float[np.ndarray, "2"], size: tuple[int, int], borders: tuple[str, ...]) -> str:
    """The place at the borders touched: a target cut by the left border is at the left, however wide it is."""
    row, column = _cell(point, size)
    row = 0 if "top" in borders else 2 if "bottom" in borders else row
    column = 0 if "left" in borders else 2 if "right" in borders else column
    return PLACES[3 * row + column]


def _places(walk: Float[np.ndarray, "n 2"], size: tuple[int, int], margin: float = 0.02) -> tuple[str, ...]:
    """Cells frame by frame; one is left where its border is passed by ``margin`` of the picture's side."""
    columns = []
    for axis, extent in ((1, size[0]), (0, size[1])):
        share = walk[:, axis] / extent
        cells, now = [], int(np.clip(3 * share[0], 0, 2))
        for value in share.tolist():
            if value < now / 3 - margin or value > (now + 1) / 3 + margin:
                now = min(2, max(0, int(3 * value)))
            cells.append(now)
        columns.append(cells)
    return tuple(PLACES[3 * row + column] for row, column in zip(*columns))


def _legs(walk: Float[np.ndarray, "n 2"], usual: Float[np.ndarray, "n"], *, reach: float, least: float) -> list[Leg]:
    """Stops and straight legs. ``reach``: how far from a straight line one may stray; ``least``: length of a leg.

    Less than a body's width is a leg already: a car that drives its own length in a clip does not stay.
    """
    count = len(walk)
    pieces: list[Leg] = []
    for start, stop, moves in _runs(_moving(walk, usual, least=least)):
        if not moves:
            pieces.append(Leg(STOP, start, stop))
            continue
        corners = _corners(walk[start:stop], reach)
        for first, last in zip(corners, corners[1:]):
            pieces.append(Leg(_way(walk[start + last] - walk[start + first]), start + first, start + last))
        pieces[-1] = Leg(pieces[-1].way, pieces[-1].start, stop)
    return _joined(pieces, walk, least) or [Leg(STOP, 0, count)]


def _moving(walk: Float[np.ndarray, "n 2"], usual: Float[np.ndarray, "n"], *, least: float) -> Bool[np.ndarray, "n"]:
    """Where it walks: faster than a third of the pace over half a second each way; moves and stops that are too short
    are none."""
    count = len(walk)
    index = np.arange(count)
    before, after = np.maximum(index - 5, 0), np.minimum(index + 5, count - 1)
    speed = np.linalg.norm(walk[after] - walk[before], axis=1) / np.maximum(after - before, 1)
    moving = speed > 0.35 * usual
    for start, stop, moves in _runs(moving):  # a short halt is none
        if not moves and stop - start < 10 and count > 10:
            moving[start:stop] = True
    for start, stop, moves in _runs(moving):
        spread = np.ptp(walk[start:stop], axis=0).max() if moves else 0.0
        if moves and spread < least:
            moving[start:stop] = False
    return moving


def _runs(values: Bool[np.ndarray, "n"]) -> list[tuple[int, int, bool]]:
    edges = np.flatnonzero(np.diff(values.astype(np.int8))) + 1
    bounds = [0, *edges.tolist(), len(values)]
    return [(start, stop, bool(values[start])) for start, stop in zip(bounds, bounds[1:])]


def _corners(walk: Float[np.ndarray, "n 2"], reach: float) -> list[int]:
    """Indices of the corners of the polyline that stays within ``reach`` of the walk (Douglas and Peucker, 1973)."""
    corners, waiting = {0, len(walk) - 1}, [(0, len(walk) - 1)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        along = walk[last] - walk[first]
        away = walk[first:last + 1] - walk[first]
        share = np.clip(away @ along / max(float(along @ along), 1e-9), 0, 1)
        distance = np.linalg.norm(away - share[:, None] * along, axis=1)
        worst = int(distance.argmax())
        if distance[worst] > reach:
            corners.add(first + worst)
            waiting += [(first, first + worst), (first + worst, last)]
    return sorted(corners)


def _way(step: Float[np.ndarray, "2"]) -> str:
    """The nearest of the eight ways of the grammar."""
    eighth = int(np.round(np.arctan2(-step[1], step[0]) / (np.pi / 4))) % 8
    return ("right", "top-right", "top", "top-left", "left", "bottom-left", "bottom", "bottom-right")[eighth]


def _joined(pieces: list[Leg], walk: Float[np.ndarray, "n 2"], least: float) -> list[Leg]:
    """Neighbours of one way as one; a leg too short to be told goes to its longer moving neighbour."""
    last = len(walk) - 1

    def length(leg: Leg) -> float:
        return float(np.linalg.norm(walk[min(leg.stop, last)] - walk[leg.start]))

    pieces = list(pieces)
    while len(pieces) > 1:
        same = next((k for k in range(len(pieces) - 1) if pieces[k].way == pieces[k + 1].way), None)
        if same is not None:
            pieces[same:same + 2] = [Leg(pieces[same].way, pieces[same].start, pieces[same + 1].stop)]
            continue
        short = [k for k, leg in enumerate(pieces) if leg.way != STOP and length(leg) < least]
        if not short:
            break
        here = min(short, key=lambda k: length(pieces[k]))
        beside = [k for k in (here - 1, here + 1) if 0 <= k < len(pieces)]
        moving = [k for k in beside if pieces[k].way != STOP]
        other = max(moving or beside, key=lambda k: length(pieces[k]))
        low, high = sorted((here, other))
        start, stop = pieces[low].start, pieces[high].stop
        way = _way(walk[min(stop, last)] - walk[start]) if pieces[other].way != STOP else STOP
        pieces[low:high + 1] = [Leg(way, start, stop)]
    return pieces


def _speed(walk: Float[np.ndarray, "n 2"], usual: Float[np.ndarray, "n"], legs: list[Leg]) -> str:
    """Class of the median speed while it moves."""
    index = np.concatenate([np.arange(leg.start, leg.stop) for leg in legs if leg.way != STOP] or [np.zeros(0, int)])
    if not len(index) or len(walk) < 2:
        return SPEEDS[0]
    before, after = np.maximum(index - 3, 0), np.minimum(index + 3, len(walk) - 1)
    speed = np.linalg.norm(walk[after] - walk[before], axis=1) / np.maximum(after - before, 1)
    return SPEEDS[1 + int(np.searchsorted(_BOUNDS, np.median(speed / usual[index])))]
