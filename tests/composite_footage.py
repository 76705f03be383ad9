"""Toy footage of one camera: slim dark people on noisy ground who walk left and right and grow towards the camera."""
from __future__ import annotations

import cv2
import numpy as np

from tvad.video.frames import ArrayFrames


def person_height(row: float, size: tuple[int, int]) -> float:
    """Pixels from head to foot of a toy person whose feet are at ``row``."""
    return (0.10 + 0.12 * row / size[0]) * size[0]


def toy_footage(name: str = "toy", *, size: tuple[int, int] = (120, 180), frames: int = 40, people: int = 6,
                fps: float = 10.0, seed: int = 0, colour: bool = False,
                strength: float = 1.0) -> tuple[ArrayFrames, np.ndarray]:
    """Footage and the masks (n, h, w) of its people; ``colour``: brownish ground and bluish people (``strength``: of
    their colour), else grey."""
    rng = np.random.default_rng([seed, *name.encode()])
    h, w = size
    ground = 150 + cv2.GaussianBlur(rng.normal(0, 25, size).astype(np.float32), (0, 0), 3)
    tint = np.array([1.0, 0.9, 0.75]) if colour else np.ones(3)
    cloth = 1 + strength * np.array([-0.3, -0.1, 0.2]) if colour else np.ones(3)
    rows = np.linspace(0.45, 0.97, people) * h
    starts, ways = rng.uniform(0, w, people), rng.choice((-1, 1), people)
    shades = rng.permutation(np.linspace(15, 100, people))
    folds = 1 + 0.25 * cv2.GaussianBlur(rng.normal(0, 2, size).astype(np.float32), (0, 0), 0.8)
    video, masks = np.empty((frames, h, w, 3), np.uint8), np.zeros((frames, h, w), np.uint8)
    for index in range(frames):
        picture = ground[..., None] * tint
        for row, start, way, shade in zip(rows, starts, ways, shades):
            tall = person_height(row, size)
            # about 1.25 m/s for a body of 1.7 m
            x = (start + way * index / fps * 1.25 / 1.7 * tall) % (w + 20) - 10
            mask = np.zeros(size, np.uint8)
            centre = (round(x), round(row - tall / 2))
            cv2.ellipse(mask, centre, (max(1, round(0.16 * tall)), round(tall / 2)), 0, 0, 360, 255, -1)
            # a dark top, lighter legs, and folds in both
            tone = np.where(np.arange(h)[:, None] < row - 0.45 * tall, shade, 115 - 0.8 * shade) * folds
            picture = np.where(mask[..., None] > 0, tone[..., None] * cloth, picture)
            masks[index] |= mask
        noise = rng.normal(0, 1.5, (h, w, 1))
        video[index] = np.clip(cv2.GaussianBlur(picture, (0, 0), 0.8) + noise, 0, 255).astype(np.uint8)
    return ArrayFrames(video, fps, name), masks
