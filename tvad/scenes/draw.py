"""From actors' 3-D shapes to pixels: anti-aliased colour, exact labels, and shadows on the ground.

Every limb becomes one convex outline (the hull of two discs) and every flat part one polygon; the geometry of many
frames is computed in one pass of numpy, so that only two OpenCV calls a shape remain: colour and labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from tvad.scenes.camera import NEAR, Camera
from tvad.scenes.types import Ball, Colour, Shape, Stroke

SHIFT = 4  # OpenCV's fractional bits: a sixteenth of a pixel
_SUB = 1 << SHIFT
_ARC = np.linspace(-math.pi / 2, math.pi / 2, 6)
_TURN = np.concatenate([_ARC, _ARC + math.pi])  # first half around the end, second half around the start
_ARROW = np.stack([np.cos(_TURN), np.sin(_TURN)], -1)
_AT_END = np.concatenate([np.ones(6), np.zeros(6)])[:, None]
_MIN_RADIUS = 0.42  # pixels: thin tubes stay visible, as they do in a soft lens
_GONE = 0.14  # pixels: below this radius (spokes) nothing is seen of a tube


@dataclass(frozen=True)
class Light:
    """Sun, sky and lamps.  ``sun`` 0 is overcast, 1 full sun; lamps are (x, y, reach in metres, strength)."""

    azimuth: float = 0.8
    elevation: float = 0.9
    sun: float = 0.6
    ambient: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    lamps: tuple[tuple[float, float, float, float], ...] = ()

    @property
    def direction(self) -> Float[np.ndarray, "3"]:
        """Unit vector towards the sun."""
        flat = math.cos(self.elevation)
        return np.array([flat * math.cos(self.azimuth), flat * math.sin(self.azimuth), math.sin(self.elevation)])

    def level(self, xy: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "..."]:
        """Brightness of ground points: the ambient level plus pools of lamp light."""
        level = np.full(np.shape(xy)[:-1], self.ambient, np.float64)
        for x, y, reach, strength in self.lamps:
            distance = (xy[..., 0] - x) ** 2 + (xy[..., 1] - y) ** 2
            level += strength / (1.0 + distance / reach**2) ** 1.5
        return level


@dataclass(frozen=True)
class Grade:
    """What lens, sensor and codec make of a colour: gain, offset, saturation, haze; ``grey`` keeps luma alone."""

    gain: float = 1.0
    offset: float = 0.0
    saturation: float = 0.85
    grey: bool = False

    def __call__(self, colours: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
        """Graded colours, 0..255; all three channels are equal when ``grey``."""
        luma = colours @ np.array([0.299, 0.587, 0.114])
        share = 0.0 if self.grey else self.saturation
        mixed = luma[..., None] + share * (colours - luma[..., None])
        return np.clip(mixed * self.gain + self.offset, 0, 255)


@dataclass(frozen=True)
class Outlines:
    """Outlines of one actor in one frame, far to near, ready for OpenCV (fixed point, ``SHIFT`` bits)."""

    polygons: list[np.ndarray]
    colours: list[list[float]]
    parts: list[int]  # -1: highlight, colour only
    low: tuple[float, float]  # x, y of the box around all outlines, pixels
    high: tuple[float, float]


EMPTY = Outlines([], [], [], (0.0, 0.0), (0.0, 0.0))


@dataclass(frozen=True)
class Geometry:
    """The shapes of many groups (actors in frames) as flat arrays: points, segments between points, and polygons."""

    points: Float[np.ndarray, "p 3"]
    shape_of: np.ndarray  # (p,) shape of each point
    group_of: np.ndarray  # (s,) group of each shape
    part_of: np.ndarray  # (s,)
    colour_of: Float[np.ndarray, "s 3"]
    ends: np.ndarray  # (k, 2) first and last point of each segment
    radii: Float[np.ndarray, "k 2"]  # metres, at either end
    polygons: np.ndarray  # (q, 3) first point, one past the last, shape
    groups: int


def flatten(groups: Sequence[Sequence[Shape]]) -> Geometry:
    """One pass over the shapes; a stroke of k points becomes k - 1 segments, a ball one segment of no length."""
    points: list[np.ndarray] = []
    rows: list[tuple] = []  # points, radius, end radius, part; a patch has radius -1
    colours: list[Colour] = []
    for shapes in groups:
        for shape in shapes:
            kind = type(shape)
            colours.append(shape.colour)
            if kind is Ball:
                points.append(shape.centre)
                rows.append((1, shape.radius, shape.radius, shape.part))
            elif kind is Stroke:
                points.append(shape.points.ravel())
                radius, last = shape.radius, shape.end_radius
                rows.append((len(shape.points), radius, radius if last is None else last, shape.part))
            else:
                points.append(shape.points.ravel())
                rows.append((len(shape.points), -1.0, -1.0, shape.part))
    table = np.array(rows, np.float64).reshape(-1, 4)
    counts = table[:, 0].astype(int)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]) if len(counts) else counts
    flat = np.concatenate(points).reshape(-1, 3).astype(np.float64) if points else np.zeros((0, 3))
    round_ = table[:, 1] >= 0
    steps = np.where(round_, np.maximum(counts - 1, 1), 0)
    shape = np.repeat(np.arange(len(rows)), steps)
    index = np.arange(len(shape)) - np.repeat(np.cumsum(steps) - steps, steps)
    begin = first[shape] + index
    ends = np.stack([begin, begin + (counts[shape] > 1)], 1)
    slope = ((table[:, 2] - table[:, 1]) / np.maximum(steps, 1))[shape]
    start = table[shape, 1] + slope * index
    flats = np.flatnonzero(~round_)
    return Geometry(
        flat,
        np.repeat(np.arange(len(rows)), counts),
        np.repeat(np.arange(len(groups)), [len(one) for one in groups]),
        table[:, 3].astype(int),
        np.array(colours, np.float64).reshape(-1, 3),
        ends,
        np.stack([start, start + slope], 1),
        np.stack([first[flats], first[flats] + counts[flats], flats], 1),
        len(groups),
    )


def _capsules(a: np.ndarray, b: np.ndarray, start: np.ndarray, end: np.ndarray) -> Float[np.ndarray, "n 12 2"]:
    """Hulls of the discs around pixels ``a`` and ``b`` with radii ``start`` and ``end``."""
    along = b - a
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    way = np.where(length > 1e-6, along / length, (1.0, 0.0))
    radius = np.where(_AT_END[:, 0] > 0, end[:, None], start[:, None])
    x = way[:, :1] * _ARROW[:, 0] - way[:, 1:] * _ARROW[:, 1]
    y = way[:, 1:] * _ARROW[:, 0] + way[:, :1] * _ARROW[:, 1]
    return a[:, None] + _AT_END * along[:, None] + radius[..., None] * np.stack([x, y], -1)


def _fixed(pixels: np.ndarray) -> np.ndarray:
    """OpenCV's fixed point; its pixel centres lie at whole numbers, ours at halves."""
    return np.round((np.clip(pixels, -4000, 4000) - 0.5) * _SUB).astype(np.int32)


