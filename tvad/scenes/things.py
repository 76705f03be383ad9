"""Still objects of the world as 3-D shapes: trees, poles, benches, hedges, bins, parked bicycles and cars."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Callable, Mapping

import numpy as np
from jaxtyping import Float

from tvad.scenes.body import Body, Figure
from tvad.scenes.carts import CAR_KINDS, Car
from tvad.scenes.palette import dress
from tvad.scenes.types import PART_INDEX, Ball, Colour, Patch, Shape, Stroke
from tvad.scenes.vehicles import Bicycle


@dataclass(frozen=True)
class Thing:
    """A still object: ``kind`` names its builder, ``size`` scales it, ``seed`` shapes its details."""

    kind: str
    at: tuple[float, float]
    heading: float = 0.0
    size: float = 1.0
    colour: Colour = (90, 90, 90)
    seed: int = 0

    def shapes(self) -> list[Shape]:
        """The object in world coordinates."""
        return _BUILDERS[self.kind](self)

    @property
    def reach(self) -> float:
        """How far it stands out towards the camera, metres; used for the order of occlusion."""
        return {"tree": 1.2, "bush": 0.5, "hedge": 0.4, "bench": -0.4}.get(self.kind, 0.15) * self.size


def _place(thing: Thing, points) -> Float[np.ndarray, "k 3"]:
    """Points given in the object's own frame (x ahead, y to its left, metres before scaling) in the world's."""
    local = np.asarray(points, np.float64).reshape(-1, 3) * thing.size
    cos, sin = math.cos(thing.heading), math.sin(thing.heading)
    world = np.stack([cos * local[:, 0] - sin * local[:, 1], sin * local[:, 0] + cos * local[:, 1], local[:, 2]], 1)
    return world + np.array([*thing.at, 0.0])


def _shade(colour: Colour, factor: float) -> Colour:
    return tuple(int(min(255, max(0, level * factor))) for level in colour)


def box(thing: Thing, low, high, colour: Colour, part: int) -> list[Shape]:
    """Five faces of an upright box between two corners of the object's own frame."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    rings = (
        [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)],
        [(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)],
        [(x0, y0, z0), (x0, y1, z0), (x0, y1, z1), (x0, y0, z1)],
        [(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)],
        [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
    )
    return [Patch(_place(thing, ring), colour, part) for ring in rings]


def _tree(thing: Thing) -> list[Shape]:
    rng, part = np.random.default_rng(thing.seed), PART_INDEX["tree"]
    trunk = 2.2 + rng.uniform(0, 0.8)
    shapes: list[Shape] = [
        Stroke(_place(thing, [(0, 0, 0), (0.05, 0.05, trunk)]), 0.14 * thing.size, (74, 62, 52), part, 0.1 * thing.size)
    ]
    for _ in range(110):
        angle, out = rng.uniform(0, 2 * math.pi), rng.uniform(0, 1) ** 0.5
        up = rng.uniform(-0.9, 1.0)
        flat = 1.55 * out * math.sqrt(max(0.05, 1 - up * up))
        spot = _place(thing, [(flat * math.cos(angle), flat * math.sin(angle), trunk + 1.1 + 1.35 * up)])[0]
        shapes.append(
            Ball(
                spot,
                rng.uniform(0.14, 0.42) * thing.size,
                _shade(thing.colour, rng.uniform(0.6, 1.15) + 0.16 * up),
                part,
            )
        )
    return shapes


def _bush(thing: Thing) -> list[Shape]:
    rng, part = np.random.default_rng(thing.seed), PART_INDEX["tree"]
    return [
        Ball(
            _place(thing, [(rng.normal(0, 0.4), rng.normal(0, 0.3), rng.uniform(0.2, 0.75))])[0],
            rng.uniform(0.18, 0.36) * thing.size,
            _shade(thing.colour, rng.uniform(0.6, 1.1)),
            part,
        )
        for _ in range(26)
    ]


def _hedge(thing: Thing) -> list[Shape]:
    rng, part = np.random.default_rng(thing.seed), PART_INDEX["tree"]
    shapes = box(thing, (-2.5, -0.35, 0), (2.5, 0.35, 0.85), _shade(thing.colour, 0.8), part)
    for _ in range(60):
        spot = _place(thing, [(rng.uniform(-2.5, 2.5), rng.uniform(-0.35, 0.35), rng.uniform(0.3, 0.9))])[0]
        shapes.append(
            Ball(spot, rng.uniform(0.1, 0.24) * thing.size, _shade(thing.colour, rng.uniform(0.65, 1.15)), part)
        )
    return shapes


