"""Things on four wheels, three or two that are driven, pushed or stood upon: cars, strollers, hand trucks, skateboards.

Geometry as in :mod:`tvad.scenes.vehicles`: one array in the thing's own frame, one product a frame.
"""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
from jaxtyping import Float

from tvad.scenes.body import place
from tvad.scenes.palette import shade
from tvad.scenes.types import PART_INDEX, Ball, Colour, Patch, Shape, Stroke
from tvad.scenes.vehicles import METAL, TYRE, ring

CAR, HAND_TRUCK = PART_INDEX["car"], PART_INDEX["hand_truck"]
STROLLER, SKATEBOARD = PART_INDEX["stroller"], PART_INDEX["skateboard"]
GLASS: Colour = (48, 58, 68)

# Half profiles of motor vehicles: (forward, up) corners of the side, metres, from the front bumper round over the roof.
_CARS: dict[str, dict] = {
    "car": dict(
        length=4.1,
        width=1.68,
        wheel=0.31,
        axles=(1.28, -1.22),
        belt=0.88,
        roof=1.44,
        nose=(2.05, 0.62),
        bonnet=(0.95, 0.90),
        roof_front=(0.25, 1.44),
        roof_rear=(-1.10, 1.42),
        tail=(-1.75, 0.95),
        rear=(-2.05, 0.85),
    ),
    "van": dict(
        length=4.6,
        width=1.80,
        wheel=0.33,
        axles=(1.45, -1.40),
        belt=1.05,
        roof=1.98,
        nose=(2.30, 0.75),
        bonnet=(1.85, 1.08),
        roof_front=(1.15, 1.95),
        roof_rear=(-2.22, 1.98),
        tail=(-2.28, 1.05),
        rear=(-2.30, 1.00),
    ),
    "cart": dict(
        length=2.9,
        width=1.30,
        wheel=0.26,
        axles=(0.95, -0.95),
        belt=0.80,
        roof=1.72,
        nose=(1.45, 0.55),
        bonnet=(1.15, 0.82),
        roof_front=(0.78, 1.72),
        roof_rear=(-0.25, 1.72),
        tail=(-0.32, 0.80),
        rear=(-1.45, 0.74),
    ),
}
CAR_KINDS: tuple[str, ...] = tuple(_CARS)


