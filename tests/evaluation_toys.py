"""A detector that the registry can open: heat from the masks with noise, better the higher the seed's gain."""
from __future__ import annotations

import numpy as np

from tvad.detection import Scoring, finish
from tvad.errors import VideoError

SCORING = Scoring(sigma=1.0, thresholds=(0.5,), chosen_on="simcampus/val")


class MaskDetector:
    """Knows the truth but for noise; refuses the videos in ``broken``, and breaks down on those in ``faulty``."""

    name = "anyanomaly"
    scoring = SCORING

    def __init__(self, noise=0.3, broken=(), faulty=()):
        self.noise, self.broken, self.faulty = noise, broken, faulty
        self.fingerprint = f"mask-{noise}"

    def score(self, video, events=()):
        if video.id in self.broken:
            raise VideoError(f"{video.id}.mp4: 3 frames are readable; copy the file again")
        if video.id in self.faulty:
            raise RuntimeError("the detector broke down")
        rng = np.random.default_rng(list(video.id.encode()))
        truth = np.asarray(video.masks(0, len(video)))[:, ::4, ::4] > 0
        heat = (truth * (1 - self.noise) + self.noise * rng.random(truth.shape)).astype(np.float32)
        raw = np.clip(0.5 * video.labels + self.noise * rng.random(len(video)), 0, 1).astype(np.float32)
        return finish(video.id, raw, heat, size=tuple(video.frames.size), scoring=SCORING)


def open_good(order):
    """Opener of the registry."""
    return MaskDetector(noise=0.2 + 0.01 * order.seed)


def open_poor(order):
    """A worse one."""
    return MaskDetector(noise=0.95)


def open_broken(order):
    """One that refuses a video."""
    return MaskDetector(broken=("test_02",), faulty=("test_03",))
