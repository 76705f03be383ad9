"""The 13 named scenes of SimCampus, and their jittered relatives.

A scene is a camera, a ground plan, light and a sensor.  Scenes 0 to 7 are for training, 8 and 9 for validation, 10 to
12 for test.  :meth:`Scene.vary` makes relatives of a scene for domain randomisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from tvad.scenes.camera import DEFAULT_SIZE, NEAR, Camera
from tvad.scenes.draw import Grade, Light
from tvad.scenes.layouts import draft
from tvad.scenes.plans import Plan, mirrored
from tvad.scenes.sensor import Sensor


@dataclass(frozen=True)
class Scene:
    """One place under one camera; implements :class:`tvad.scenes.types.Ground`."""

    name: str
    split: str  # train, val or test
    template: str  # of tvad.scenes.layouts.TEMPLATES
    camera: Camera
    light: Light
    grade: Grade
    sensor: Sensor
    seed: int
    mirror: bool = False

    @cached_property
    def plan(self) -> Plan:
        """The ground plan."""
        plan = draft(self.template, self.seed, camera=self.camera)
        return mirrored(plan) if self.mirror else plan

    @cached_property
    def lit(self) -> Light:
        """The light with a lamp under every pole once it is dark (ambient below 0.7)."""
        if self.light.ambient >= 0.7:
            return self.light
        rng = np.random.default_rng([self.seed, 11])
        spots = [thing.at for thing in self.plan.things if thing.kind == "pole"]
        spots += [self.plan.corners[-1], (self.plan.corners[0][0], self.plan.corners[0][1] - 5.0)]
        lamps = tuple((x, y, float(rng.uniform(4.0, 7.0)), float(rng.uniform(0.3, 0.5))) for x, y in spots)
        return replace(self.light, lamps=lamps)

    @cached_property
    def _paths(self) -> tuple[Float[np.ndarray, "k 2"], ...]:
        kept = (self._trim(np.array(walk, float)) for walk in self.plan.walks)
        return tuple(path for path in kept if path is not None)

    def _trim(self, walk: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "k 2"] | None:
        """The part of a walk from 1.5 m before it enters the view to 1.5 m after it leaves; None if never seen."""
        spans = np.linalg.norm(np.diff(walk, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(spans)])
        steps = np.arange(0.0, along[-1], 0.25)
        dense = np.stack([np.interp(steps, along, walk[:, axis]) for axis in (0, 1)], 1)
        seen = np.flatnonzero(self.camera.sees(dense, margin=-1.5) & (self.camera.scale(dense) * 1.7 > 9.0))
        if len(seen) < 12:
            return None
        start, stop = steps[seen[0]], steps[seen[-1]]
        inner = walk[(along > start + 0.1) & (along < stop - 0.1)]
        return np.concatenate([dense[seen[:1]], inner, dense[seen[-1:]]])

    def paths(self) -> Sequence[Float[np.ndarray, "k 2"]]:
        """Walkable polylines, in metres, that enter and leave the view."""
        return self._paths

    def stands(self) -> Sequence[Float[np.ndarray, "2"]]:
        """Places on the paths, well inside the view, to stand or talk; metres."""
        places = []
        for path in self._paths:
            along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
            for share in (0.3, 0.5, 0.7):
                place = np.array([np.interp(share * along[-1], along, path[:, axis]) for axis in (0, 1)])
                if self.visible(place, 0.8) and self.camera.scale(place) * 1.7 > 14.0:
                    places.append(place)
        return places

    def seats(self) -> Sequence[tuple[Float[np.ndarray, "2"], float]]:
        """Bench places (metres) in the view and the heading of the sitter (radians)."""
        found = []
        for thing in self.plan.things:
            if thing.kind == "bench":
                side = np.array([-math.sin(thing.heading), math.cos(thing.heading)])
                found += [(np.array(thing.at) + shift * side, thing.heading) for shift in (-0.45, 0.45)]
        return [(place, heading) for place, heading in found if self.visible(place, 0.3)]

    def corners(self) -> Sequence[Float[np.ndarray, "2"]]:
        """Places off the paths, in the view, where somebody may loiter; metres."""
        inside = [np.array(corner) for corner in self.plan.corners if self.visible(np.array(corner), 0.4)]
        return inside or list(self.stands()[:1])

    def visible(self, xy: Float[np.ndarray, "2"], margin: float = 0.0) -> bool:
        """Whether a ground point lies in the view, ``margin`` metres inside its border (negative: outside)."""
        origin, right, up, forward, focal = self._lens  # plain floats: asked tens of thousands of times a cast
        x, y, z = float(xy[0]) - origin[0], float(xy[1]) - origin[1], -origin[2]
        depth = forward[0] * x + forward[1] * y + forward[2] * z
        if depth <= NEAR:
            return False
        edge = margin / depth
        across = (right[0] * x + right[1] * y + right[2] * z) / depth
        upward = (up[0] * x + up[1] * y + up[2] * z) / depth
        wide = DEFAULT_SIZE[1] / DEFAULT_SIZE[0]
        return abs(across) <= 0.5 * wide / focal - edge and abs(upward) <= 0.5 / focal - edge

    def metre(self, xy: Float[np.ndarray, "2"]) -> float:
        """Pixels that a metre fills at a ground point, in frames of 240x360."""
        return float(self.camera.scale(xy))

    @cached_property
    def _lens(self) -> tuple:
        return self.camera.position.tolist(), *self.camera.axes.tolist(), self.camera.focal

    def vary(self, rng: np.random.Generator) -> "Scene":
        """A relative of the scene for domain randomisation: other camera, details, light and sensor.

        Camera height, tilt and focal length change by up to 20 %; the picture may be mirrored.  Deterministic in the
        state of ``rng``.
        """

        def spread() -> float:
            return float(rng.uniform(0.8, 1.2))

        camera = replace(
            self.camera,
            height=float(np.clip(self.camera.height * spread(), 3.2, 16.0)),
            tilt=float(np.clip(self.camera.tilt * spread(), math.radians(14), math.radians(55))),
            focal=self.camera.focal * spread(),
            roll=float(rng.normal(0, 0.012)),
        )
        night = rng.random() < 0.12
        sunny = not night and rng.random() < 0.55
        warm = float(rng.normal(0, 0.035))
        light = Light(
            azimuth=float(rng.uniform(0, 2 * math.pi)),
            elevation=float(rng.uniform(0.5, 1.2)),
            sun=float(rng.uniform(0.4, 1.0)) if sunny else 0.0 if night else float(rng.uniform(0, 0.3)),
            ambient=float(rng.uniform(0.4, 0.6)) if night else float(rng.uniform(0.8, 1.1)),
            tint=(1 + warm, 1.0, 1 - warm),
        )
        gain = float(rng.uniform(0.62, 1.08))
        grade = Grade(
            gain=gain,
            offset=float(rng.uniform(0, 1)) * (1.08 - gain) * 110,
            saturation=float(rng.uniform(0.35, 1.0)),
            grey=bool(rng.random() < 0.45),
        )
        sensor = Sensor(
            noise=float(rng.uniform(0.6, 5.0)),
            blur=float(rng.uniform(0.3, 1.0)),
            quality=int(rng.integers(45, 96)),
            shake=float(max(0.0, rng.uniform(-0.4, 0.7))),
            drift=float(rng.uniform(0, 0.012)),
        )
        seed = int(rng.integers(1 << 30))
        return replace(
            self,
            name=f"{self.name}~{seed:08x}",
            camera=camera,
            light=light,
            grade=grade,
            sensor=sensor,
            seed=seed,
            mirror=bool(rng.random() < 0.5),
        )


def _scene(
    index: int,
    template: str,
    view: tuple[float, float, float],
    light: Light,
    grade: Grade,
    sensor: Sensor,
    *,
    mirror: bool = False,
) -> Scene:
    """``view``: camera height in metres, tilt in degrees, focal length in frame heights."""
    split = "train" if index < 8 else "val" if index < 10 else "test"
    height, tilt, focal = view
    camera = Camera(height, math.radians(tilt), focal, roll=(0.006, -0.008, 0.0)[index % 3])
    return Scene(f"scene{index:02d}", split, template, camera, light, grade, sensor, seed=1000 + index, mirror=mirror)


SCENES: Mapping[str, Scene] = {
    scene.name: scene
    for scene in (
        _scene(
            0, "plaza", (7.0, 28, 1.25), Light(2.3, 0.85, 0.9), Grade(0.92, 6, 0.8), Sensor(2.0, 0.5, 85, 0.25, 0.004)
        ),
        _scene(
            1,
            "sidewalk",
            (11.0, 26, 1.6),
            Light(0.5, 1.0, 0.12),
            Grade(1.0, 0, 0, grey=True),
            Sensor(1.6, 0.85, 80, 0.0, 0.003),
        ),
        _scene(
            2,
            "crossing",
            (8.0, 30, 1.3),
            Light(0.9, 0.7, 0.85, tint=(1.04, 1.0, 0.95)),
            Grade(0.95, 4, 0.9),
            Sensor(2.4, 0.45, 75, 0.3, 0.005),
        ),
        _scene(
            3, "lawn", (5.5, 21, 1.1), Light(3.9, 0.9, 0.7), Grade(0.9, 8, 0.85), Sensor(2.0, 0.55, 80, 0.35, 0.006)
        ),
        _scene(
            4,
            "courtyard",
            (4.2, 24, 1.15),
            Light(1.6, 1.0, 0.2, 0.98),
            Grade(0.9, 8, 0.6),
            Sensor(2.2, 0.4, 88, 0.0, 0.004),
        ),
        _scene(
            5,
            "roof",
            (13.0, 46, 1.55),
            Light(5.2, 0.75, 0.95),
            Grade(0.9, 4, 0.85),
            Sensor(1.6, 0.5, 85, 0.4, 0.004),
            mirror=True,
        ),
        _scene(
            6,
            "parking",
            (6.0, 27, 1.4),
            Light(0.0, 1.0, 0.0, 0.5, (1.06, 1.0, 0.88)),
            Grade(1.0, 8, 0.6),
            Sensor(5.0, 0.6, 70, 0.0, 0.008),
        ),
        _scene(
            7,
            "terrace",
            (9.0, 33, 1.7),
            Light(4.2, 1.1, 0.1),
            Grade(0.8, 16, 0, grey=True),
            Sensor(3.0, 0.7, 65, 0.2, 0.004),
        ),
        _scene(
            8,
            "plaza",
            (7.5, 31, 1.4),
            Light(2.9, 0.5, 0.4, 0.9, (1.05, 1.0, 0.92)),
            Grade(0.9, 6, 0.7),
            Sensor(3.2, 0.6, 78, 0.2, 0.006),
            mirror=True,
        ),
        _scene(
            9,
            "sidewalk",
            (10.0, 25, 1.5),
            Light(3.5, 0.95, 0.3),
            Grade(0.9, 10, 0, grey=True),
            Sensor(1.8, 0.8, 82, 0.15, 0.004),
            mirror=True,
        ),
        _scene(
            10,
            "lawn",
            (6.5, 25, 1.25),
            Light(0.7, 0.8, 0.85),
            Grade(0.9, 8, 0.8),
            Sensor(2.2, 0.5, 82, 0.25, 0.004),
            mirror=True,
        ),
        _scene(
            11,
            "sidewalk",
            (9.5, 29, 1.5),
            Light(5.5, 0.9, 0.2),
            Grade(0.94, 6, 0, grey=True),
            Sensor(2.0, 0.75, 78, 0.1, 0.004),
        ),
        _scene(
            12,
            "crossing",
            (8.0, 35, 1.4),
            Light(4.4, 1.1, 0.15, 0.95),
            Grade(0.86, 10, 0.65),
            Sensor(2.6, 0.55, 76, 0.2, 0.005),
            mirror=True,
        ),
    )
}

SPLITS: Mapping[str, tuple[str, ...]] = {
    split: tuple(name for name, scene in SCENES.items() if scene.split == split) for split in ("train", "val", "test")
}