class Car:
    """A car, van or small utility cart; ``phase`` is the angle of the wheels."""

    def __init__(self, kind: str, colour: Colour, *, driver: Colour, load: Colour | None = None) -> None:
        spec = _CARS[kind]
        self._kind, self._spec = kind, spec
        half = spec["width"] / 2
        faces: list[tuple[list, Colour]] = []

        def both(profile: list[tuple[float, float]], paint: Colour, inset: float = 0.0) -> None:
            for way in (half - inset, -half + inset):
                faces.append(([(f, way, u) for f, u in profile], shade(paint, 0.86)))

        def across(
            a: tuple[float, float], b: tuple[float, float], paint: Colour, inset: tuple[float, float] = (0.0, 0.0)
        ) -> None:
            faces.append(
                (
                    [
                        (a[0], half - inset[0], a[1]),
                        (a[0], -half + inset[0], a[1]),
                        (b[0], -half + inset[1], b[1]),
                        (b[0], half - inset[1], b[1]),
                    ],
                    paint,
                )
            )

        nose, bonnet, front, back, tail, rear = (
            spec[k] for k in ("nose", "bonnet", "roof_front", "roof_rear", "tail", "rear")
        )
        belt = spec["belt"]
        low = 0.24
        middle = (front[0] + back[0]) / 2
        # Faces tile the body without overlap, and leave the wheel arches open, so that painting by mean distance never
        # hides a window or a wheel; the dark floor closes the arches.
        wide, arch = spec["wheel"] + 0.05, 1.75 * spec["wheel"]
        cuts = [nose[0]] + [axle + way * wide for axle in spec["axles"] for way in (1.0, -1.0)] + [rear[0]]
        for index, (f0, f1) in enumerate(zip(cuts[:-1], cuts[1:])):
            tops = [nose[1] + 0.08 if f > bonnet[0] + 0.45 else (rear[1] if f == rear[0] else belt) for f in (f0, f1)]
            bottom = arch if index in (1, 3) else low
            both([(f0, bottom), (f0, tops[0]), (f1, tops[1]), (f1, bottom)], colour)
        faces.append(
            (
                [
                    (nose[0] - 0.1, half - 0.08, low),
                    (nose[0] - 0.1, 0.08 - half, low),
                    (rear[0] + 0.1, 0.08 - half, low),
                    (rear[0] + 0.1, half - 0.08, low),
                ],
                (24, 24, 26),
            )
        )
        open_cab = kind == "cart"
        tint = 0.10
        if kind == "van":
            both([(bonnet[0] - 0.10, belt), (front[0], front[1]), (0.55, front[1]), (0.55, belt)], GLASS, tint)
            both([(0.55, belt), (0.55, front[1]), (back[0], back[1]), (tail[0], belt)], colour, tint * 0.5)
        else:
            both(
                [(bonnet[0] - 0.06, belt), (front[0], front[1]), (middle + 0.04, front[1]), (middle + 0.04, belt)],
                GLASS,
                tint,
            )
            both([(middle - 0.04, belt), (middle - 0.04, front[1]), (back[0], back[1]), (tail[0], belt)], GLASS, tint)
            both(
                [(middle + 0.04, belt), (middle + 0.04, front[1]), (middle - 0.04, front[1]), (middle - 0.04, belt)],
                colour,
                tint,
            )
        across((nose[0], low), nose, shade(colour, 0.78))
        across(nose, bonnet, shade(colour, 1.05), (0.0, 0.04))
        across(bonnet, front, GLASS, (0.05, tint))
        across(front, back, shade(colour, 1.14), (tint, tint))
        across(back, tail, shade(colour, 0.95) if kind == "van" else GLASS, (tint, 0.05))
        if open_cab:
            across((tail[0], 0.62), (rear[0], 0.62), (70, 70, 72))
        else:
            across(tail, rear, shade(colour, 0.98), (0.05, 0.0))
        across(rear, (rear[0], low), shade(colour, 0.72))
        if load is not None and open_cab:
            for way in (0.32, -0.32):
                faces.append(
                    (
                        [(-0.45, way, 0.62), (-0.45, way, 1.12), (-1.25, way, 1.12), (-1.25, way, 0.62)],
                        shade(load, 0.85),
                    )
                )
            faces.append(([(-0.45, 0.32, 1.12), (-0.45, -0.32, 1.12), (-1.25, -0.32, 1.12), (-1.25, 0.32, 1.12)], load))
            faces.append(
                (
                    [(-1.25, 0.32, 0.62), (-1.25, -0.32, 0.62), (-1.25, -0.32, 1.12), (-1.25, 0.32, 1.12)],
                    shade(load, 0.8),
                )
            )
        self._faces = [(index * 4, paint) for index, (_, paint) in enumerate(faces)]
        self._corners = 4 * len(faces)
        wheels = [
            ring(axle, way * (half - 0.03), spec["wheel"], points=11)[:-1]
            for axle in spec["axles"]
            for way in (1.0, -1.0)
        ]
        hubs = [
            ring(axle, way * (half + 0.01), 0.55 * spec["wheel"], points=7)[:-1] + (0.0, 0.0, 0.45 * spec["wheel"])
            for axle in spec["axles"]
            for way in (1.0, -1.0)
        ]
        lamps = [(nose[0] + 0.03, way * (half - 0.22), nose[1] - 0.04) for way in (1.0, -1.0)] + [
            (rear[0] - 0.03, way * (half - 0.15), rear[1] - 0.12) for way in (1.0, -1.0)
        ]
        self._local = np.concatenate([np.array(face) for face, _ in faces] + wheels + hubs + [np.array(lamps)])
        self._driver = driver
        self.length = spec["length"]

    def shapes(self, phase: float, speed: float, position: Float[np.ndarray, "3"], heading: float) -> list[Shape]:
        world = place(self._local, position, heading)
        shapes: list[Shape] = [Patch(world[k : k + 4], paint, CAR) for k, paint in self._faces]
        at = self._corners
        for index in range(4):
            shapes.append(Patch(world[at + 10 * index : at + 10 * index + 10], TYRE, CAR))
        at += 40
        for index in range(4):
            shapes.append(Patch(world[at + 6 * index : at + 6 * index + 6], METAL, CAR))
        at += 24
        for index in range(4):
            shapes.append(Ball(world[at + index], 0.09, (245, 242, 225) if index < 2 else (176, 22, 22), CAR))
        return shapes


