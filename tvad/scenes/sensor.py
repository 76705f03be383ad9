"""What happens between the scene and the stored frame: shake, blur, exposure drift, noise and compression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8

_BANK = 192  # rows and columns of noise beyond the frame, for random windows


@dataclass(frozen=True)
class Sensor:
    """Strengths: noise and blur in grey levels and pixels (standard deviation), JPEG quality (100: none),
    shake in pixels at 240 lines, exposure drift as a share."""

    noise: float = 2.0
    blur: float = 0.5
    quality: int = 80
    shake: float = 0.2
    drift: float = 0.005


@lru_cache(maxsize=16)
def _noise_bank(height: int, width: int, channels: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative parts of seeded noise, slightly smoothed as by demosaicking, to be cut at random places."""
    rng = np.random.default_rng(20240)
    noise = rng.standard_normal((height + _BANK, width + _BANK, channels)).astype(np.float32)
    if channels == 3:  # most of the noise is shared by the channels
        noise = 0.75 * noise[..., :1] + 0.45 * noise
    noise = cv2.GaussianBlur(noise, (3, 3), 0.5).reshape(noise.shape)
    noise *= sigma / noise.std()
    rounded = np.round(noise + rng.uniform(-0.3, 0.3, noise.shape))
    return np.maximum(rounded, 0).astype(np.uint8), np.maximum(-rounded, 0).astype(np.uint8)


class Exposure:
    """The sensor of one footage: its random walks are drawn at once, then every frame costs a few OpenCV calls.

    Frame ``k`` of the footage depends on the seed and ``k`` alone, wherever rendering starts.
    """

    def __init__(self, sensor: Sensor, *, seed: int, frames: int, size: tuple[int, int], channels: int) -> None:
        shift, gain, place = (np.random.default_rng([seed, 5, stream]) for stream in range(3))
        self.sensor, self.size, self.channels = sensor, size, channels
        self._shift: Float[np.ndarray, "n 2"] = _smooth_walk(shift, frames, 2) * sensor.shake * size[0] / 240
        self._gain: Float[np.ndarray, "n"] = 1 + _smooth_walk(gain, frames, 1)[:, 0] * sensor.drift
        self._places = place.integers(0, _BANK, (frames, 2))
        self._bank = _noise_bank(*size, channels, round(float(sensor.noise), 2)) if sensor.noise > 0 else None

    def move(self, index: int, frame: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frame and labels displaced by the camera's shake; labels by the nearest pixel."""
        if self.sensor.shake <= 0.01:
            return frame, labels
        right, down = self._shift[index]
        moved = _displace(frame, right, down)
        right, down = round(right), round(down)
        return moved, _displace(labels, right, down) if right or down else labels

    def expose(self, index: int, frame: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
        """The stored frame, three channels."""
        sensor = self.sensor
        if sensor.blur > 0.15:
            side = 3 if sensor.blur < 0.8 else 5
            sigma = sensor.blur * max(1.0, self.size[0] / 480)
            frame = cv2.GaussianBlur(frame, (side, side), sigma)
        if sensor.drift > 0:
            frame = cv2.convertScaleAbs(frame, alpha=float(self._gain[index]))
        if self._bank is not None:
            row, column = self._places[index]
            window = np.s_[row : row + self.size[0], column : column + self.size[1]]
            shape = frame.shape
            frame = cv2.subtract(
                cv2.add(frame, self._bank[0][window].reshape(shape)), self._bank[1][window].reshape(shape)
            )
        grey = self.channels == 1
        if sensor.quality < 100:
            coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, sensor.quality])[1]
            frame = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
        return cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if grey else frame


def _displace(image: np.ndarray, right: float, down: float) -> np.ndarray:
    """The image moved by parts of pixels (bilinear), its border repeated; several times faster than a warp."""
    height, width = image.shape[:2]
    column, row = int(np.floor(-right)), int(np.floor(-down))
    reach = max(abs(column), abs(row)) + 1
    wide = cv2.copyMakeBorder(image, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    top, left = reach + row, reach + column
    across, along = -right - column, -down - row
    if across:
        wide = cv2.addWeighted(wide[:, :-1], 1 - across, wide[:, 1:], across, 0)
    if along:
        wide = cv2.addWeighted(wide[:-1], 1 - along, wide[1:], along, 0)
    return np.ascontiguousarray(wide[top : top + height, left : left + width]).reshape(image.shape)


def _smooth_walk(rng: np.random.Generator, frames: int, count: int) -> Float[np.ndarray, "n c"]:
    """Random walks of unit spread that return to zero, with a short memory (an elastic mast)."""
    walk, value = np.zeros((frames, count)), np.zeros(count)
    for index, push in enumerate(rng.standard_normal((frames, count))):
        value = 0.85 * value + 0.53 * push
        walk[index] = value
    return walk
