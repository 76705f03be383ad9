"""Cast shadows: whether the footage has them, how dark they are, and where the sun stands.

A cast shadow multiplies the light of the ground by one and the same factor wherever it falls, while clothes are of all
shades: among smooth changes of the picture it shows as a narrow peak of the ratio to the background.  The sun is where
simulated people, put where the real ones stand, cast their shadows onto the real shadows.
"""
from __future__ import annotations

import math
from typing import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from tvad.scenes.camera import Camera
from tvad.scenes.draw import SHIFT, Light, cast_shadows, flatten
from tvad.scenes.types import Stroke

_SMOOTH = 0.10      # spread of the ratio within a shadow, over 3x3 pixels
_NEAR = 0.09        # ratios this far from a shadow's are the shadow still
_DARKEST, _LIGHTEST = 0.38, 0.8   # the sky always leaves something; fainter shadows do no harm
_TINT = 20.0        # grey levels by which a shadow's colour may differ from the darkened ground's
_BODY = ((0.0, 0.85, 0.13), (0.85, 1.45, 0.17), (1.45, 1.7, 0.11))   # legs, trunk, head: from, to, radius in metres
AZIMUTHS = np.arange(24) * (2 * math.pi / 24)
ELEVATIONS = (0.35, 0.5, 0.7, 0.9, 1.15)


def ratio_map(frame: UInt8[np.ndarray, "h w 3"],
              background: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """The brightness against the background, averaged over 3x3 pixels, and where it is smooth and of the ground's hue."""
    now, then = frame.astype(np.float32), np.maximum(background.astype(np.float32), 12)
    ratio = now.mean(-1) / then.mean(-1)
    mean = cv2.blur(ratio, (3, 3))
    spread = np.sqrt(np.maximum(cv2.blur(ratio * ratio, (3, 3)) - mean * mean, 0))
    tint = np.abs(now - then * mean[..., None]).max(-1)
    return mean, (spread < _SMOOTH) & (cv2.blur(tint, (3, 3)) < _TINT)


def shadow_mask(frame: UInt8[np.ndarray, "h w 3"], background: UInt8[np.ndarray, "h w 3"],
                level: float) -> UInt8[np.ndarray, "h w"]:
    """255 where the ground lies in a shadow that leaves ``level`` of its light."""
    mean, smooth = ratio_map(frame, background)
    found = ((np.abs(mean - level) < _NEAR) & smooth).astype(np.uint8) * 255
    return cv2.dilate(cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.ones((3, 3), np.uint8))


def shadow_level(frames: Sequence[UInt8[np.ndarray, "h w 3"]], backgrounds: Sequence[UInt8[np.ndarray, "h w 3"]],
                 masks: Sequence[UInt8[np.ndarray, "h w"]]) -> float | None:
    """The light that cast shadows leave, as a share; None where the footage has none worth speaking of."""
    found, kept, total = [], [], 0
    for frame, background, mask in zip(frames, backgrounds, masks):
        mean, smooth = ratio_map(frame, background)
        usable = (mask > 0) & smooth & (mean > _DARKEST) & (mean < _LIGHTEST)
        found.append(mean[usable])
        kept.append((cv2.connectedComponents(mask)[1], np.where(usable, mean, 0)))
        total += int((mask > 0).sum())
    ratios = np.concatenate(found) if found else np.zeros(0)
    if total < 500 or len(ratios) < 0.08 * total:
        return None
    counts, edges = np.histogram(ratios, bins=42, range=(_DARKEST, _LIGHTEST))
    peak = int(np.convolve(counts, np.ones(9), "same").argmax())  # windows of 0.09
    level = float(np.median(ratios[np.abs(ratios - (edges[peak] + edges[peak + 1]) / 2) < 0.06]))
    share = float((np.abs(ratios - level) < 0.06).sum())
    if share < 0.08 * total or share < 0.4 * len(ratios):
        return None
    # Under the sun everybody has a shadow of this level; a coat of that shade is one person's.
    shaded = [_shares(labels, np.abs(mean - level) < 0.06) for labels, mean in kept]
    return level if float(np.mean(np.concatenate(shaded) > 0.08)) > 0.6 else None


def _shares(labels: Int[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "k"]:
    """Of each piece of at least 40 pixels, the share that is inside."""
    area = np.bincount(labels.ravel())
    hit = np.bincount(labels[inside], minlength=len(area))
    large = np.flatnonzero(area[1:] >= 40) + 1
    return hit[large] / area[large]


def find_sun(spots: Float[np.ndarray, "n 2"], shadows: Sequence[UInt8[np.ndarray, "h w"]], *, camera: Camera,
             size: tuple[int, int]) -> tuple[float, float]:
    """Azimuth and elevation (radians) at which people at ``spots`` (metres) cast the ``shadows`` seen (one mask each)."""
    bodies = [[Stroke(np.array([[x, y, low], [x, y, high]]), radius, (0, 0, 0), 0) for low, high, radius in _BODY]
              for x, y in spots]
    shapes = flatten(bodies)
    best, most = (0.8, 0.9), -1.0
    for elevation in ELEVATIONS:
        for azimuth in AZIMUTHS:
            light = Light(azimuth=float(azimuth), elevation=elevation, sun=1.0)
            scores = []
            for polygons, seen in zip(cast_shadows(shapes, camera=camera, light=light, size=size), shadows):
                drawn = np.zeros(size, np.uint8)
                for polygon in polygons:
                    cv2.fillConvexPoly(drawn, polygon, 255, cv2.LINE_8, SHIFT)
                area = cv2.countNonZero(drawn)
                if area > 8:
                    hit = cv2.countNonZero(cv2.bitwise_and(drawn, seen))
                    scores.append(hit / (area + cv2.countNonZero(seen) - hit))
            score = float(np.mean(scores)) if scores else 0.0
            if score > most:
                best, most = (float(azimuth), float(elevation)), score
    return best
