"""From the heights of people in the picture to a pinhole camera that gives such heights to people of 1.7 m.

How high people stand at each row fixes the horizon and, with it, one relation between focal length and tilt; the rest
is not in the heights.  Of the cameras that fit, the one nearest to a usual surveillance camera is taken.
"""
from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import least_squares

from tvad.scenes.camera import Camera

PERSON = 1.70      # metres, of an average grown person with shoes and hair
_USUAL_FOCAL = 1.6  # frame heights
_STEEP = 0.42      # pixels a person grows by for every row that the feet are lower
_USUAL_TILT = math.radians(28)
DEFAULT = Camera(height=7.0, tilt=_USUAL_TILT, focal=_USUAL_FOCAL)


def fit_heights(feet: Float[np.ndarray, "n"], heights: Float[np.ndarray, "n"], *, tolerance: float = 0.14,
                seed: int = 0) -> tuple[tuple[float, float], Bool[np.ndarray, "n"]]:
    """The line ``height = base + slope * foot row`` on which most blobs lie, and which of them do (RANSAC, then medians).

    Lengths in pixels.  Pieces of people lie below the line and groups above it, each at many heights, while single
    people agree.  Nobody becomes smaller towards the camera, so the slope is at least 0.
    """
    feet, heights = np.asarray(feet, float), np.asarray(heights, float)
    rng = np.random.default_rng([seed, 31])
    low, high = feet.min(), feet.max()
    candidates = [(float(np.median(heights)), 0.0)]
    for _ in range(400):
        one, two = rng.integers(len(feet), size=2)
        if abs(feet[one] - feet[two]) < 0.15 * max(high - low, 1.0):
            candidates.append((float(heights[one]), 0.0))
            continue
        slope = (heights[one] - heights[two]) / (feet[one] - feet[two])
        candidates.append((float(heights[one] - slope * feet[one]), float(slope)))
    best, score = candidates[0], -1.0
    # Each stretch of rows counts alike, or the busiest would decide on the slope.
    row = np.minimum((feet - low) / max(high - low, 1e-6) * 6, 5).astype(int)
    weight = 1 / np.sqrt(np.bincount(row, minlength=6)[row])
    for base, slope in candidates:
        line = base + slope * feet
        if not 0 <= slope < 1.5 or line.min() < 4:
            continue
        # The slope is about 1.7 m over the camera's height: cameras lower than 4 m are rare, and groups, the taller the
        # nearer their last member, feign one.
        found = weight[np.abs(heights - line) < tolerance * line].sum() / (1 + (slope / _STEEP) ** 2)
        if found > score:
            best, score = (base, slope), found
    for _ in range(5):
        line = best[0] + best[1] * feet
        near = np.abs(heights - line) < tolerance * line
        if near.sum() < 8:
            break
        best = _least_absolute(feet[near], heights[near], weight[near])
    line = best[0] + best[1] * feet
    return best, np.abs(heights - line) < tolerance * np.maximum(line, 1.0)


def _least_absolute(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Weighted least absolute deviations by reweighting, slope kept in 0..1.5."""
    each = weight.copy()
    for _ in range(20):
        mean_x, mean_y = np.average(x, weights=each), np.average(y, weights=each)
        spread = np.average((x - mean_x) ** 2, weights=each)
        slope = float(np.clip(np.average((x - mean_x) * (y - mean_y), weights=each) / max(spread, 1e-6), 0.0, 1.5))
        base = float(mean_y - slope * mean_x)
        each = weight / np.maximum(np.abs(y - base - slope * x), 0.5)
    return base, slope


def solve_camera(line: tuple[float, float], rows: tuple[float, float], size: tuple[int, int]) -> Camera:
    """The camera in whose picture a person of ``PERSON`` metres whose feet are at a row is as high as ``line`` says.

    ``line``: base and slope of :func:`fit_heights`; ``rows``: first and last row at which people's feet were seen;
    ``size``: (height, width) of the frame.
    """
    feet = np.linspace(rows[0], max(rows[1], rows[0] + 0.05 * size[0]), 7)
    wanted = np.maximum(line[0] + line[1] * feet, 4.0)

    def camera(values: Float[np.ndarray, "3"]) -> Camera:
        return Camera(height=math.exp(values[0]), tilt=float(values[1]), focal=math.exp(values[2]))

    def misfit(values: Float[np.ndarray, "3"]) -> Float[np.ndarray, "9"]:
        seen = person_pixels(camera(values), feet, size)
        usual = [(values[1] - _USUAL_TILT) / math.radians(12), (values[2] - math.log(_USUAL_FOCAL)) / 0.35]
        return np.concatenate([np.clip(np.log(seen / wanted), -3, 3) * 60, usual])

    middle = float(np.median(wanted)) / size[0]
    bounds = ([math.log(1.5), math.radians(4), math.log(0.5)], [math.log(150.0), math.radians(75), math.log(8.0)])
    tries = []
    for tilt in (12, 28, 45):
        depth = PERSON * _USUAL_FOCAL / middle
        height = np.clip(depth * math.sin(math.radians(tilt)), 2, 140)
        start = [math.log(height), math.radians(tilt), math.log(_USUAL_FOCAL)]
        tries.append(least_squares(misfit, start, bounds=bounds))
    return camera(min(tries, key=lambda found: found.cost).x)


def person_pixels(camera: Camera, rows: Float[np.ndarray, "k"], size: tuple[int, int]) -> Float[np.ndarray, "k"]:
    """Height in pixels of an average person whose feet are at these rows, in the middle column; 1e-3 above the horizon."""
    rows = np.asarray(rows, float)
    ground = camera.ground(np.stack([np.full_like(rows, size[1] / 2), rows], -1), size=size)
    below = np.isfinite(ground).all(-1)
    feet = np.concatenate([np.where(below[:, None], ground, 0.0), np.zeros((len(rows), 1))], -1)
    tops, depth = camera.project(feet + (0, 0, PERSON), size=size)
    return np.where(below & (depth > 0.5), np.maximum(rows - tops[:, 1], 1e-3), 1e-3)