def _box(f0: float, f1: float, l0: float, l1: float, u0: float, u1: float) -> list[Float[np.ndarray, "4 3"]]:
    """Five faces of a box (no bottom): left, right, rear, front, top."""

    def quad(*corners: tuple[float, float, float]) -> Float[np.ndarray, "4 3"]:
        return np.array(corners)

    return [
        quad((f0, l1, u0), (f1, l1, u0), (f1, l1, u1), (f0, l1, u1)),
        quad((f0, l0, u0), (f1, l0, u0), (f1, l0, u1), (f0, l0, u1)),
        quad((f0, l0, u0), (f0, l1, u0), (f0, l1, u1), (f0, l0, u1)),
        quad((f1, l0, u0), (f1, l1, u0), (f1, l1, u1), (f1, l0, u1)),
        quad((f0, l0, u1), (f1, l0, u1), (f1, l1, u1), (f0, l1, u1)),
    ]


class HandTruck:
    """An upright two-wheeled hand truck loaded with boxes; the pusher's feet are at the actor's ground point."""

    handle = (0.42, 1.02)  # forward, up

    def __init__(self, colour: Colour, boxes: list[tuple[Colour, float, float]]) -> None:
        """``boxes``: colour, height and half width of each, from the bottom up, metres."""
        parts, paints, up = [], [], 0.16
        for paint, height, half in boxes:
            faces = _box(0.02, 0.02 + 1.7 * half, -half, half, up, up + height)
            parts += faces
            paints += [
                shade(paint, 0.86),
                shade(paint, 0.86),
                shade(paint, 0.74),
                shade(paint, 0.92),
                shade(paint, 1.1),
            ]
            up += height + 0.01
        lean = 0.30
        corners = np.concatenate(parts)
        c, s = cos(lean), sin(lean)
        tilted = np.stack(
            (corners[:, 0] * c - corners[:, 2] * s, corners[:, 1], corners[:, 0] * s + corners[:, 2] * c), axis=1
        )
        tilted[:, 0] += 0.80
        rail = [(0.80, way * 0.20, 0.14) for way in (1.0, -1.0)] + [
            (self.handle[0], way * 0.20, self.handle[1] + 0.03) for way in (1.0, -1.0)
        ]
        frame = [rail[0], rail[2], rail[3], rail[1]]
        plate = [(0.80, 0.24, 0.12), (0.80, -0.24, 0.12), (1.12, -0.24, 0.20), (1.12, 0.24, 0.20)]
        self._local = np.concatenate(
            (
                tilted,
                np.array(frame),
                np.array(plate),
                ring(0.76, 0.26, 0.15, points=9),
                ring(0.76, -0.26, 0.15, points=9),
            )
        )
        self._paints, self._colour, self._n = paints, colour, len(tilted)

    def shapes(self, position: Float[np.ndarray, "3"], heading: float) -> list[Shape]:
        world, n = place(self._local, position, heading), self._n
        shapes: list[Shape] = [
            Patch(world[4 * k : 4 * k + 4], paint, HAND_TRUCK) for k, paint in enumerate(self._paints)
        ]
        shapes += [
            Stroke(world[n : n + 4], 0.026, self._colour, HAND_TRUCK),
            Patch(world[n + 4 : n + 8], shade(self._colour, 0.8), HAND_TRUCK),
            Stroke(world[n + 8 : n + 17], 0.05, TYRE, HAND_TRUCK),
            Stroke(world[n + 17 : n + 26], 0.05, TYRE, HAND_TRUCK),
        ]
        return shapes


