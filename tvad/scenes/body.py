"""An articulated person: proportions, poses and the shapes that draw them.

A pose is a handful of numbers in the body's own frame (f forward, l left, u up, metres above the ground point between
the feet): where the pelvis, ankles and hands are and how the trunk leans.  Knees and elbows follow by two-link inverse
kinematics, so a planted foot stays planted.  Plain floats build some twenty joints and one small matrix product takes
them to the world: about 50 microseconds a person.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, pi, sin, sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tvad.scenes.palette import Dress, shade
from tvad.scenes.types import PART_INDEX, Appearance, Ball, Patch, Shape, Stroke

HEAD, TORSO, ARM, LEG = (PART_INDEX[name] for name in ("head", "torso", "arm", "leg"))
BAG, UMBRELLA = PART_INDEX["bag"], PART_INDEX["umbrella"]
TAU = 2.0 * pi
FAR_SIDE = 0.82  # left limbs are a little darker, so that crossing limbs stay apart at 25 pixels
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Body:
    """Size of a person: ``height`` in metres, ``build`` as a factor on all widths (1 = average)."""

    height: float
    build: float

    @classmethod
    def random(cls, rng: np.random.Generator, noun: str) -> Body:
        mean = {"man": 1.77, "woman": 1.65, "person": 1.70}.get(noun, 1.70)
        height = float(np.clip(rng.normal(mean, 0.075), 1.45, 1.98))
        if noun == "person" and rng.random() < 0.3:
            height = float(rng.uniform(1.15, 1.45))  # an older child
        return cls(height=height, build=float(np.clip(rng.normal(1.05, 0.13), 0.82, 1.45)))

    @property
    def leg(self) -> float:
        return 0.245 * self.height

    @property
    def ankle(self) -> float:
        return 0.045 * self.height


class Swing(NamedTuple):
    """An arm by angles: ``pitch`` forward from hanging, ``out`` sideways, ``bend`` of the elbow."""

    pitch: float
    out: float = 0.1
    bend: float = 0.2


class Reach(NamedTuple):
    """An arm by the place of its hand in the body frame, metres; ``elbow`` is the direction the elbow points to."""

    f: float
    left: float
    u: float
    elbow: Point = (-0.6, 0.0, -0.8)


class Foot(NamedTuple):
    """An ankle in the body frame, metres above ankle height; ``pitch`` > 0 lifts the toes."""

    f: float
    left: float
    u: float = 0.0
    pitch: float = 0.0


class Pose(NamedTuple):
    """A posture. ``pelvis``: (forward, left, up) of the hip centre in metres; angles in radians; left before right."""

    pelvis: Point
    feet: tuple[Foot, Foot]
    arms: tuple[Swing | Reach, Swing | Reach]
    lean: float = 0.0  # trunk forward
    side: float = 0.0  # trunk to the left
    twist: float = 0.0  # left shoulder backwards
    nod: float = 0.0  # head forward, beyond the lean
    look: float = 0.0  # head to the left
    yaw: float = 0.0  # whole body against the heading
    tilt: float = 0.0  # whole body toppled about the feet
    tilt_way: float = 0.0  # direction of that topple against the body: 0 forward, pi backward
    lift: float = 0.0  # feet off the ground, metres
    bag: Point | None = None  # a hand bag set down there instead of held


def two_link(root: Point, target: Point, upper: float, lower: float, pole: Point) -> tuple[Point, Point]:
    """Middle joint and end of a two-segment limb from ``root`` towards ``target``; the middle bends to ``pole``."""
    dx, dy, dz = target[0] - root[0], target[1] - root[1], target[2] - root[2]
    distance = sqrt(dx * dx + dy * dy + dz * dz) + 1e-9
    dx, dy, dz = dx / distance, dy / distance, dz / distance
    reach = min(distance, 0.999 * (upper + lower))
    along = (upper * upper - lower * lower + reach * reach) / (2.0 * reach)
    along = max(-upper, min(upper, along))
    across = sqrt(max(0.0, upper * upper - along * along))
    dot = pole[0] * dx + pole[1] * dy + pole[2] * dz
    px, py, pz = pole[0] - dot * dx, pole[1] - dot * dy, pole[2] - dot * dz
    scale = across / (sqrt(px * px + py * py + pz * pz) + 1e-9)
    middle = (root[0] + along * dx + scale * px, root[1] + along * dy + scale * py, root[2] + along * dz + scale * pz)
    return middle, (root[0] + reach * dx, root[1] + reach * dy, root[2] + reach * dz)


def place(
    local: Float[np.ndarray, "k 3"], position: Float[np.ndarray, "3"], heading: float
) -> Float[np.ndarray, "k 3"]:
    """Points of an upright frame (forward, left, up) in the world."""
    c, s = cos(heading), sin(heading)
    return local @ np.array(((c, s, 0.0), (-s, c, 0.0), (0.0, 0.0, 1.0))) + position


def _arm(arm: Swing | Reach, shoulder: Point, way: float, upper: float, lower: float) -> tuple[Point, Point]:
    """Elbow and hand; ``way`` is +1 for the left arm."""
    if type(arm) is Reach:
        pole = arm.elbow
        return two_link(shoulder, (arm.f, arm.left, arm.u), upper, lower, (pole[0], pole[1] + 0.3 * way, pole[2]))
    c, s = cos(arm.out), way * sin(arm.out)
    elbow = (
        shoulder[0] + upper * sin(arm.pitch) * c,
        shoulder[1] + upper * s,
        shoulder[2] - upper * cos(arm.pitch) * c,
    )
    pitch, s = arm.pitch + arm.bend, 0.5 * s
    return elbow, (elbow[0] + lower * sin(pitch) * c, elbow[1] + lower * s, elbow[2] - lower * cos(pitch) * c)


class Figure:
    """One person ready to be posed: body, colours and what is worn."""

    def __init__(self, body: Body, colours: Dress, appearance: Appearance) -> None:
        self.body, self.colours, self.appearance = body, colours, appearance
        h, b = body.height, body.build
        self._radii = dict(
            thigh=0.048 * h * b,
            shin=0.028 * h,
            foot=0.021 * h,
            arm=0.028 * h * sqrt(b),
            wrist=0.020 * h,
            waist=0.070 * h * b,
            chest=0.078 * h * b,
            shoulder=0.040 * h * sqrt(b),
            head=0.066 * h,
        )
        c = colours
        self._top, self._top_far = c.top, shade(c.top, FAR_SIDE)
        self._bottom, self._bottom_far = shade(c.bottom, 1.06), shade(c.bottom, FAR_SIDE)
        self._skin_far = shade(c.skin, FAR_SIDE + 0.06)
        self._hood = appearance.hat == "hood"
        self._backpack, self._bag = "backpack" in appearance.carries, "bag" in appearance.carries
        self._umbrella = "umbrella" in appearance.carries

    def hide_umbrella(self) -> None:
        """Folds the umbrella away, for those who need both hands."""
        if self._umbrella:
            self._umbrella = False
            self.appearance = replace(
                self.appearance, carries=tuple(c for c in self.appearance.carries if c != "umbrella")
            )

    def hide_bag(self) -> None:
        """Leaves the hand bag at home."""
        if self._bag:
            self._bag = False
            self.appearance = replace(self.appearance, carries=tuple(c for c in self.appearance.carries if c != "bag"))

    def shapes(self, pose: Pose, position: Float[np.ndarray, "3"], heading: float) -> list[Shape]:
        """The person in ``pose`` at a ground point of the world, at most some 15 shapes."""
        h, leg = self.body.height, self.body.leg
        low, hip = self.body.ankle, 0.052 * h * self.body.build
        pf, pl, pu = pose.pelvis
        points: list[Point] = []
        for way, foot in ((1.0, pose.feet[0]), (-1.0, pose.feet[1])):
            root = (pf, pl + way * hip, pu)
            knee, ankle = two_link(root, (foot.f, foot.left, foot.u + low), leg, leg, (1.0, 0.25 * way, 0.15))
            toe = 0.105 * h
            points += (
                root,
                knee,
                ankle,
                (
                    ankle[0] + toe * cos(foot.pitch),
                    ankle[1] + 0.02 * way,
                    ankle[2] - 0.45 * low + toe * sin(foot.pitch),
                ),
            )
        cl, sl, ss = cos(pose.lean), sin(pose.lean), sin(pose.side)
        trunk = 0.285 * h
        chest = (pf + trunk * sl, pl + trunk * ss, pu + trunk * cl)
        neck = (pf + 0.80 * trunk * sl, pl + 0.8 * trunk * ss, pu + 0.80 * trunk * cl)
        points += ((pf + 0.02 * sl, pl, pu + 0.03 * h), neck)
        tf, tl = -sin(pose.twist) * 0.105 * h, cos(pose.twist) * 0.105 * h * sqrt(self.body.build)
        for way, arm in ((1.0, pose.arms[0]), (-1.0, pose.arms[1])):
            shoulder = (chest[0] + way * tf, chest[1] + way * tl, chest[2] - 0.02 * h - way * ss * 0.08)
            points.append(shoulder)
            points += _arm(arm, shoulder, way, 0.165 * h, 0.195 * h)
        nod = pose.lean + pose.nod
        head = (chest[0] + 0.105 * h * sin(nod), chest[1] + 0.1 * h * ss, chest[2] + 0.105 * h * cos(nod))
        ff, fl = cos(pose.look), sin(pose.look)
        points.append(head)
        points.append((head[0] - 0.030 * h * ff, head[1] - 0.030 * h * fl, head[2] + 0.022 * h))  # 17 hair
        points.append((head[0] - 0.045 * h * ff, head[1] - 0.045 * h * fl, head[2] - 0.02 * h))  # 18 nape
        points.append((head[0] - 0.060 * h * ff, head[1] - 0.060 * h * fl, head[2] - 0.13 * h))  # 19 hair end
        points.append((head[0] + 0.035 * h * ff, head[1] + 0.035 * h * fl, head[2] + 0.030 * h))  # 20 brim
        points.append((head[0] + 0.110 * h * ff, head[1] + 0.110 * h * fl, head[2] + 0.020 * h))  # 21
        if self._backpack:
            back, rise = 0.115 * h * sqrt(self.body.build), trunk
            points += (
                (pf + 0.30 * rise * sl - back * cl, pl + 0.3 * rise * ss, pu + 0.30 * rise * cl + back * sl),
                (pf + 0.84 * rise * sl - back * cl, pl + 0.8 * rise * ss, pu + 0.84 * rise * cl + back * sl),
            )
        elif self._bag:
            hand = points[12] if pose.bag is None else pose.bag
            drop = 0.11 * h if pose.bag is None else 0.0
            points += (
                (hand[0] - 0.10, hand[1], max(0.10, hand[2] - drop)),
                (hand[0] + 0.10, hand[1], max(0.10, hand[2] - drop)),
            )
        elif self._umbrella:
            points += _umbrella_points(points[15], h)
        joints = np.array(points)
        _to_world(joints, pose, position, heading)
        return self._draw(joints)

    def _draw(self, joints: Float[np.ndarray, "k 3"]) -> list[Shape]:
        c, r = self.colours, self._radii
        shapes: list[Shape] = [
            Stroke(joints[0:3], r["thigh"], self._bottom_far, LEG, r["shin"]),
            Stroke(joints[2:4], r["foot"], c.shoes, LEG),
            Stroke(joints[4:7], r["thigh"], self._bottom, LEG, r["shin"]),
            Stroke(joints[6:8], r["foot"], c.shoes, LEG),
            Stroke(joints[8:10], r["waist"], c.top, TORSO, r["chest"]),
            Stroke(joints[10:14:3], r["shoulder"], c.top, TORSO),
        ]
        if c.short_sleeves:
            shapes += (
                Stroke(joints[10:12], r["arm"] * 1.1, self._top_far, ARM),
                Stroke(joints[11:13], r["wrist"], self._skin_far, ARM),
                Stroke(joints[13:15], r["arm"] * 1.1, self._top, ARM),
                Stroke(joints[14:16], r["wrist"], c.skin, ARM),
            )
        else:
            shapes += (
                Stroke(joints[10:13], r["arm"], self._top_far, ARM, r["wrist"]),
                Ball(joints[12], r["wrist"] * 1.15, self._skin_far, ARM),
                Stroke(joints[13:16], r["arm"], self._top, ARM, r["wrist"]),
                Ball(joints[15], r["wrist"] * 1.15, c.skin, ARM),
            )
        shapes.append(Ball(joints[16], r["head"], c.skin, HEAD))
        hat = self.appearance.hat
        if hat:
            shapes.append(Ball(joints[17], r["head"] * (1.14 if self._hood else 1.04), c.hat, HEAD))
        else:
            shapes.append(Ball(joints[17], r["head"] * 1.02, c.hair, HEAD))
        if hat in ("cap", "hat"):
            shapes.append(Stroke(joints[20:22], r["head"] * 0.45, c.hat, HEAD))
        elif c.long_hair and not self._hood:
            shapes.append(Stroke(joints[18:20], r["head"] * 0.85, c.hair, HEAD, r["head"] * 0.55))
        if self._backpack:
            shapes.append(Stroke(joints[22:24], 0.075 * self.body.height, c.bag, BAG, 0.068 * self.body.height))
        elif self._bag:
            shapes.append(Stroke(joints[22:24], 0.088, c.bag, BAG))
        elif self._umbrella:
            shapes.append(Stroke(joints[22:24], 0.012, (60, 60, 60), UMBRELLA))
            for index in range(4):
                rim = 24 + 2 * index
                fan = joints[(23, rim, rim + 1, 24 + (2 * index + 2) % 8), :]
                shapes.append(Patch(fan, shade(c.bag, 1.0 if index % 2 else 0.86), UMBRELLA))
        return shapes


_RIM = tuple((0.58 * cos(k * TAU / 8), 0.58 * sin(k * TAU / 8)) for k in range(8))


def _umbrella_points(hand: Point, height: float) -> list[Point]:
    """Shaft (2), then the 8 rim points; the dome's apex is the shaft's upper end."""
    top = 1.26 * height
    apex = (hand[0] - 0.08, hand[1] + 0.06, top)
    return [hand, apex] + [(apex[0] + f, apex[1] + left, top - 0.20) for f, left in _RIM]


def _to_world(joints: Float[np.ndarray, "k 3"], pose: Pose, position: Float[np.ndarray, "3"], heading: float) -> None:
    """Topple, turn and move the joints, in place."""
    turn = heading + pose.yaw
    c, s = cos(turn), sin(turn)
    if pose.tilt:
        # Rotate about a horizontal axis through the feet: up goes towards the topple direction.
        ct, st = cos(pose.tilt), sin(pose.tilt)
        wf, wl = cos(pose.tilt_way), sin(pose.tilt_way)
        along = joints[:, 0] * wf + joints[:, 1] * wl
        up = joints[:, 2].copy()
        change = along * (ct - 1.0) + up * st
        joints[:, 0] += change * wf
        joints[:, 1] += change * wl
        joints[:, 2] = np.maximum(up * ct - along * st + 0.10 * abs(st), 0.06)
    joints[:] = joints @ np.array(((c, s, 0.0), (-s, c, 0.0), (0.0, 0.0, 1.0)))
    joints += position
    if pose.lift:
        joints[:, 2] += pose.lift
