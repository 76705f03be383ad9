"""Bicycles and motorcycles with their riders, as shapes.

Every class keeps its geometry as one array in its own frame (f forward, l left, u up, metres) and moves it into the
world with one product a frame.  Wheels are rings of few points.
"""

from __future__ import annotations

from math import cos, sin

import numpy as np
from jaxtyping import Float

from tvad.scenes.body import TAU, Body, Figure, Foot, Pose, Reach, place
from tvad.scenes.palette import shade
from tvad.scenes.poses import walk
from tvad.scenes.types import PART_INDEX, Ball, Colour, Patch, Shape, Stroke

BICYCLE, MOTORCYCLE = PART_INDEX["bicycle"], PART_INDEX["motorcycle"]
TYRE: Colour = (30, 30, 32)
METAL: Colour = (150, 152, 156)


def ring(forward: float, left: float, radius: float, *, points: int = 13) -> Float[np.ndarray, "k 3"]:
    """A closed upright circle standing on the ground; the last point repeats the first."""
    turn = np.linspace(0.0, TAU, points)
    return np.stack((forward + radius * np.cos(turn), np.full(points, left), radius + radius * np.sin(turn)), axis=1)


class Bicycle:
    """A bicycle and its pedalling rider. ``phase`` is the angle of the cranks."""

    def __init__(self, rider: Figure, colour: Colour, *, upright: bool) -> None:
        self._rider, self._colour, self._upright = rider, colour, upright
        size = min(1.0, rider.body.height / 1.66)
        self._wheel = 0.345 * size
        base = 0.54 * size
        self._hub = base
        self._saddle = (-0.20 * size, 0.0, 0.58 * rider.body.height * 0.96)
        self._bracket = (-0.05 * size, 0.0, 0.29 * size)
        grip_forward, grip_up = (0.34 * size, 1.10 * size) if upright else (0.46 * size, 0.98 * size)
        self._grip = (grip_forward, 0.22, grip_up)
        head = (0.38 * size, 0.0, 0.84 * size)
        seat = (self._saddle[0] + 0.03, 0.0, self._saddle[2] - 0.06)
        frame = [(-base, 0.0, self._wheel), self._bracket, head, seat, (-base, 0.0, self._wheel)]
        self._local = np.concatenate(
            (
                ring(-base, 0.0, self._wheel),
                ring(base, 0.0, self._wheel),  # 0:13, 13:26
                np.array(frame),
                np.array([self._bracket, seat]),  # 26:31, 31:33
                np.array([(base, 0.0, self._wheel), head, (grip_forward, 0.0, grip_up)]),  # 33:36
                np.array([(grip_forward, 0.22, grip_up), (grip_forward, -0.22, grip_up)]),  # 36:38
                np.array(
                    [
                        (self._saddle[0] - 0.14, 0.0, self._saddle[2] - 0.05),
                        (self._saddle[0] + 0.10, 0.0, self._saddle[2] - 0.05),
                    ]
                ),
            )
        )

    @staticmethod
    def crank_phase(distance: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Crank angle after a distance: one turn each 4.6 m."""
        return TAU * distance / 4.6

    def _machine(self, phase: float, pedals: list, position: Float[np.ndarray, "3"], heading: float) -> list[Shape]:
        turn, radius = phase * 2.1, 0.95 * self._wheel
        spokes = []
        for hub in (-self._hub, self._hub):
            f, u = radius * cos(turn), radius * sin(turn)
            spokes += [(hub - f, 0.0, self._wheel + u), (hub + f, 0.0, self._wheel - u)]
        world = place(np.concatenate((self._local, np.array(spokes + pedals))), position, heading)
        colour = self._colour
        shapes: list[Shape] = [Stroke(world[0:13], 0.020, TYRE, BICYCLE), Stroke(world[13:26], 0.020, TYRE, BICYCLE)]
        shapes += [Stroke(world[40 + 2 * k : 42 + 2 * k], 0.006, METAL, BICYCLE) for k in range(2)]
        shapes += [
            Stroke(world[26:31], 0.020, colour, BICYCLE),
            Stroke(world[31:33], 0.018, colour, BICYCLE),
            Stroke(world[33:36], 0.020, colour, BICYCLE),
            Stroke(world[36:38], 0.020, TYRE, BICYCLE),
            Stroke(world[38:40], 0.040, TYRE, BICYCLE),
            Stroke(world[44:46], 0.016, METAL, BICYCLE),
        ]
        return shapes

    def _pedals(self, phase: float) -> list[tuple[float, float, float]]:
        f, u, crank = self._bracket[0], self._bracket[2], 0.165
        return [(f + way * crank * cos(phase), 0.10 * way, u - way * crank * sin(phase)) for way in (1, -1)]

    def shapes(self, phase: float, speed: float, position: Float[np.ndarray, "3"], heading: float) -> list[Shape]:
        """Bicycle and rider at a ground point between the wheels."""
        pedals = self._pedals(phase)
        low = self._rider.body.ankle
        feet = tuple(Foot(p[0] - 0.05, p[1], p[2] - low + 0.05, 0.1) for p in pedals)
        grip = self._grip
        lean = 0.40 if self._upright else 0.72
        pose = Pose(
            (self._saddle[0] + 0.02, 0.0, self._saddle[2] + 0.03),
            feet,
            (Reach(grip[0], grip[1], grip[2] + 0.02), Reach(grip[0], -grip[1], grip[2] + 0.02)),
            lean=lean,
            nod=-0.55 * lean,
        )
        return self._machine(phase, pedals, position, heading) + self._rider.shapes(pose, position, heading)

    def walked(self, phase: float, speed: float, position: Float[np.ndarray, "3"], heading: float) -> list[Shape]:
        """The bicycle pushed by its owner, who walks on its left, hands on the bar; ``phase`` is the gait's."""
        body = self._rider.body
        grip = self._grip
        aside = (
            position
            + np.array((sin(heading), -cos(heading), 0.0)) * 0.42
            + np.array((cos(heading), sin(heading), 0.0)) * 0.15
        )
        arms = (Reach(grip[0] + 0.05, -0.20, grip[2]), Reach(grip[0] + 0.05, -0.50, grip[2]))
        pose = walk(body, phase, speed)._replace(arms=arms, lean=0.14, twist=0.15)
        return self._machine(0.25 * phase, self._pedals(0.4), aside, heading) + self._rider.shapes(
            pose, position, heading
        )


class Motorcycle:
    """A motorcycle or scooter and its seated rider."""

    def __init__(self, rider: Figure, colour: Colour, *, scooter: bool) -> None:
        self._rider, self._colour, self._scooter = rider, colour, scooter
        wheel = 0.24 if scooter else 0.31
        base = 0.64 if scooter else 0.72
        self._wheel, self._base = wheel, base
        grip = (0.42, 0.30, 1.02)
        self._grip = grip
        self._local = np.concatenate(
            (
                ring(-base, 0.0, wheel, points=11),
                ring(base, 0.0, wheel, points=11),  # 0:11, 11:22
                np.array([(-0.78, 0.0, 0.74), (-0.30, 0.0, 0.72), (0.05, 0.0, 0.70)]),  # 22:25 seat
                np.array([(-0.45, 0.0, 0.48), (0.10, 0.0, 0.45)]),  # 25:27 engine
                np.array([(0.02, 0.0, 0.78), (0.34, 0.0, 0.84)]),  # 27:29 tank
                np.array([(base, 0.0, wheel), (0.46, 0.0, 0.86), (grip[0] - 0.02, 0.0, grip[2])]),  # 29:32 fork
                np.array([(grip[0], grip[1], grip[2]), (grip[0], -grip[1], grip[2])]),  # 32:34 bar
                np.array([(0.54, 0.0, 0.86), (-0.86, 0.0, 0.70)]),  # 34 lamp, 35 rear lamp
                np.array([(-0.20, -0.14, 0.30), (-0.88, -0.16, 0.38)]),  # 36:38 exhaust
                np.array([(-0.95, 0.0, 0.62), (-0.62, 0.0, 0.66)]),  # 38:40 rear mudguard
                np.array(
                    [(0.40, 0.20, 0.98), (0.40, -0.20, 0.98), (0.48, -0.20, 0.32), (0.48, 0.20, 0.32)]
                ),  # 40:44 leg shield
            )
        )

    def shapes(self, phase: float, speed: float, position: Float[np.ndarray, "3"], heading: float) -> list[Shape]:
        spokes = []
        for hub in (-self._base, self._base):
            f, u = 0.8 * self._wheel * cos(phase), 0.8 * self._wheel * sin(phase)
            spokes += [(hub - f, 0.0, self._wheel + u), (hub + f, 0.0, self._wheel - u)]
        world = place(np.concatenate((self._local, np.array(spokes))), position, heading)
        colour, dark = self._colour, shade(self._colour, 0.7)
        shapes: list[Shape] = [
            Stroke(world[0:11], 0.065, TYRE, MOTORCYCLE),
            Stroke(world[11:22], 0.060, TYRE, MOTORCYCLE),
            Stroke(world[44:46], 0.020, METAL, MOTORCYCLE),
            Stroke(world[46:48], 0.020, METAL, MOTORCYCLE),
            Stroke(world[22:25], 0.090, TYRE, MOTORCYCLE),
            Stroke(world[25:27], 0.170, dark if self._scooter else (88, 88, 92), MOTORCYCLE),
            Stroke(world[27:29], 0.130, colour, MOTORCYCLE, 0.105),
            Stroke(world[29:32], 0.035, METAL, MOTORCYCLE),
            Stroke(world[32:34], 0.022, TYRE, MOTORCYCLE),
            Ball(world[34], 0.085, (240, 238, 220), MOTORCYCLE),
            Ball(world[35], 0.05, (190, 24, 24), MOTORCYCLE),
            Stroke(world[36:38], 0.045, METAL, MOTORCYCLE),
            Stroke(world[38:40], 0.080, colour, MOTORCYCLE),
        ]
        if self._scooter:
            shapes.append(Patch(world[40:44], colour, MOTORCYCLE))
        grip, low = self._grip, self._rider.body.ankle
        pegs = (0.24, 0.30) if self._scooter else (-0.02, 0.30)
        feet = (Foot(pegs[0], 0.17, pegs[1] - low), Foot(pegs[0], -0.17, pegs[1] - low))
        pose = Pose(
            (-0.30, 0.0, 0.86),
            feet,
            (Reach(grip[0] - 0.02, grip[1], grip[2]), Reach(grip[0] - 0.02, -grip[1], grip[2])),
            lean=0.12 if self._scooter else 0.34,
            nod=-0.1,
        )
        return shapes + self._rider.shapes(pose, position, heading)


def seat_body(rng: np.random.Generator, noun: str) -> Body:
    """A rider's body: tall enough to reach saddle, grips and pedals."""
    body = Body.random(rng, noun)
    return Body(height=max(1.55, body.height), build=body.build)