class Stroller:
    """A baby stroller ahead of the person who pushes it."""

    handle = (0.40, 1.02)

    def __init__(self, colour: Colour, *, hood_up: bool) -> None:
        self._colour, self._hood = colour, hood_up
        wheel = 0.10
        hood = [(0.60, 0.0, 0.98)] + [
            (0.66 + 0.32 * cos(a), 0.0, 0.66 + 0.34 * sin(a)) for a in np.linspace(0.2 * pi, 0.95 * pi, 5)
        ]
        dome = [
            np.array([(f, way * 0.23, u) for f, _, u in hood[1:]] + [(0.66, way * 0.23, 0.62)]) for way in (1.0, -1.0)
        ]
        roof = [
            np.array(
                [
                    (hood[k][0], 0.23, hood[k][2]),
                    (hood[k][0], -0.23, hood[k][2]),
                    (hood[k + 1][0], -0.23, hood[k + 1][2]),
                    (hood[k + 1][0], 0.23, hood[k + 1][2]),
                ]
            )
            for k in range(1, 5)
        ]
        seat = _box(0.50, 1.12, -0.21, 0.21, 0.40, 0.64)
        self._local = np.concatenate(
            seat
            + dome
            + roof
            + [
                np.array([(self.handle[0], 0.20, self.handle[1]), (0.98, 0.24, 0.16)]),
                np.array([(self.handle[0], -0.20, self.handle[1]), (0.98, -0.24, 0.16)]),
                np.array([(0.50, 0.24, 0.14), (0.92, 0.24, 0.60)]),
                np.array([(0.50, -0.24, 0.14), (0.92, -0.24, 0.60)]),
                np.array([(self.handle[0], 0.22, self.handle[1]), (self.handle[0], -0.22, self.handle[1])]),
                np.array([(f, left, wheel) for f in (0.50, 1.02) for left in (0.25, -0.25)]),
                np.array([(0.72, 0.0, 0.80)]),
            ]
        )

    def shapes(self, position: Float[np.ndarray, "3"], heading: float) -> list[Shape]:
        world, colour = place(self._local, position, heading), self._colour
        tones = (0.9, 0.9, 0.8, 0.95, 0.6)
        shapes: list[Shape] = [
            Patch(world[4 * k : 4 * k + 4], shade(colour, tone), STROLLER) for k, tone in enumerate(tones)
        ]
        at = 20
        if self._hood:
            shapes += [Patch(world[at + 6 * k : at + 6 * k + 6], shade(colour, 0.92), STROLLER) for k in range(2)]
            shapes += [Patch(world[at + 12 + 4 * k : at + 16 + 4 * k], shade(colour, 1.08), STROLLER) for k in range(4)]
        else:
            shapes.append(Ball(world[-1], 0.11, (214, 170, 146), STROLLER))
        at += 28
        shapes += [Stroke(world[at + 2 * k : at + 2 * k + 2], 0.022, (96, 98, 102), STROLLER) for k in range(5)]
        at += 10
        shapes += [Ball(world[at + k], 0.10, TYRE, STROLLER) for k in range(4)]
        return shapes


_BOARD = np.array(
    [
        (0.44, 0.0, 0.15),
        (0.34, 0.0, 0.10),
        (-0.34, 0.0, 0.10),
        (-0.44, 0.0, 0.15),
        (0.27, 0.0, 0.035),
        (-0.27, 0.0, 0.035),
    ]
)


def skateboard(colour: Colour, position: Float[np.ndarray, "3"], heading: float) -> list[Shape]:
    """The board under a skater: deck and two pairs of wheels."""
    world = place(_BOARD, position, heading)
    return [
        Stroke(world[0:4], 0.045, colour, SKATEBOARD),
        Ball(world[4], 0.055, (225, 222, 210), SKATEBOARD),
        Ball(world[5], 0.055, (225, 222, 210), SKATEBOARD),
    ]


def random_boxes(rng: np.random.Generator) -> list[tuple[Colour, float, float]]:
    """Two or three cartons or crates for a hand truck, in cardboard and plain colours."""
    stack = []
    for _ in range(int(rng.integers(2, 4))):
        paint = ((186, 142, 92), (168, 126, 80), (200, 160, 112), (90, 110, 140), (206, 204, 198))[
            int(rng.integers(0, 5))
        ]
        stack.append(
            (
                shade(paint, float(rng.uniform(0.85, 1.1))),
                float(rng.uniform(0.26, 0.44)),
                float(rng.uniform(0.20, 0.28)),
            )
        )
    return stack