def _pole(thing: Thing) -> list[Shape]:
    part = PART_INDEX["pole"]
    return [
        Stroke(_place(thing, [(0, 0, 0), (0, 0, 0.5)]), 0.085 * thing.size, thing.colour, part),
        Stroke(_place(thing, [(0, 0, 0.4), (0, 0, 4.6)]), 0.042 * thing.size, thing.colour, part),
        Stroke(_place(thing, [(0, 0, 4.6), (0.7, 0, 4.75)]), 0.035 * thing.size, thing.colour, part),
        Stroke(_place(thing, [(0.45, 0, 4.72), (0.95, 0, 4.72)]), 0.08 * thing.size, _shade(thing.colour, 1.7), part),
    ]


def _sign(thing: Thing) -> list[Shape]:
    part = PART_INDEX["pole"]
    return [
        Stroke(_place(thing, [(0, 0, 0), (0, 0, 2.2)]), 0.04 * thing.size, (120, 120, 122), part),
        Patch(_place(thing, [(0, -0.3, 1.6), (0, 0.3, 1.6), (0, 0.3, 2.3), (0, -0.3, 2.3)]), thing.colour, part),
    ]


def _bollard(thing: Thing) -> list[Shape]:
    return [Stroke(_place(thing, [(0, 0, 0), (0, 0, 0.85)]), 0.09 * thing.size, thing.colour, PART_INDEX["pole"])]


def _bin(thing: Thing) -> list[Shape]:
    part = PART_INDEX["other"]
    return [
        Stroke(_place(thing, [(0, 0, 0.15), (0, 0, 0.8)]), 0.24 * thing.size, thing.colour, part),
        Ball(_place(thing, [(0, 0, 0.95)])[0], 0.2 * thing.size, _shade(thing.colour, 0.5), part),
    ]


def _bench(thing: Thing) -> list[Shape]:
    """The sitter looks along the heading; the back rest is behind."""
    part, wood = PART_INDEX["bench"], thing.colour
    shapes: list[Shape] = [
        Stroke(_place(thing, [(x, y, 0), (x, y, 0.42)]), 0.035, (60, 60, 62), part)
        for x in (-0.2, 0.2)
        for y in (-0.75, 0.75)
    ]
    for x in (-0.2, 0.0, 0.2):
        shapes.append(
            Patch(
                _place(
                    thing,
                    [(x - 0.09, -0.9, 0.45), (x + 0.09, -0.9, 0.45), (x + 0.09, 0.9, 0.45), (x - 0.09, 0.9, 0.45)],
                ),
                wood,
                part,
            )
        )
    for z in (0.6, 0.8):
        shapes.append(
            Patch(
                _place(thing, [(-0.28, -0.9, z), (-0.28, 0.9, z), (-0.31, 0.9, z + 0.14), (-0.31, -0.9, z + 0.14)]),
                _shade(wood, 0.9),
                part,
            )
        )
    return shapes


def _planter(thing: Thing) -> list[Shape]:
    rng = np.random.default_rng(thing.seed)
    shapes = box(thing, (-0.7, -0.7, 0), (0.7, 0.7, 0.5), (128, 122, 114), PART_INDEX["other"])
    return shapes + [
        Ball(
            _place(thing, [(rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.5, 0.9))])[0],
            0.2,
            _shade(thing.colour, rng.uniform(0.6, 1.1)),
            PART_INDEX["tree"],
        )
        for _ in range(16)
    ]


def _vehicle(shapes: list[Shape], part: str) -> list[Shape]:
    """Shapes of a vehicle under the label of a parked one."""
    return [replace(shape, part=PART_INDEX[part]) for shape in shapes]


def _bicycle(thing: Thing) -> list[Shape]:
    """The bicycle that people also ride: only motion tells the two apart."""
    look, colours = dress(np.random.default_rng(thing.seed), carry=0.0)
    ridden = Bicycle(Figure(Body(height=1.72, build=1.0), colours, look), thing.colour, upright=thing.seed % 2 == 0)
    shapes = ridden.shapes(float(thing.seed % 6), 0.0, np.array([*thing.at, 0.0]), thing.heading)
    return _vehicle([shape for shape in shapes if shape.part == PART_INDEX["bicycle"]], "parked_bicycle")


def _car(thing: Thing) -> list[Shape]:
    """The car or van that also drives by: only motion tells the two apart."""
    kind = CAR_KINDS[int(np.random.default_rng(thing.seed).choice(len(CAR_KINDS), p=(0.78, 0.17, 0.05)))]
    return _vehicle(
        Car(kind, thing.colour, driver=(60, 60, 60)).shapes(0.3, 0.0, np.array([*thing.at, 0.0]), thing.heading),
        "parked_car",
    )


_BUILDERS: Mapping[str, Callable[[Thing], list[Shape]]] = {
    "tree": _tree,
    "bush": _bush,
    "hedge": _hedge,
    "pole": _pole,
    "sign": _sign,
    "bollard": _bollard,
    "bin": _bin,
    "bench": _bench,
    "planter": _planter,
    "parked_bicycle": _bicycle,
    "parked_car": _car,
}
