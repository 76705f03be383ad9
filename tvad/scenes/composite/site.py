"""A real place as the simulator's behaviours need it: camera, where people walk and which way, and how things look."""
from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from tvad.scenes.camera import NEAR, Camera

_SPREAD = 0.16   # radians: how far a pasted walker's way may differ from that of the people seen
_PATH_STEP = 1.0  # metres between points of a path
_REACH = 60.0    # metres that a path is followed to either side, at most


@dataclass(frozen=True)
class Look:
    """What the camera makes of what stands before it.

    ``tones``: grey levels (256) that simulated brightness turns into; ``grey``: the footage has no colour;
    ``saturation``: of pasted colours against simulated ones; ``blur``: standard deviation of the point spread in pixels;
    ``sharpen``: strength of the camera's own sharpening (0 none); ``noise``: standard deviation in grey levels;
    ``shadow``: share of light left beneath the feet (1: no shadow); ``sun``: azimuth and elevation (radians) where people
    cast shadows that leave ``cast`` of the light, None under an overcast sky; ``measured``: pixels of
    people it was taken from.
    """
    tones: UInt8[np.ndarray, "256"] = field(default_factory=lambda: np.arange(256, dtype=np.uint8))
    grey: bool = False
    saturation: float = 0.8
    blur: float = 0.6
    sharpen: float = 0.0
    noise: float = 1.5
    shadow: float = 0.8
    sun: tuple[float, float] | None = None
    cast: float | None = None
    measured: int = 0


@dataclass(frozen=True)
class Site:
    """One camera's place, as :func:`tvad.scenes.composite.survey.survey` finds it.

    ``size`` (height, width) of the frames; ``line``: pixel height of a person = line[0] + line[1] * foot row;
    ``feet`` (k, 2) pixels where people stood and ``headings`` (k,) which way they went on the ground, radians;
    ``pace``: how much faster than simulated walkers the people move a second of footage (frame rates may be wrong);
    ``people``: single people found, ``density``: pieces of foreground a frame.
    """
    name: str
    size: tuple[int, int]
    fps: float
    camera: Camera
    line: tuple[float, float]
    feet: Float[np.ndarray, "k 2"]
    headings: Float[np.ndarray, "k"]
    pace: float
    look: Look
    people: int
    density: float
    fingerprint: str

    def place(self, rng: np.random.Generator, *, near: Sequence[float] | None = None) -> Place:
        """A small part of the site for one actor or group: a way that people go, through a place where somebody walked.

        ``near``: a ground point (metres) that the way shall pass within a step, instead of a drawn one.
        """
        row = int(rng.integers(len(self.feet)))
        heading = float(self.headings[row] + rng.normal(0, _SPREAD))
        if near is not None:
            point = np.asarray(near, float) + rng.normal(0, 0.5, 2)
        else:
            point = self.camera.ground(self.feet[row], size=self.size) + rng.normal(0, 0.4, 2)
        return Place(self, point, heading)

    def pixels_high(self, foot_row: float) -> float:
        """Height in pixels of an average person whose feet are at this row."""
        return max(4.0, self.line[0] + self.line[1] * foot_row)

    def summary(self) -> dict[str, Any]:
        """What was estimated, as plain numbers for a report."""
        look = {key: value for key, value in asdict(self.look).items() if key != "tones"}
        look["tones_at_0_64_128_192_255"] = [int(self.look.tones[level]) for level in (0, 64, 128, 192, 255)]
        middle = 0.5 * self.size[0]
        return {"name": self.name, "size": list(self.size), "fps": self.fps, "people": self.people,
                "density": round(self.density, 2), "pace": round(self.pace, 3),
                "person_pixels": {"middle_row": round(self.pixels_high(middle), 1),
                                  "lowest_row": round(self.pixels_high(self.size[0]), 1)},
                "camera": {"height_m": round(self.camera.height, 2),
                           "tilt_degrees": round(math.degrees(self.camera.tilt), 1),
                           "focal_frame_heights": round(self.camera.focal, 2)},
                "look": {key: round(value, 3) if isinstance(value, float) else value for key, value in look.items()}}


class Place:
    """A straight way through a ground point of a site; implements :class:`tvad.scenes.types.Ground` for one actor."""

    def __init__(self, site: Site, point: Float[np.ndarray, "2"], heading: float) -> None:
        self.site, self.name, self.point, self.heading = site, site.name, np.asarray(point, float), heading
        self._lens = site.camera.position.tolist(), *site.camera.axes.tolist(), site.camera.focal
        way = np.array([math.cos(heading), math.sin(heading)])
        steps = np.arange(-_REACH, _REACH + 0.1, _PATH_STEP)
        line = self.point + steps[:, None] * way
        seen = np.array([self.visible(spot, -1.5) for spot in line])
        middle = len(steps) // 2
        # the run of points in view around the middle, and one more at either end
        first = middle - int(np.argmin(np.append(seen[middle::-1], False)))
        last = middle + int(np.argmin(np.append(seen[middle:], False)))
        first, last = max(first, 0), min(last, len(line) - 1)
        if last - first < 3:
            first, last = max(0, middle - 2), min(len(line) - 1, middle + 2)
        self._path = line[first:last + 1]

    def paths(self) -> Sequence[Float[np.ndarray, "k 2"]]:
        """The one way, metres."""
        return (self._path,)

    def stands(self) -> Sequence[Float[np.ndarray, "2"]]:
        """The point itself."""
        return (self.point,)

    def seats(self) -> Sequence[tuple[Float[np.ndarray, "2"], float]]:
        """None: nobody knows where benches are."""
        return ()

    def corners(self) -> Sequence[Float[np.ndarray, "2"]]:
        """The point itself, for those who linger."""
        return (self.point,)

    def visible(self, xy: Float[np.ndarray, "2"], margin: float = 0.0) -> bool:
        """Whether a ground point lies in the frame, ``margin`` metres inside its border (negative: outside)."""
        origin, right, up, forward, focal = self._lens
        x, y, z = float(xy[0]) - origin[0], float(xy[1]) - origin[1], -origin[2]
        depth = forward[0] * x + forward[1] * y + forward[2] * z
        if depth <= NEAR:
            return False
        edge = margin / depth
        across = (right[0] * x + right[1] * y + right[2] * z) / depth
        upward = (up[0] * x + up[1] * y + up[2] * z) / depth
        wide = self.site.size[1] / self.site.size[0]
        return abs(across) <= 0.5 * wide / focal - edge and abs(upward) <= 0.5 / focal - edge

    def metre(self, xy: Float[np.ndarray, "2"]) -> float:
        """Pixels that a metre fills there, counted as in a frame of 240 lines."""
        return float(self.site.camera.scale(xy, size=self.site.size)) * 240 / self.site.size[0]
