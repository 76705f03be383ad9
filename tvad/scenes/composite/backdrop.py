"""The still world behind the people of real footage: a robust background per stretch of time, and what moves before it."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from tvad.errors import DatasetError
from tvad.scenes.composite.sun import shadow_mask
from tvad.video.frames import Frames

BLOCK_SECONDS = 60.0  # light drifts; nobody stands still for half of it
SAMPLES = 31
_LEAST = 4.0          # grey levels: below this a difference is codec, whatever the noise


@dataclass(frozen=True)
class Blob:
    """One connected piece of foreground: box in pixels (``right`` and ``bottom`` exclusive), area in pixels."""
    left: int
    top: int
    right: int
    bottom: int
    area: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def foot(self) -> tuple[float, float]:
        """Middle of the lower edge, pixels (x, y)."""
        return (self.left + self.right) / 2, float(self.bottom)


class Background:
    """The median frame of every ``BLOCK_SECONDS`` of a video, and the video's noise.

    ``noise``: standard deviation of a still pixel in grey levels; ``sway``: how far the picture moves, in pixels (a mast
    in the wind).  ``shadow``: the light that cast shadows leave, where there are any: they are no foreground.

    Raises :class:`DatasetError` for a video of fewer than three frames, in which nothing tells the still from the moving.
    """

    def __init__(self, frames: Frames, *, block_seconds: float = BLOCK_SECONDS, samples: int = SAMPLES) -> None:
        if len(frames) < 3:
            raise DatasetError(f"{frames.name}: {len(frames)} frames; a background needs at least 3, give a longer video")
        blocks = max(1, round(len(frames) / (block_seconds * frames.fps)))
        self.edges: Int[np.ndarray, "b"] = np.linspace(0, len(frames), blocks + 1).astype(int)
        pictures, noises, steep = [], [], []
        for start, stop in zip(self.edges[:-1], self.edges[1:]):
            chosen = np.unique(np.linspace(start, stop - 1, min(samples, stop - start)).round().astype(int))
            stack = frames.take(chosen)
            pictures.append(_median(stack))
            noises.append(_noise(stack, pictures[-1]))
            steep.append(_gradient(pictures[-1]))
        self.pictures: UInt8[np.ndarray, "b h w 3"] = np.stack(pictures)
        self.noise, self.sway = (float(np.median(values)) for values in zip(*noises))
        self._steep: Float[np.ndarray, "b h w"] = np.stack(steep)
        self.shadow: float | None = None
        self.threshold = max(3 * _LEAST, 6 * self.noise)

    def at(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The background of frame ``index``."""
        return self.pictures[self._block(index)]

    def _block(self, index: int) -> int:
        return min(int(np.searchsorted(self.edges, index, side="right")) - 1, len(self.pictures) - 1)

    def foreground(self, frame: UInt8[np.ndarray, "h w 3"], index: int) -> UInt8[np.ndarray, "h w"]:
        """255 where the frame differs from its background, 0 elsewhere; specks removed, small gaps closed."""
        difference = cv2.absdiff(frame, self.at(index))
        strongest = difference[..., 0] if _is_grey(difference) else difference.max(-1)
        # Where the still world has an edge, a swaying camera changes the picture as people do.
        needed = self.threshold + 2.5 * self.sway * self._steep[self._block(index)]
        likely = (strongest > needed).astype(np.uint8) * 255
        if self.shadow is not None:
            likely = cv2.bitwise_and(likely, cv2.bitwise_not(shadow_mask(frame, self.at(index), self.shadow)))
        # A speck of codec noise is faint and alone: a piece stays if some of it is clearly foreground.
        likely = cv2.medianBlur(likely, 3)
        _, labels = cv2.connectedComponents(likely, connectivity=8, ltype=cv2.CV_32S)
        sure = np.zeros(labels.max() + 1, bool)
        sure[labels[strongest > 2 * needed]] = True
        sure[0] = False
        mask = np.where(sure[labels], 255, 0).astype(np.uint8)
        side = max(3, 2 * round(frame.shape[0] / 240) + 1)
        return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))


def blobs(mask: UInt8[np.ndarray, "h w"], *, least: int = 12) -> tuple[list[Blob], Int[np.ndarray, "h w"], list[int]]:
    """Connected pieces of at least ``least`` pixels, the label image, and the label of each piece."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)
    keep = [label for label in range(1, len(stats)) if stats[label, cv2.CC_STAT_AREA] >= least]
    found = []
    for label in keep:
        x, y, width, height, area = stats[label].tolist()
        found.append(Blob(x, y, x + width, y + height, area))
    return found, labels, keep


def _is_grey(picture: UInt8[np.ndarray, "h w 3"]) -> bool:
    red, green, blue = np.moveaxis(picture[::7, ::7], -1, 0)
    return bool((red == green).all() and (green == blue).all())


def _median(stack: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    if all(_is_grey(frame) for frame in stack[::5]):
        one = np.partition(stack[..., 0], len(stack) // 2, axis=0)[len(stack) // 2]
        return np.repeat(one[..., None], 3, axis=2)
    return np.partition(stack, len(stack) // 2, axis=0)[len(stack) // 2]


def _gradient(picture: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Grey levels a pixel by which the picture changes at its steepest around each pixel."""
    grey = cv2.GaussianBlur(picture[..., 1], (3, 3), 0).astype(np.float32)
    steep = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) / 8
    return cv2.dilate(steep, np.ones((3, 3), np.uint8))


def _noise(stack: UInt8[np.ndarray, "n h w 3"], background: UInt8[np.ndarray, "h w 3"]) -> tuple[float, float]:
    """Robust spread of the still pixels about the background, from the quieter half of them; and sway, from its edges."""
    difference = stack[:, ::3, ::3, 1].astype(np.float32) - background[::3, ::3, 1]
    spread = np.sqrt(np.mean(np.minimum(np.abs(difference), 20.0) ** 2, axis=0))
    noise, steep = float(np.quantile(spread, 0.3)), _gradient(background)[::3, ::3]
    edge = steep > 12
    sway = float(np.quantile(np.maximum(spread[edge] - noise, 0) / steep[edge], 0.3)) if edge.sum() > 20 else 0.0
    return noise, min(sway, 0.6)
