"""Simulated actors drawn alone, with coverage and contact shadow, and put into a real frame as its camera would see them.

What an actor changes is a signed difference layer; the camera's point spread (blur and its own sharpening) acts on that
layer, so that edges have the softness and the halo of real edges and the real frame keeps every pixel elsewhere.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from tvad.scenes.camera import NEAR, Camera
from tvad.scenes.composite.site import Look
from tvad.scenes.draw import SHIFT, Grade, Light, Outlines, cast_shadows, flatten, outline
from tvad.scenes.types import PART_INDEX, Shape

_LIGHT = Light(azimuth=0.8, elevation=1.1, sun=0.12)  # nearly overcast: the shading of a direction unknown
_FINE = 2            # drawn at twice the frame's resolution
_BANK = 512          # pixels of the banks of cloth and noise
_PEOPLE = frozenset({-1, *(PART_INDEX[name] for name in ("head", "torso", "arm", "leg", "bag", "umbrella"))})
_CLOTH = 0.13        # folds, straps and pockets: relative spread of brightness within a garment


@dataclass(frozen=True)
class Stamp:
    """One actor in one frame, within the box that starts at (``top``, ``left``), pixels.

    ``colour``: levels times coverage; ``alpha``: coverage 0..1; ``shade``: contact shadow 0..1 on the ground;
    ``foot``: row of its ground point; ``depth`` in metres.
    """
    top: int
    left: int
    colour: Float[np.ndarray, "h w c"]
    alpha: Float[np.ndarray, "h w"]
    shade: Float[np.ndarray, "h w"]
    foot: float
    depth: float

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns in the frame."""
        return (slice(self.top, self.top + self.alpha.shape[0]), slice(self.left, self.left + self.alpha.shape[1]))


