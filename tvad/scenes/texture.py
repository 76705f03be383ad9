"""Textures of the ground in metres, and flat polygons on it: tiles, grass, asphalt, wear, without moire far away."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float

from tvad.scenes.camera import NEAR, Camera
from tvad.scenes.plans import Area


@lru_cache(maxsize=1)
def noise_tile() -> Float[np.ndarray, "256 256"]:
    """Smooth seamless noise, mean 0, spread 1."""
    white = np.random.default_rng(99).standard_normal((256, 256))
    spectrum = np.fft.fft2(white)
    radius = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None])
    smooth = np.fft.ifft2(spectrum * np.exp(-((radius / 0.16) ** 2))).real
    return (smooth / smooth.std()).astype(np.float32)


def noise(x: np.ndarray, y: np.ndarray, cell: float, *, seed: int = 0) -> np.ndarray:
    """Noise at ground points, whose grains are about ``cell`` metres wide."""
    shape, width = np.shape(x), 1024  # OpenCV remaps no side longer than 32,767
    maps = []
    for values, shift in ((x, seed % 251), (y, seed % 241)):
        flat = np.zeros(-(-values.size // width) * width, np.float32)
        np.multiply(np.ravel(values), 3.0 / cell, out=flat[: values.size], casting="unsafe")
        flat += shift
        maps.append(np.clip(flat, -30000, 30000, out=flat).reshape(-1, width))
    picked = cv2.remap(noise_tile(), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return picked.ravel()[: np.size(x)].reshape(shape)


def joints(along: np.ndarray, pitch: float, footprint: np.ndarray, *, width: float = 0.03) -> np.ndarray:
    """0..1: how much of a pixel is covered by the joints at multiples of ``pitch``; fades where they are too fine."""
    distance = np.abs((along / pitch + 0.5) % 1.0 - 0.5) * pitch
    reach = np.maximum(width, 0.6 * footprint)
    return (
        np.clip(1.2 - distance / reach, 0, 1)
        * np.minimum(1, width / (0.45 * footprint))
        * np.clip(1.5 - 3 * footprint / pitch, 0, 1)
    )


def texture(area: Area, x: np.ndarray, y: np.ndarray, foot: np.ndarray, deep: np.ndarray, seed: int) -> np.ndarray:
    """Brightness factor of ground points of an area; ``foot``, ``deep``: pixel size across and along, metres."""

    def fine(cell: float) -> np.ndarray:
        return noise(x, y, cell, seed=seed) * np.clip(cell / (1.2 * deep), 0, 1)

    factor = 1 + 0.022 * fine(6.0) + 0.014 * fine(1.6) + 0.02 * fine(0.3) + 0.03 * fine(0.09)
    cos, sin = np.cos(area.turn), np.sin(area.turn)
    u, v, pitch = cos * x + sin * y, cos * y - sin * x, area.pitch
    if area.texture in ("slabs", "tiles", "brick"):
        tones = np.random.default_rng(seed).normal(0, 0.028 if area.texture == "slabs" else 0.045, (64, 64))
        ratio = 0.5 if area.texture == "brick" else 1.0
        row = np.floor(v / (pitch * ratio))
        shifted = u + (row % 2) * pitch / 2 if area.texture == "brick" else u
        cell = tones[(row % 64).astype(int), (np.floor(shifted / pitch) % 64).astype(int)]
        factor += cell * np.clip(pitch / (1.5 * deep), 0, 1)
        dark = 0.26 if area.texture == "slabs" else 0.2
        factor -= dark * np.maximum(joints(shifted, pitch, foot), joints(v, pitch * ratio, deep))
    elif area.texture == "grass":
        factor += (
            0.04 * fine(3.0)
            + 0.05 * fine(0.6)
            + 0.10 * fine(0.2)
            + 0.12 * fine(0.08)
            + 0.025 * np.sign(np.sin(u * 1.9 + 0.4 * fine(5.0)))
        )
    elif area.texture == "asphalt":
        factor += 0.05 * fine(0.12) - 0.10 * np.clip(noise(x, y, 4.0, seed=seed) - 1.2, 0, 1)
    elif area.texture == "gravel":
        factor += 0.05 * fine(0.2) + 0.06 * fine(0.8)
    elif area.texture == "steps":
        factor += 0.20 * (joints(v, pitch, deep, width=0.05)) - 0.24 * joints(v + 0.12, pitch, deep, width=0.07)
    elif area.texture == "worn":
        factor -= 0.12 * np.clip(fine(0.4) + fine(0.15), 0, 2)
    return factor


def _clip_near(camera: Camera, points: np.ndarray) -> np.ndarray:
    """A ground polygon (k, 3) cut at the near plane of the camera; may come out empty."""
    depth = (points - camera.position) @ camera.axes[2] - 2 * NEAR
    kept = []
    for index in range(len(points)):
        other = (index + 1) % len(points)
        if depth[index] >= 0:
            kept.append(points[index])
        if (depth[index] >= 0) != (depth[other] >= 0):
            share = depth[index] / (depth[index] - depth[other])
            kept.append(points[index] + share * (points[other] - points[index]))
    return np.array(kept).reshape(-1, 3)


def fill(target: np.ndarray, camera: Camera, points: np.ndarray, value, size: tuple[int, int]) -> None:
    """Fill the picture of a flat polygon, in place."""
    kept = _clip_near(camera, points)
    if len(kept) >= 3:
        pixels = np.clip(camera.project(kept, size=size)[0], -60000, 60000)
        cv2.fillPoly(target, [np.round((pixels - 0.5) * 16).astype(np.int32)], value, cv2.LINE_8, 4)


def on_ground(points) -> Float[np.ndarray, "k 3"]:
    """Ground points (k, 2) with height zero."""
    flat = np.asarray(points, float)
    return np.concatenate([flat, np.zeros((len(flat), 1))], 1)
