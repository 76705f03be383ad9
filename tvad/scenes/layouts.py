"""The ground plans of the simulated scenes as named templates.

A template makes a plan for one camera from a seeded generator, so that a relative of a scene is the same template with
another seed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Callable, Mapping

import numpy as np

from tvad.scenes.camera import Camera
from tvad.scenes.plans import FAR, Area, Draft, Plan, band, strip


def _sidewalk(d: Draft) -> Plan:
    """A broad pavement across the view, lawn and shrubs behind it, one path that leads away."""
    near, far, half, rng = d.near, d.far, d.half, d.rng
    edge = near + (far - near) * rng.uniform(0.24, 0.32)
    slant = rng.uniform(0.25, 0.5)
    away = ((-0.72 * half, edge - 1), (-0.72 * half + slant * (far - edge), far + 10))
    d.lawn(band(-FAR, FAR), (68, 80, 50))
    d.areas.append(
        Area("path", band(near + 0.9, edge), d.tone((172, 170, 163), 12), "slabs", float(rng.uniform(2.8, 5)), 0.0)
    )
    d.areas.append(Area("path", strip(away, 2.6), d.tone((168, 166, 159), 10), "plain"))
    back = edge + (far - edge) * 0.55
    for x in np.arange(-1.1 * half, 2.2 * half, 4.4):
        if abs(x - (-0.72 * half + slant * (back - edge))) > 4:
            d.put(
                "hedge",
                (float(x), back + float(rng.normal(0, 0.3))),
                size=float(rng.uniform(0.9, 1.25)),
                colour=d.tone((64, 80, 50), 9),
            )
    d.wall((0.0 - 0.2 * half, back + 3.5), (3.4 * half, back + 3.5), 9.0)
    d.trees([(-1.15 * half, back - 1.0), (-1.5 * half, back + 3)])
    for x in (-0.5, 0.45, 0.95):
        d.put(
            "pole",
            (x * half, edge + 0.6),
            heading=float(rng.choice([0, math.pi])),
            colour=(52, 54, 54),
            size=float(rng.uniform(0.85, 1.1)),
        )
    d.bench((0.15 * half, edge + 0.5), -math.pi / 2)
    d.put("bin", (0.28 * half, edge + 0.5), colour=(64, 70, 66))
    if rng.random() < 0.6:
        d.parked([(0.6 * half + 0.6 * index, edge + 0.6) for index in range(4)], math.pi / 2 + 0.3)
    rows = np.linspace(near + 2.2, edge - 0.8, 4)
    walks = [((-FAR, float(row)), (FAR, float(row + rng.normal(0, 0.5)))) for row in rows]
    walks += [
        ((FAR, rows[1]), (0.0, rows[2]), (-0.66 * half, edge - 0.3), *away[1:]),
        ((0.3 * half, -FAR), (0.2 * half, near), (-0.3 * half, rows[2]), (-0.69 * half, edge), *away[1:]),
    ]
    return d.plan(walks, [(0.1 * half, edge + 2.5), (-0.45 * half, edge + 1.8), (0.7 * half, edge + 1.6)])


def _plaza(d: Draft) -> Plan:
    """A paved square before a facade with doors, planters, benches and a bicycle stand."""
    near, far, half, rng = d.near, d.far, d.half, d.rng
    d.paving(band(-FAR, FAR))
    back = near + (far - near) * rng.uniform(0.55, 0.7)
    border = d.areas[0].colour
    d.areas.append(Area("path", band(back - 2.2, back), tuple(max(0, value - 18) for value in border), "slabs", 1.2))
    centre = (-0.1 * half, near + (back - near) * 0.42)
    if rng.random() < 0.6:
        ring = [
            (centre[0] + 3.1 * math.cos(a), centre[1] + 3.1 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 15)[:-1]
        ]
        d.areas.append(Area("path", tuple(ring), tuple(max(0, value - 15) for value in border), "tiles", 0.6))
    wide = 2.6 * half
    d.wall((-wide, back), (wide, back), float(rng.uniform(8, 13)), doors=(0.36, 0.63))
    doors = [(-wide + 2 * wide * share, back - 0.3) for share in (0.36, 0.63)]
    left, right = -0.62 * half, 0.62 * half
    for x, y in ((left, back - 4.5), (right, back - 4.0), (0.0, back - 3.2)):
        d.put("planter", (x, y), size=float(rng.uniform(0.9, 1.2)), colour=d.tone((70, 98, 56), 10))
    d.trees([(left * 1.5, back - 2.5), (right * 1.45, near + (back - near) * 0.52)])
    d.bench((left, near + (back - near) * 0.5), 0.0)
    d.bench((0.32 * half, back - 2.9), -math.pi / 2)
    d.put("pole", (0.42 * half, near + (back - near) * 0.33), heading=math.pi, colour=(60, 62, 64))
    d.put("bin", (left + 0.2, near + (back - near) * 0.5 + 1.9), colour=(70, 74, 78))
    d.parked([(-0.35 * half + 0.62 * index, back - 1.2) for index in range(5)], math.pi / 2)
    y = [near + (back - near) * share for share in (0.2, 0.38, 0.62, 0.8)]
    walks = [
        ((-FAR, y[0]), (FAR, y[1])),
        ((-FAR, y[2]), (FAR, y[1])),
        ((FAR, y[3]), (-FAR, y[3] + 0.5)),
        ((-0.25 * half, -FAR), (-0.2 * half, near), (doors[0][0] * 0.6, y[2]), doors[0]),
        (doors[1], (0.3 * half, y[2]), (0.35 * half, near), (0.4 * half, -FAR)),
        ((-FAR, y[1]), (-0.3 * half, y[1]), (doors[1][0], y[3]), doors[1]),
    ]
    return d.plan(walks, [(left * 1.2, back - 1.2), (right * 1.2, back - 1.5), (0.0, y[1])])


def _crossing(d: Draft) -> Plan:
    """A street across the view with a zebra crossing, pavements on both sides and cars at the far kerb."""
    near, far, half, rng = d.near, d.far, d.half, d.rng
    low = near + (far - near) * rng.uniform(0.2, 0.25)
    high = low + 7.0
    d.paving(band(-FAR, FAR))
    d.areas.append(Area("road", band(low, high), d.tone((86, 87, 90), 8), "asphalt"))
    kerb = d.tone((172, 170, 164), 8)
    d.areas += [Area("path", band(low - 0.18, low), kerb), Area("path", band(high, high + 0.18), kerb)]
    zebra = float(rng.uniform(-0.3, 0.15)) * half
    for index in range(6):
        y0 = low + 0.35 + index * 1.1
        d.areas.append(
            Area(
                "road",
                ((zebra - 1.6, y0), (zebra + 1.6, y0), (zebra + 1.6, y0 + 0.55), (zebra - 1.6, y0 + 0.55)),
                d.tone((196, 195, 188), 5),
                "worn",
            )
        )
    for x in np.arange(-40, 40, 4.5):
        if abs(x + 1 - zebra) > 3.5:
            d.areas.append(
                Area(
                    "road",
                    ((x, low + 3.42), (x + 2, low + 3.42), (x + 2, low + 3.56), (x, low + 3.56)),
                    d.tone((190, 190, 184), 5),
                    "worn",
                )
            )
    d.wall((-4 * half, high + 5.5), (0.35 * half, high + 5.5), float(rng.uniform(7, 12)), doors=(0.9,))
    d.wall((0.75 * half, high + 6.5), (4 * half, high + 6.5), float(rng.uniform(7, 12)), doors=(0.1,))
    d.cars([(zebra + side * (4.6 + 5.2 * index), high - 1.1) for side in (-1, 1) for index in range(3)], 0.0)
    d.trees([(-0.8 * half, high + 1.2), (0.62 * half, high + 1.3), (1.5 * half, high + 1.2)])
    d.put("pole", (zebra + 2.6, low - 0.5), heading=math.pi / 2, colour=(66, 68, 70))
    d.put("sign", (zebra - 2.3, high + 0.5), heading=-math.pi / 2, colour=(50, 84, 150))
    for index in range(5):
        d.put("bollard", (zebra + 3.6 + index * 1.7, low - 0.45), colour=(88, 88, 90))
    d.bench((-0.62 * half, high + 4.7), -math.pi / 2)
    d.parked([(0.2 * half + 0.6 * index, high + 4.6) for index in range(3)], math.pi / 2)
    a, b = (near + low) / 2, high + 2.4
    walks = [
        ((-FAR, a), (FAR, a - 0.3)),
        ((FAR, a + 0.9), (-FAR, a + 0.7)),
        ((-FAR, b), (FAR, b + 0.5)),
        ((FAR, b + 1.0), (-FAR, b + 0.9)),
        ((-FAR, a), (zebra - 1.2, a + 0.4), (zebra, low), (zebra, high), (zebra + 1.5, b), (FAR, b)),
        ((zebra + 0.7, -FAR), (zebra + 0.6, low), (zebra + 0.5, high), (zebra - 1.5, b + 0.6), (-FAR, b + 0.8)),
    ]
    return d.plan(walks, [(-0.4 * half, high + 4.2), (0.5 * half, high + 4.0), (zebra + 5.0, low - 1.6)])


def _lawn(d: Draft) -> Plan:
    """Paths that fork through a lawn with trees; buildings at the far end."""
    near, far, half, rng = d.near, d.far, d.half, d.rng
    depth = far - near
    d.lawn(band(-FAR, FAR))
    fork = (float(rng.uniform(-0.15, 0.1)) * half, near + depth * 0.22)
    left = (
        (-FAR, near + depth * 0.13),
        (-half, near + depth * 0.17),
        fork,
        (0.5 * half, near + depth * 0.34),
        (1.5 * half, near + depth * 0.36),
        (FAR, near + depth * 0.4),
    )
    away = (
        (0.12 * half, -FAR),
        (0.1 * half, near),
        fork,
        (-0.35 * half, near + depth * 0.42),
        (-0.2 * half, near + depth * 0.75),
        (0.1 * half, far + 20),
    )
    colour = d.tone((158, 150, 136), 10)
    for line, width in ((left, 3.6), (away, 3.2)):
        d.areas.append(Area("path", strip(line, width), colour, "gravel"))
    side = ((-FAR, near + depth * 0.52), (-0.3 * half, near + depth * 0.5), (FAR, near + depth * 0.6))
    d.areas.append(Area("path", strip(side, 2.6), colour, "gravel"))
    d.wall((-3 * half, far + 4), (0.1 * half, far + 6), float(rng.uniform(9, 14)))
    d.wall((0.7 * half, far + 9), (4 * half, far + 7), float(rng.uniform(8, 12)))
    d.trees(
        [
            (0.75 * half, near + depth * 0.26),
            (-0.85 * half, near + depth * 0.3),
            (1.3 * half, near + depth * 0.5),
            (-1.1 * half, near + depth * 0.62),
            (0.4 * half, near + depth * 0.7),
            (1.9 * half, near + depth * 0.75),
        ]
    )
    for _ in range(5):
        d.put(
            "bush",
            (float(rng.uniform(-2, 2)) * half, near + depth * float(rng.uniform(0.66, 0.95))),
            colour=d.tone((66, 86, 50), 9),
        )
    d.bench((fork[0] - 2.8, fork[1] + 2.4), -math.pi / 2 + 0.3)
    d.bench((0.55 * half, near + depth * 0.34 + 2.6), -math.pi / 2)
    d.put("pole", (fork[0] + 2.6, fork[1] - 1.6), heading=math.pi, colour=(56, 60, 58))
    d.put("pole", (-0.3 * half - 2.4, near + depth * 0.46), colour=(56, 60, 58))
    d.put("bin", (fork[0] - 4.4, fork[1] + 2.2), colour=(58, 76, 62))
    up = (*left[:3], *away[3:])
    return d.plan(
        [left, away, left[::-1], side, up, ((*away[:3], *left[3:]))],
        [(fork[0] - 3.4, fork[1] + 3.6), (0.4 * half, near + depth * 0.42), (-0.55 * half, near + depth * 0.4)],
    )


def _courtyard(d: Draft) -> Plan:
    """A yard between two wings, seen from a low window: large people, a tree, bicycles along the wall."""
    near, far, half = d.near, d.far, d.half
    back = near + min((far - near) * 0.75, 26.0)
    d.paving(band(-FAR, FAR))
    wing = -1.15 * half
    d.wall((-2.5 * half, back), (3 * half, back), 8.5, doors=(0.42, 0.62))
    d.wall((wing, near - 1), (wing, back), 7.5, doors=(0.75,))
    bed = (
        (0.5 * half, near + (back - near) * 0.45),
        (1.5 * half, near + (back - near) * 0.45),
        (1.7 * half, back - 3),
        (0.6 * half, back - 3),
    )
    d.lawn(bed)
    d.trees([(0.95 * half, near + (back - near) * 0.6)])
    for x in np.linspace(0.6, 1.4, 3):
        d.put("bush", (float(x) * half, near + (back - near) * 0.47), size=0.8, colour=d.tone((70, 92, 54), 9))
    d.bench((0.42 * half, near + (back - near) * 0.6), math.pi)
    d.bench((wing + 0.8, near + (back - near) * 0.45), 0.0)
    d.parked([(-0.55 * half + 0.6 * index, back - 1.0) for index in range(5)], math.pi / 2)
    d.put("bin", (0.36 * half, back - 0.8), colour=(70, 76, 72))
    d.put("pole", (0.3 * half, near + (back - near) * 0.3), heading=math.pi, colour=(58, 58, 60), size=0.9)
    y = [near + (back - near) * share for share in (0.22, 0.4, 0.62, 0.85)]
    door = (-2.5 * half + 5.5 * half * 0.42, back - 0.3), (-2.5 * half + 5.5 * half * 0.62, back - 0.3)
    walks = [
        ((wing, y[0]), (FAR, y[0] + 0.6)),
        ((FAR, y[1]), (-0.3 * half, y[1]), (wing + 0.4, y[2])),
        ((FAR, y[3]), (-0.9 * half, y[3])),
        ((0.1 * half, -FAR), (0.05 * half, near), (0.0, y[2]), door[1]),
        (door[0], (-0.4 * half, y[2]), (-0.35 * half, near), (-0.35 * half, -FAR)),
        ((FAR, y[0]), (0.3 * half, y[0]), (-0.1 * half, y[2]), door[0]),
    ]
    return d.plan(walks, [(wing + 1.5, y[3]), (0.38 * half, y[2]), (0.2 * half, back - 1.2)])


def _roof(d: Draft) -> Plan:
    """A paved cross between four lawns from a steep roof camera."""
    near, far, half, rng = d.near, d.far, d.half, d.rng
    middle = (near + far) / 2 - 0.06 * (far - near)
    d.lawn(band(-FAR, FAR))
    lean = float(rng.uniform(-0.25, 0.25))
    across, along = (
        ((-FAR, middle - lean * 10), (FAR, middle + lean * 10)),
        ((-0.25 * half - lean * 8, -FAR), (-0.25 * half + lean * 8, FAR)),
    )
    d.paving(strip(across, 5.0))
    d.areas.append(replace(d.areas[-1], outline=strip(along, 4.4)))
    disc = tuple(
        (-0.25 * half + 4.2 * math.cos(a), middle + 4.2 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 17)[:-1]
    )
    d.areas.append(replace(d.areas[-1], outline=disc, texture="tiles", pitch=0.7))
    shortcut = ((0.1 * half, middle - 1.0), (1.6 * half, near - 4))
    d.areas.append(Area("path", strip(shortcut, 1.5), d.tone((128, 112, 84), 8), "gravel"))
    d.trees(
        [(0.5 * half, middle + 5), (-0.8 * half, middle + 5.5), (-0.85 * half, middle - 5), (0.95 * half, middle + 6.5)]
    )
    for x in (0.35, 0.8):
        d.bench((x * half, middle + 3.1), -math.pi / 2)
    d.put("hedge", (0.65 * half, middle - 4.2), colour=d.tone((66, 84, 52), 8), heading=lean * 0.1)
    d.put("pole", (-0.25 * half + 3.2, middle - 3.1), colour=(60, 62, 62))
    d.put("bin", (0.2 * half, middle + 3.0), colour=(62, 66, 66))
    d.parked([(-0.25 * half - 3.4 - 0.6 * index, middle + 3.2) for index in range(4)], math.pi / 2)
    d.wall((-3 * half, far + 1.5), (3 * half, far + 1.5), 6.0, doors=(0.46,))
    walks = [
        across,
        across[::-1],
        along,
        ((-FAR, middle + 1.2 - lean * 10), (-0.25 * half - 1, middle + 1), (-0.25 * half + lean * 4, FAR)),
        (along[0], (-0.25 * half, middle), across[1]),
        ((FAR, near - 30), (1.6 * half, near - 4), (0.1 * half, middle), across[0]),
    ]
    return d.plan(walks, [(0.55 * half, middle + 2.4), (-0.6 * half, middle - 4), (0.4 * half, middle - 5.5)])


def _parking(d: Draft) -> Plan:
    """A car park with a footway before it and lamps."""
    near, far, half, rng = d.near, d.far, d.half, d.rng
    d.areas.append(Area("road", band(-FAR, FAR), d.tone((92, 92, 94), 8), "asphalt"))
    low, high = near + (far - near) * 0.13, near + (far - near) * 0.27
    d.paving(band(low, high))
    d.areas.append(Area("path", band(high, high + 0.16), d.tone((168, 166, 160), 6)))
    first = high + 1.2
    for bottom in (first, first + 12.5):
        for x in np.arange(-6, 7) * 2.6:
            d.areas.append(
                Area(
                    "road",
                    ((x, bottom), (x + 0.12, bottom), (x + 0.12, bottom + 5), (x, bottom + 5)),
                    d.tone((188, 188, 182), 5),
                    "worn",
                )
            )
        d.cars(
            [
                (float(x) + 1.35, bottom + 2.5)
                for x in np.arange(-6, 6) * 2.6
                if rng.random() < 0.7 and abs(x + 1.3) > 2.4
            ],
            math.pi / 2,
        )
    d.paving(strip(((0.0, high), (0.0, first + 24)), 2.2))
    d.lawn(band(first + 20, first + 24))
    d.wall((-4 * half, first + 25), (4 * half, first + 25), float(rng.uniform(7, 10)), doors=(0.5,))
    d.trees([(-0.9 * half, first + 21.5), (0.9 * half, first + 21.5), (1.8 * half, first + 21.5)])
    d.put("pole", (-0.45 * half, high + 0.7), heading=math.pi / 2, colour=(70, 70, 72), size=1.05)
    d.put("pole", (0.6 * half, high + 0.7), heading=math.pi / 2, colour=(70, 70, 72), size=1.05)
    d.put("bin", (0.25 * half, high - 0.3), colour=(60, 66, 62))
    d.bench((-0.2 * half, high - 0.4), -math.pi / 2)
    a, b = low + (high - low) * 0.3, low + (high - low) * 0.7
    walks = [
        ((-FAR, a), (FAR, a + 0.2)),
        ((FAR, b), (-FAR, b)),
        ((-FAR, b), (-0.6, b), (0.0, first), (0.2, first + 24.5)),
        ((-0.2, first + 24.5), (-0.3, high), (0.4, b), (FAR, a)),
        ((0.3 * half, -FAR), (0.25 * half, near), (0.1, high), (0.1, first + 24.5)),
        ((-FAR, first + 8.5), (FAR, first + 8.2)),
    ]
    return d.plan(walks, [(-0.5 * half, first + 7.5), (0.4 * half, high - 0.6), (0.5 * half, first + 9)])


def _terrace(d: Draft) -> Plan:
    """Broad steps between a lower square and an upper terrace, planters and rails."""
    near, far, half, rng = d.near, d.far, d.half, d.rng
    low = near + (far - near) * rng.uniform(0.32, 0.38)
    high = low + 3.2
    d.paving(band(-FAR, FAR))
    d.areas.append(Area("path", band(low, high), tuple(max(0, value - 6) for value in d.areas[0].colour), "steps", 0.4))
    d.lawn(((0.75 * half, low - 0.5), (FAR, low - 0.5), (FAR, high + 0.5), (0.75 * half, high + 0.5)))
    for x in (-0.85, 0.02, 0.72):
        for y in np.linspace(low - 0.2, high + 0.2, 4):
            d.put("bollard", (x * half, float(y)), colour=(112, 114, 116), size=1.0)
    back = near + (far - near) * 0.72
    d.wall((-3 * half, back), (3 * half, back), float(rng.uniform(7, 12)), doors=(0.4, 0.58))
    d.put("planter", (-1.05 * half, high + 1.5), size=1.2, colour=d.tone((72, 98, 58), 9))
    d.put("planter", (0.5 * half, back - 1.6), size=1.1, colour=d.tone((72, 98, 58), 9))
    d.trees([(1.0 * half, (low + high) / 2), (-0.75 * half, back - 2.2)])
    d.bench((0.3 * half, high + 0.9), -math.pi / 2)
    d.bench((-0.6 * half, near + (low - near) * 0.75), 0.0)
    d.put("bin", (0.42 * half, high + 0.9), colour=(70, 72, 70))
    d.put("pole", (-0.45 * half, low - 0.7), colour=(62, 64, 66))
    d.parked([(-0.2 * half + 0.6 * index, back - 1.0) for index in range(4)], math.pi / 2)
    a, b, c = near + (low - near) * 0.3, near + (low - near) * 0.7, (high + back) / 2
    wide = 6 * half
    doors = [(-3 * half + wide * share, back - 0.3) for share in (0.4, 0.58)]
    walks = [
        ((-FAR, a), (FAR, b)),
        ((FAR, a), (-FAR, a + 0.5)),
        ((-FAR, c), (FAR, c + 0.4)),
        ((-0.4 * half, -FAR), (-0.4 * half, low), (-0.35 * half, high), doors[0]),
        (doors[1], (0.4 * half, high), (0.42 * half, low), (FAR, b)),
        ((0.2 * half, -FAR), (0.2 * half, low), (0.25 * half, high), (FAR, c)),
    ]
    return d.plan(walks, [(-0.7 * half, high + 1.0), (0.5 * half, b), (0.1 * half, back - 1.0)])


TEMPLATES: Mapping[str, Callable[[Draft], Plan]] = {
    "sidewalk": _sidewalk,
    "plaza": _plaza,
    "crossing": _crossing,
    "lawn": _lawn,
    "courtyard": _courtyard,
    "roof": _roof,
    "parking": _parking,
    "terrace": _terrace,
}


def draft(template: str, seed: int, *, camera: Camera) -> Plan:
    """The ground plan that a template makes for a camera; same arguments, same plan."""
    return TEMPLATES[template](Draft(camera, np.random.default_rng([seed, 77])))