@lru_cache(maxsize=8)
def _banks(scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Seeded unit noise: of a sensor (a little smooth, as from codecs), and of cloth (``scale`` pixels)."""
    rng = np.random.default_rng(40320)
    sensor = cv2.GaussianBlur(rng.standard_normal((_BANK, _BANK)).astype(np.float32), (0, 0), 0.7)
    cloth = sum(cv2.GaussianBlur(rng.standard_normal((_BANK, _BANK)).astype(np.float32), (0, 0), sigma) * sigma
                for sigma in (0.5 * scale, 1.0 * scale, 2.0 * scale))
    return sensor / sensor.std(), cloth / cloth.std()


def _window(bank: Float[np.ndarray, "b b"], row: int, column: int, shape: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """A part of a bank; it goes on from the other side, so that large actors have noise and folds too."""
    rows, columns = (np.arange(first, first + length) % _BANK for first, length in zip((row, column), shape))
    return bank[np.ix_(rows, columns)]


def draw_stamps(groups: Sequence[Sequence[Shape]], centres: Float[np.ndarray, "g 3"], *, camera: Camera,
                size: tuple[int, int], look: Look, seeds: Sequence[int]) -> list[Stamp | None]:
    """A stamp for each group of shapes (an actor in a frame); None for those outside the frame.

    ``centres``: the actors' ground points, metres; ``seeds``: one number an actor, which fixes its cloth and contrast
    over frames.
    """
    fine = (size[0] * _FINE, size[1] * _FINE)
    shapes = flatten(groups)
    light = _LIGHT if look.sun is None else Light(azimuth=look.sun[0], elevation=look.sun[1], sun=0.7)
    grade = Grade(saturation=look.saturation, grey=look.grey)
    drawn = outline(shapes, centres, camera=camera, light=light, grade=grade, size=fine)
    shadows = cast_shadows(shapes, camera=camera, light=light, size=fine)
    pixels, depth = camera.project(centres, size=size) if len(centres) else (np.zeros((0, 2)), np.zeros(0))
    return [_stamp(outlines, polygons, size=size, look=look, seed=seed, foot=float(pixel[1]), depth=float(far),
                   per_metre=camera.focal * size[0] / max(float(far), NEAR))
            for outlines, polygons, seed, pixel, far in zip(drawn, shadows, seeds, pixels, depth)]


def _stamp(outlines: Outlines, shadow: Sequence[np.ndarray], *, size: tuple[int, int], look: Look, seed: int, foot: float,
           depth: float, per_metre: float) -> Stamp | None:
    if not outlines.polygons:
        return None
    low, high = np.array(outlines.low) / _FINE, np.array(outlines.high) / _FINE
    tall = float(high[1] - low[1])
    if look.sun is not None and shadow:
        corners = np.concatenate(list(shadow)) / (_FINE << SHIFT)
        low, high = np.minimum(low, corners.min(0)), np.maximum(high, corners.max(0))
    pad = 4 + 0.12 * (high[1] - low[1])
    left, top = (int(max(0, np.floor(value - pad))) for value in low)
    right, bottom = (int(min(limit, np.ceil(value + pad))) for value, limit in zip(high, size[::-1]))
    if left >= right - 1 or top >= bottom - 1:
        return None
    shape = ((bottom - top) * _FINE, (right - left) * _FINE)
    shift = np.array([left, top], np.int32) * (_FINE << SHIFT)
    colours = 1 if look.grey else 3
    canvas, cover, cloth = np.zeros((*shape, colours), np.uint8), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    fill, rides = cv2.fillConvexPoly, not _PEOPLE.issuperset(outlines.parts)
    for polygon, colour, part in zip(outlines.polygons, outlines.colours, outlines.parts):
        moved = polygon - shift
        fill(canvas, moved, colour[:colours], cv2.LINE_8, SHIFT)
        if part >= 0:
            fill(cover, moved, 255, cv2.LINE_8, SHIFT)
            if rides:
                fill(cloth, moved, 255 if part in _PEOPLE else 0, cv2.LINE_8, SHIFT)
    ground = np.zeros(shape, np.uint8)
    for polygon in shadow:
        fill(ground, polygon - shift, 255, cv2.LINE_8, SHIFT)
    canvas = _toned(canvas, look, seed)
    canvas[cover == 0] = 0
    inner = (right - left, bottom - top)
    colour = cv2.resize(canvas, inner, interpolation=cv2.INTER_AREA).reshape(inner[1], inner[0], colours).astype(np.float32)
    alpha = cv2.resize(cover, inner, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    # The edge of a cast shadow is sharp, what the sky leaves dark beneath a body is not.
    soft = 0.035 * tall if look.sun is None else 0.7 * look.blur
    shade = cv2.GaussianBlur(cv2.resize(ground, inner, interpolation=cv2.INTER_AREA), (0, 0), max(0.8, soft))
    folds = _banks(max(1, round(1.7 * per_metre / 24)))[1]
    # Cloth moves with its wearer: the window is fixed to the middle of the box, not to the frame.
    row = (seed * 7919 + top - round(float(low[1]))) % (_BANK // 2)
    column = (seed * 104729 + left - round(float(low[0] + high[0]) / 2)) % (_BANK // 2)
    worn = cv2.resize(cloth, inner, interpolation=cv2.INTER_AREA).astype(np.float32) / 255 if rides else 1.0
    colour *= np.clip(1 + _CLOTH * _window(folds, row, column, alpha.shape) * worn, 0.55, 1.5)[..., None]
    return Stamp(top, left, colour, alpha, shade.astype(np.float32) / 255, foot, depth)


def _toned(canvas: UInt8[np.ndarray, "h w c"], look: Look, seed: int) -> UInt8[np.ndarray, "h w c"]:
    """Simulated colours as the real camera's levels; each actor a little lighter or darker than the rule."""
    gain = 1 + 0.10 * (((seed * 2654435761) >> 7) % 1000 / 500 - 1)
    table = np.clip(look.tones.astype(np.float32) * gain, 0, 255).astype(np.uint8)
    if canvas.shape[2] == 1:
        return table[canvas]
    luma = cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY)
    change = cv2.LUT(luma, table).astype(np.int16) - luma
    return np.clip(canvas.astype(np.int16) + change[..., None], 0, 255).astype(np.uint8)


def spread(layer: Float[np.ndarray, "h w c"], look: Look) -> Float[np.ndarray, "h w c"]:
    """The camera's point spread on a difference layer: blur, then unsharp masking where the camera sharpens."""
    shape = layer.shape
    if look.blur > 0.2:
        layer = cv2.GaussianBlur(layer, (0, 0), look.blur)
    if look.sharpen > 0:
        wide = max(1.0, 1.6 * look.blur)
        layer = (1 + look.sharpen) * layer - look.sharpen * cv2.GaussianBlur(layer, (0, 0), wide)
    return layer.reshape(shape)


def paste(frame: Float[np.ndarray, "h w c"], stamp: Stamp, *, hidden: Float[np.ndarray, "h w"], look: Look,
          noise_at: tuple[int, int]) -> Float[np.ndarray, "sh sw"]:
    """Put a stamp into ``frame`` (float levels, in place) and return its visible coverage within ``stamp.box``.

    ``hidden`` (of the whole frame, 0..1): coverage by what stands nearer.
    """
    spot = stamp.box
    under, free = frame[spot], 1 - hidden[spot]
    dark = under * (1 - (1 - look.shadow) * stamp.shade * free)[..., None] if look.shadow < 1 else under
    alpha = stamp.alpha * free
    change = dark * (1 - alpha)[..., None] + stamp.colour * free[..., None] - under
    change = spread(np.ascontiguousarray(change), look)
    if look.noise > 0.3:
        row, column = noise_at
        change += (look.noise * _window(_banks(1)[0], row, column, alpha.shape) * alpha)[..., None]
    frame[spot] = np.clip(under + change, 0, 255)
    return alpha