def outline(
    shapes: Geometry,
    centres: Float[np.ndarray, "g 3"],
    *,
    camera: Camera,
    light: Light,
    grade: Grade,
    size: tuple[int, int],
    shade: Float[np.ndarray, "g"] | None = None,
) -> list[Outlines]:
    """Outlines of each group of shapes (an actor in a frame); ``centres`` are the actors' ground points.

    ``shade`` is the share of light that reaches each group.  Shading: the side towards the sun is brighter, the foot of
    things darker, flat parts follow their slope.  Shapes of a group are ordered by the distance of their mean point.
    """
    result = [EMPTY] * shapes.groups
    flat, ends, polygons = shapes.points, shapes.ends, shapes.polygons
    if not len(flat):
        return result
    pixels, depth = camera.project(flat, size=size)
    per_pixel = camera.focal * size[0] / np.maximum(depth, NEAR)
    counts = np.bincount(shapes.shape_of)
    far = np.bincount(shapes.shape_of, depth) / counts
    shown = np.minimum.reduceat(depth, np.cumsum(counts) - counts) > NEAR
    levels = light.level(centres[:, :2]) * (1.0 if shade is None else shade)
    base = shapes.colour_of * np.array(light.tint) * levels[shapes.group_of][:, None]
    towards = light.direction

    first, last = ends.T
    shape = shapes.shape_of[first]
    width = np.maximum(shapes.radii * per_pixel[ends], _MIN_RADIUS)
    hulls = _capsules(pixels[first], pixels[last], width[:, 0], width[:, 1])
    middle = (flat[first] + flat[last]) / 2
    side = np.clip((middle - centres[shapes.group_of[shape]])[:, :2] @ towards[:2] * 2.5, -1, 1)
    tone = 0.80 + 0.2 * np.clip(middle[:, 2] / 1.5, 0, 1) + 0.16 * light.sun * side
    limbs = grade(base[shape] * tone[:, None])
    keep = np.flatnonzero(shown[shape] & (shapes.radii[:, 0] * per_pixel[first] > _GONE))
    # a lighter streak on the sunny side rounds the limbs that are wide enough to show it
    wide = np.flatnonzero(shown[shape] & (width[:, 0] > 2.2) & (shapes.radii[:, 0] > 0.05))
    lean = camera.axes[:2] @ np.array([towards[0], towards[1], 0.6])
    shift = (lean / (np.linalg.norm(lean) + 1e-9) * (1, -1)) * (0.38 * width[wide, :1])
    streaks = _capsules(
        pixels[first[wide]] + shift, pixels[last[wide]] + shift, width[wide, 0] * 0.5, width[wide, 1] * 0.5
    )
    bright = np.clip(limbs[wide] * (1.06 + 0.14 * light.sun) + 2, 0, 255)

    corner, stop, owner = polygons.T
    normal = (
        np.cross(flat[corner + 1] - flat[corner], flat[corner + 2] - flat[corner])
        if len(polygons)
        else np.zeros((0, 3))
    )
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    facing = np.sign(np.sum(normal * (camera.position - flat[corner]), 1))
    slope = (normal * facing[:, None]) @ towards
    tone = (0.80 + 0.16 * np.abs(normal[:, 2])) * (1 - 0.18 * light.sun) + 0.34 * light.sun * np.maximum(slope, 0)
    faces = grade(base[owner] * tone[:, None])
    flats = np.flatnonzero(shown[owner])
    fixed = _fixed(pixels)

    drawings = [
        *_fixed(hulls[keep]),
        *_fixed(streaks),
        *(fixed[a:b] for a, b in zip(corner[flats].tolist(), stop[flats].tolist())),
    ]
    colours = np.concatenate([limbs[keep], bright, faces[flats]])
    parts = np.concatenate([shapes.part_of[shape[keep]], np.full(len(wide), -1), shapes.part_of[owner[flats]]])
    whose = np.concatenate([shape[keep], shape[wide], owner[flats]])
    within = np.concatenate([keep, wide + 0.5, flats])
    order = np.lexsort((within, whose, -far[whose], shapes.group_of[whose]))
    colours, parts = colours[order].tolist(), parts[order].tolist()
    borders = np.searchsorted(shapes.group_of[whose][order], np.arange(shapes.groups + 1)).tolist()
    order = order.tolist()
    low, high = _extents(shapes, pixels, width)
    for group in range(shapes.groups):
        a, b = borders[group], borders[group + 1]
        if b > a:
            result[group] = Outlines(
                [drawings[index] for index in order[a:b]], colours[a:b], parts[a:b], low[group], high[group]
            )
    return result


