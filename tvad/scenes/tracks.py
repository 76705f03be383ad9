"""Paths on the ground and trajectories over time.

A trajectory is computed once, when an actor is made, as a table on a fine time grid; its state at any instant is an
interpolation of two rows, so it is a pure function of time and costs a few microseconds.
"""

from __future__ import annotations

from math import atan2
from typing import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from tvad.scenes.types import MOTIONS, ActorState, Ground

STEP = 0.05  # seconds between rows of a trajectory
SPACING = 0.10  # metres between points of a path
LEGIBLE = 18.0  # pixels a metre at 240x360: a grown person is some 30 pixels high, and one sees what he does
ANYWHERE = 0.15  # share of the events that happen wherever they may, however small
RUN_ON = 5.0  # metres that a path is continued straight beyond its ends, so that nobody pops up in view


class Path:
    """A smooth walkable line: ``points`` every :data:`SPACING` metres, with headings."""

    def __init__(self, points: Float[np.ndarray, "k 2"], *, offset: float = 0.0, reverse: bool = False) -> None:
        line = np.asarray(points, float)
        if reverse:
            line = line[::-1]
        ends = []
        for end, before in ((line[0], line[1]), (line[-1], line[-2])):
            way = end - before
            ends.append(end + RUN_ON * way / (np.linalg.norm(way) + 1e-9))
        line = np.concatenate((ends[0][None], line, ends[1][None]))
        line = _resample(line)
        line = _soften(line)
        way = np.gradient(line, axis=0)
        way /= np.linalg.norm(way, axis=1, keepdims=True) + 1e-9
        line = _resample(line + offset * np.stack((-way[:, 1], way[:, 0]), axis=1))
        way = np.gradient(line, axis=0)
        self.points = line
        self.headings = np.unwrap(np.arctan2(way[:, 1], way[:, 0]))
        self.length = SPACING * (len(line) - 1)

    def at(self, distance: Float[np.ndarray, "n"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n"]]:
        """Points and headings at arc lengths, clamped to the ends."""
        where = np.clip(np.asarray(distance, float) / SPACING, 0, len(self.points) - 1)
        grid = np.arange(len(self.points))
        xy = np.stack((np.interp(where, grid, self.points[:, 0]), np.interp(where, grid, self.points[:, 1])), axis=-1)
        return xy, np.interp(where, grid, self.headings)

    def visible_span(self, ground: Ground) -> tuple[float, float]:
        """Arc lengths between which the path's longest run of visible points lies; (0, 0) if there is none."""
        seen = [bool(ground.visible(point)) for point in self.points[::3]] + [False]
        best, start = (0, 0), None
        for index, value in enumerate(seen):
            if value and start is None:
                start = index
            elif not value and start is not None:
                if index - start > best[1] - best[0]:
                    best = (start, index)
                start = None
        return best[0] * 3 * SPACING, min(self.length, max(0, best[1] - 1) * 3 * SPACING)


def _resample(line: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "n 2"]:
    gaps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    keep = np.concatenate(([True], gaps > 1e-6))
    line = line[keep]
    along = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))))
    wanted = np.arange(0.0, along[-1], SPACING)
    return np.stack((np.interp(wanted, along, line[:, 0]), np.interp(wanted, along, line[:, 1])), axis=1)


