"""The surveillance camera: a pinhole above the ground that looks along +y and down.

Lengths of the picture are measured in frame heights, so the same camera serves any frame size.  Image x runs to the
right, y down, in pixels, with the pixel centre at whole numbers plus one half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

DEFAULT_SIZE: tuple[int, int] = (240, 360)  # height, width
NEAR = 0.3  # metres in front of the lens; nearer points are not drawn


@dataclass(frozen=True)
class Camera:
    """A fixed camera ``height`` metres up, turned down by ``tilt`` and about its axis by ``roll`` (radians).

    ``focal`` is in frame heights.  The middle of the picture shows the ground point ``look`` (metres).
    """

    height: float
    tilt: float
    focal: float
    roll: float = 0.0
    look: tuple[float, float] = (0.0, 0.0)

    @property
    def position(self) -> Float[np.ndarray, "3"]:
        """Where the lens is, in metres."""
        return np.array([self.look[0], self.look[1] - self.height / math.tan(self.tilt), self.height])

    @property
    def axes(self) -> Float[np.ndarray, "3 3"]:
        """Rows: image right, image up and forward as unit vectors of the world."""
        sin, cos = math.sin(self.tilt), math.cos(self.tilt)
        right, up, forward = np.array([1.0, 0, 0]), np.array([0, sin, cos]), np.array([0, cos, -sin])
        turn_cos, turn_sin = math.cos(self.roll), math.sin(self.roll)
        return np.stack([turn_cos * right + turn_sin * up, turn_cos * up - turn_sin * right, forward])

    def project(
        self,
        points: Float[np.ndarray, "... 3"],
        *,
        size: tuple[int, int] = DEFAULT_SIZE,
    ) -> tuple[Float[np.ndarray, "... 2"], Float[np.ndarray, "..."]]:
        """Pixels (x, y) of world points, and their depth in metres along the line of sight.

        Points nearer than ``NEAR`` keep their true depth; their pixels are finite but have no meaning.
        """
        height, width = size
        seen = (np.asarray(points, np.float64) - self.position) @ self.axes.T
        depth = seen[..., 2]
        scale = self.focal * height / np.maximum(depth, NEAR)
        pixels = np.stack([width / 2 + scale * seen[..., 0], height / 2 - scale * seen[..., 1]], -1)
        return pixels, depth

    def ground(
        self,
        pixels: Float[np.ndarray, "... 2"],
        *,
        size: tuple[int, int] = DEFAULT_SIZE,
    ) -> Float[np.ndarray, "... 2"]:
        """Ground points (x, y) in metres under pixels; nan at and above the horizon."""
        height, width = size
        pixels = np.asarray(pixels, np.float64)
        across = (pixels[..., 0] - width / 2) / (self.focal * height)
        upward = (height / 2 - pixels[..., 1]) / (self.focal * height)
        right, up, forward = self.axes
        ray = across[..., None] * right + upward[..., None] * up + forward
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(ray[..., 2] < -1e-6, -self.height / ray[..., 2], np.nan)
        return self.position[:2] + ray[..., :2] * reach[..., None]

    def scale(
        self, xy: Float[np.ndarray, "... 2"], *, size: tuple[int, int] = DEFAULT_SIZE
    ) -> Float[np.ndarray, "..."]:
        """Pixels a metre, across the line of sight, at ground points; 0 behind the camera."""
        xy = np.asarray(xy, np.float64)
        _, depth = self.project(np.concatenate([xy, np.zeros_like(xy[..., :1])], -1), size=size)
        return np.where(depth > NEAR, self.focal * size[0] / np.maximum(depth, NEAR), 0.0)

    def sees(
        self, xy: Float[np.ndarray, "... 2"], *, margin: float = 0.0, size: tuple[int, int] = DEFAULT_SIZE
    ) -> Bool[np.ndarray, "..."]:
        """Whether ground points lie in the picture, at least ``margin`` metres from its border (negative: outside)."""
        xy = np.asarray(xy, np.float64)
        pixels, depth = self.project(np.concatenate([xy, np.zeros_like(xy[..., :1])], -1), size=size)
        edge = margin * self.focal * size[0] / np.maximum(depth, NEAR)
        inside = (pixels[..., 0] >= edge) & (pixels[..., 0] <= size[1] - edge)
        return inside & (pixels[..., 1] >= edge) & (pixels[..., 1] <= size[0] - edge) & (depth > NEAR)
