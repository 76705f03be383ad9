"""Ground plans: surfaces, buildings, still objects and walks of a scene, and the draft that a template fills.

A plan is in metres around the ground point in the middle of the picture (x right, y away).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tvad.scenes.camera import Camera
from tvad.scenes.palette import vehicle_colour
from tvad.scenes.things import Thing
from tvad.scenes.types import Colour

FAR = 90.0  # metres: surfaces that leave the view go on to here
Point = tuple[float, float]


@dataclass(frozen=True)
class Area:
    """A piece of ground: part name, outline in metres, colour, texture name, pitch of its joints and its turn."""

    part: str
    outline: tuple[Point, ...]
    colour: Colour
    texture: str = "plain"
    pitch: float = 1.0
    turn: float = 0.0


@dataclass(frozen=True)
class Building:
    """An upright wall with windows from ``start`` to ``end`` (left to right, metres), ``height`` metres tall.

    ``lintel`` is where the first row of windows begins; ``doors`` are places along the wall, 0 to 1.
    """

    start: Point
    end: Point
    height: float
    colour: Colour
    storey: float = 3.4
    bay: float = 2.6
    glass: Colour = (58, 66, 74)
    doors: tuple[float, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """All that stands still in a scene; later areas cover earlier ones."""

    areas: tuple[Area, ...]
    buildings: tuple[Building, ...]
    things: tuple[Thing, ...]
    walks: tuple[tuple[Point, ...], ...]  # as long as you like; the scene trims them to its view
    corners: tuple[Point, ...]
    sky: Colour = (188, 196, 205)


def mirrored(plan: Plan) -> Plan:
    """The plan seen in a mirror, left and right exchanged."""

    def flip(points: tuple[Point, ...]) -> tuple[Point, ...]:
        return tuple((-x, y) for x, y in points)

    return replace(
        plan,
        areas=tuple(replace(area, outline=flip(area.outline), turn=-area.turn) for area in plan.areas),
        buildings=tuple(
            replace(
                one,
                start=(-one.end[0], one.end[1]),
                end=(-one.start[0], one.start[1]),
                doors=tuple(1 - door for door in one.doors),
            )
            for one in plan.buildings
        ),
        things=tuple(replace(one, at=(-one.at[0], one.at[1]), heading=math.pi - one.heading) for one in plan.things),
        walks=tuple(flip(walk) for walk in plan.walks),
        corners=flip(plan.corners),
    )


def band(near: float, far: float) -> tuple[Point, ...]:
    """Outline of everything between two distances."""
    return (-FAR, near), (FAR, near), (FAR, far), (-FAR, far)


def strip(line: tuple[Point, ...], width: float) -> tuple[Point, ...]:
    """Outline of a way of a given width along a polyline."""
    points = np.array(line, float)
    step = np.gradient(points, axis=0)
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    side = np.stack([-step[:, 1], step[:, 0]], 1) * width / 2
    return tuple(map(tuple, np.concatenate([points + side, (points - side)[::-1]])))


class Draft:
    """Random choices and lists that a template fills."""

    def __init__(self, camera: Camera, rng: np.random.Generator) -> None:
        self.rng, self.camera = rng, camera
        self.areas: list[Area] = []
        self.buildings: list[Building] = []
        self.things: list[Thing] = []
        bottom, top = camera.ground(np.array([[180.0, 238.0], [180.0, 20.0]]))[:, 1]
        self.near = float(bottom)
        self.far = float(np.nan_to_num(top, nan=60.0)) if np.isfinite(top) and top > bottom else 60.0
        self.far = min(self.far, 60.0)
        self.half = float(0.75 / camera.focal * np.linalg.norm([camera.height, camera.height / math.tan(camera.tilt)]))

    def tone(self, base: Colour, spread: float = 10.0) -> Colour:
        """A colour near ``base``, mostly lighter or darker, slightly warmer or cooler."""
        level, warmth = self.rng.normal(0, spread), self.rng.normal(0, spread * 0.25)
        return tuple(int(np.clip(value + level + warmth * sign, 12, 245)) for value, sign in zip(base, (1, 0, -1)))

    def seed(self) -> int:
        return int(self.rng.integers(1 << 30))

    def at(self, u: float, v: float) -> Point:
        """A ground point by picture fractions (u right, v down)."""
        x, y = self.camera.ground(np.array([u * 360.0, v * 240.0]))
        return float(x), float(y)

    def put(
        self, kind: str, at: Point, *, heading: float = 0.0, size: float = 1.0, colour: Colour = (90, 90, 90)
    ) -> None:
        self.things.append(Thing(kind, at, heading, size, colour, self.seed()))

    def paving(self, outline: tuple[Point, ...], part: str = "path", base: Colour = (150, 147, 141)) -> None:
        texture = str(self.rng.choice(["slabs", "tiles", "slabs", "plain", "brick"]))
        pitch = {"slabs": self.rng.uniform(2.0, 4.5), "tiles": self.rng.uniform(0.5, 1.1), "brick": 0.5}.get(
            texture, 1.0
        )
        base = (152, 122, 106) if texture == "brick" else base
        self.areas.append(
            Area(part, outline, self.tone(base, 13), texture, float(pitch), float(self.rng.choice([0, 0, 0, 0.785])))
        )

    def lawn(self, outline: tuple[Point, ...], base: Colour = (88, 104, 62)) -> None:
        self.areas.append(Area("grass", outline, self.tone(base, 9), "grass"))

    def wall(self, start: Point, end: Point, height: float, *, doors: tuple[float, ...] = ()) -> None:
        base = ((150, 138, 124), (132, 92, 76), (170, 168, 160), (112, 114, 118), (186, 172, 146))[
            int(self.rng.integers(5))
        ]
        self.buildings.append(
            Building(
                start,
                end,
                height,
                self.tone(base, 12),
                float(self.rng.uniform(3.0, 3.8)),
                float(self.rng.uniform(1.9, 3.6)),
                self.tone((62, 70, 80), 10),
                doors,
                self.seed(),
            )
        )

    def trees(self, places: list[Point]) -> None:
        for place in places:
            self.put("tree", place, size=float(self.rng.uniform(0.8, 1.25)), colour=self.tone((72, 92, 50), 12))

    def parked(self, places: list[Point], heading: float) -> None:
        """A row of bicycles; some stands stay empty."""
        for x, y in places:
            if self.rng.random() < 0.8:
                self.put(
                    "parked_bicycle",
                    (x, y),
                    heading=heading + float(self.rng.normal(0, 0.12)),
                    colour=vehicle_colour(self.rng)[1],
                )

    def cars(self, places: list[Point], heading: float) -> None:
        for place in places:
            if self.rng.random() < 0.8:
                turned = heading + float(self.rng.normal(0, 0.02)) + math.pi * float(self.rng.integers(2))
                self.put("parked_car", place, heading=turned, colour=vehicle_colour(self.rng)[1])

    def bench(self, at: Point, heading: float) -> None:
        self.put("bench", at, heading=heading, colour=self.tone((124, 92, 62), 12))

    def plan(self, walks: list[tuple[Point, ...]], corners: list[Point]) -> Plan:
        return Plan(
            tuple(self.areas),
            tuple(self.buildings),
            tuple(self.things),
            tuple(walks),
            tuple(corners),
            self.tone((190, 197, 205), 12),
        )