def _soften(line: Float[np.ndarray, "n 2"], width: int = 13) -> Float[np.ndarray, "n 2"]:
    """A moving average over about 1.3 m, so that people round corners."""
    padded = np.concatenate((np.repeat(line[:1], width // 2, 0), line, np.repeat(line[-1:], width // 2, 0)))
    kernel = np.ones(width) / width
    return np.stack([np.convolve(padded[:, axis], kernel, "valid") for axis in (0, 1)], axis=1)


def travelled(times: Float[np.ndarray, "n"], speed: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Distance covered since the first row."""
    return np.concatenate(([0.0], np.cumsum(0.5 * (speed[1:] + speed[:-1]) * np.diff(times))))


def grid(start: float, stop: float) -> Float[np.ndarray, "n"]:
    """The rows' times from ``start`` to at least ``stop``."""
    return start + STEP * np.arange(max(2, int(np.ceil((stop - start) / STEP)) + 2))


def facing(source: Sequence[float], target: Sequence[float]) -> float:
    """Heading from one ground point to another."""
    return atan2(target[1] - source[1], target[0] - source[0])


class Track:
    """A trajectory. All arrays have one row per instant of ``times`` (an even grid of :data:`STEP`).

    ``motion`` holds words of MOTIONS; ``clock`` is seconds since the current activity began; values of ``extra``
    are those of the nearest row.  States also carry ``extra["clock"]`` and ``extra["time"]``, both exact.
    """

    def __init__(
        self,
        times: Float[np.ndarray, "n"],
        xy: Float[np.ndarray, "n 2"],
        heading: Float[np.ndarray, "n"],
        *,
        speed: Float[np.ndarray, "n"],
        phase: Float[np.ndarray, "n"],
        motion: Sequence[str] | str,
        clock: Float[np.ndarray, "n"] | None = None,
        present: Bool[np.ndarray, "n"] | bool = True,
        anomalous: Bool[np.ndarray, "n"] | bool = False,
        extra: Mapping[str, Float[np.ndarray, "n"]] | None = None,
    ) -> None:
        n = len(times)
        self.times = times
        words = [motion] * n if isinstance(motion, str) else list(motion)
        clock = _clock(words) if clock is None else clock
        unknown = set(words) - set(MOTIONS)
        if unknown or len(words) != n:
            raise ValueError(
                f"track: {len(words)} motions for {n} rows, unknown: {sorted(unknown)}; use the words of MOTIONS"
            )
        self._start, self._n = float(times[0]), n
        # Plain lists index several times faster than arrays.
        self._x, self._y = xy[:, 0].tolist(), xy[:, 1].tolist()
        self._heading = np.unwrap(np.broadcast_to(heading, n)).tolist()
        self._speed, self._phase, self._clock = (np.broadcast_to(v, n).tolist() for v in (speed, phase, clock))
        self._words = words
        self.present, self.anomalous = (np.broadcast_to(v, n).astype(bool) for v in (present, anomalous))
        self._present, self._anomalous = self.present.tolist(), self.anomalous.tolist()
        self._extra = {name: np.broadcast_to(v, n).tolist() for name, v in (extra or {}).items()}
        self.xy = xy

    def at(self, time: float) -> ActorState:
        """The state at ``time``; absent before the first and after the last row."""
        where = (time - self._start) / STEP
        row = int(where)
        inside = 0.0 <= where <= self._n - 1
        row = max(0, min(self._n - 2, row))
        share = min(1.0, max(0.0, where - row))
        after = row + 1
        nearest = row if share < 0.5 else after
        x, y, h, p, v = self._x, self._y, self._heading, self._phase, self._speed
        clock = self._clock[row] + share * STEP if self._clock[after] >= self._clock[row] else self._clock[nearest]
        extra = {name: values[nearest] for name, values in self._extra.items()}
        extra["time"] = time
        extra["clock"] = clock if nearest == row or self._clock[after] >= self._clock[row] else 0.0
        return ActorState(
            position=np.array((x[row] + share * (x[after] - x[row]), y[row] + share * (y[after] - y[row]), 0.0)),
            heading=h[row] + share * (h[after] - h[row]),
            speed=v[row] + share * (v[after] - v[row]),
            motion=self._words[nearest],
            phase=p[row] + share * (p[after] - p[row]),
            present=inside and self._present[nearest],
            anomalous=inside and self._present[nearest] and self._anomalous[nearest],
            extra=extra,
        )


def _clock(words: Sequence[str]) -> Float[np.ndarray, "n"]:
    """Seconds since the word last changed."""
    clock = np.zeros(len(words))
    for row in range(1, len(words)):
        clock[row] = clock[row - 1] + STEP if words[row] == words[row - 1] else 0.0
    return clock


def choose_path(
    ground: Ground, rng: np.random.Generator, *, offset: float = 0.0, clear: bool = False
) -> tuple[Path, tuple[float, float]]:
    """A random path in a random direction and the span of it that is in view (longer views are likelier).

    ``clear``: paths along which a person is seen at :data:`LEGIBLE` size are preferred to others by their share of it.
    """
    options = []
    for points in ground.paths():
        path = Path(points, offset=offset, reverse=bool(rng.random() < 0.5))
        options.append((path, path.visible_span(ground)))
    weights = np.array([max(0.0, span[1] - span[0]) ** 0.7 for _, span in options])
    if not len(weights) or weights.sum() <= 0:
        raise ValueError(f"scene {ground.name!r}: no path is in view; give Ground.paths() lines that cross the frame")
    if clear:
        weights *= [0.02 + _legible(ground, path.at(np.linspace(*span, 9))[0]).mean() for path, span in options]
    return options[int(rng.choice(len(options), p=weights / weights.sum()))]


def _legible(ground: Ground, xy: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, "n"]:
    return np.array([ground.metre(point) >= LEGIBLE for point in xy])


def choose_distance(
    ground: Ground,
    rng: np.random.Generator,
    path: Path,
    span: tuple[float, float],
    *,
    low: float = 0.15,
    high: float = 0.85,
    clear: bool = False,
) -> float:
    """An arc length between the shares ``low`` and ``high`` of a span, mostly the nearer of two draws.

    ``clear``: drawn where a person is seen at :data:`LEGIBLE` size, if the span has such a place.
    """
    draws = span[0] + rng.uniform(low, high, 2) * (span[1] - span[0])
    if clear:
        places = np.linspace(span[0] + low * (span[1] - span[0]), span[0] + high * (span[1] - span[0]), 25)
        places = places[_legible(ground, path.at(places)[0])]
        draws = rng.choice(places, 2) if len(places) else draws
    depth = path.at(draws)[0][:, 1]
    near = int(depth.argmin())
    return float(draws[near] if rng.random() < 0.75 else draws[1 - near])


def choose_spot(
    ground: Ground, rng: np.random.Generator, *, room: float = 0.15, clear: bool = False
) -> tuple[Float[np.ndarray, "2"], float]:
    """A point in view on or beside a path, and the path's heading there; ``room`` keeps it off the ends of the view."""
    for _ in range(12):
        path, span = choose_path(ground, rng, offset=float(rng.uniform(-1.0, 1.0)), clear=clear)
        place = choose_distance(ground, rng, path, span, low=room, high=1.0 - room, clear=clear)
        xy, heading = path.at(np.array([place]))
        if ground.visible(xy[0]):
            break
    return xy[0], float(heading[0])


def is_clear(rng: np.random.Generator) -> bool:
    """Whether an event is placed where a person can name it; the others happen wherever they may."""
    return bool(rng.random() >= ANYWHERE)


def window(rng: np.random.Generator, duration: float, length: float) -> float:
    """Start of a window of ``length`` of which at least 60 % (of the shorter of the two) lie within the clip.

    One in ten is a glimpse: half a second may be all that the clip shows.
    """
    shorter = min(length, duration)
    least = min(0.5, shorter) if rng.random() < 0.1 else 0.6 * shorter
    return float(rng.uniform(least - length, duration - least))