def _extents(shapes: Geometry, pixels: np.ndarray, width: np.ndarray) -> tuple[list[list[float]], list[list[float]]]:
    """Corners of the box, in pixels, around each group."""
    margin = np.zeros(len(pixels))
    np.maximum.at(margin, shapes.ends, width)
    group = shapes.group_of[shapes.shape_of]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    low, high = np.full((shapes.groups, 2), 1e9), np.full((shapes.groups, 2), -1e9)
    low[group[starts]] = np.minimum.reduceat(pixels - margin[:, None], starts)
    high[group[starts]] = np.maximum.reduceat(pixels + margin[:, None], starts)
    return low.tolist(), high.tolist()


def paint_outlines(
    outlines: Outlines, frame: UInt8[np.ndarray, "h w c"], labels: UInt8[np.ndarray, "h w 2"], *, identity: int
) -> None:
    """Draw one actor on ``frame`` (anti-aliased) and on ``labels`` (exact: identity, part), in place."""
    fill, smooth = cv2.fillConvexPoly, cv2.LINE_AA
    for polygon, colour, part in zip(outlines.polygons, outlines.colours, outlines.parts):
        fill(frame, polygon, colour, smooth, SHIFT)
        if part >= 0:
            fill(labels, polygon, (identity, part, 0, 0), cv2.LINE_8, SHIFT)


def region(outlines: Outlines, *, size: tuple[int, int], margin: int = 2) -> tuple[int, int, int, int] | None:
    """Rows and columns (top, bottom, left, right) that the outlines can touch; None when all lie outside."""
    left, top = (int(max(math.floor(value) - margin, 0)) for value in outlines.low)
    right, bottom = (math.ceil(value) + margin for value in outlines.high)
    right, bottom = int(min(right, size[1])), int(min(bottom, size[0]))
    return (top, bottom, left, right) if outlines.polygons and top < bottom and left < right else None


def cast_shadows(shapes: Geometry, *, camera: Camera, light: Light, size: tuple[int, int]) -> list[list[np.ndarray]]:
    """Outlines, on the ground, of the shadow of each group: the shapes moved along the light to z = 0.

    Under an overcast sky the light falls from above and the shadow is the patch beneath the feet.
    """
    result: list[list[np.ndarray]] = [[] for _ in range(shapes.groups)]
    flat = shapes.points
    if not len(flat):
        return result
    x, y, z = light.direction if light.sun > 0.15 else np.array([0.05, 0.05, 1.0])
    fallen = np.zeros_like(flat)
    fallen[:, :2] = flat[:, :2] - flat[:, 2:] * np.array([x, y]) / max(z, 0.2)
    pixels, depth = camera.project(fallen, size=size)
    per_pixel = camera.focal * size[0] / np.maximum(depth, NEAR)
    safe = depth > NEAR
    # arms, legs and trunks; spokes and straps cast nothing that shows
    keep = np.flatnonzero((shapes.radii[:, 0] > 0.03) & safe[shapes.ends].all(1))
    first, last = shapes.ends[keep].T
    width = 0.9 * np.maximum(shapes.radii[keep] * per_pixel[shapes.ends[keep]], 0.5)
    hulls = _fixed(_capsules(pixels[first], pixels[last], width[:, 0], width[:, 1]))
    for group, hull in zip(shapes.group_of[shapes.shape_of[first]].tolist(), hulls):
        result[group].append(hull)
    fixed = _fixed(pixels)
    for start, stop, shape in shapes.polygons.tolist():
        if safe[start:stop].all():
            result[shapes.group_of[shape]].append(fixed[start:stop])
    return result
