"""What normal footage of one camera tells about it: scale and paths of people, their pace, and how the camera sees.

    site = survey([frames_of_clip_1, frames_of_clip_2])

Nothing but the footage is needed.  Where it shows too few people, a usual surveillance camera is assumed and said so in
``Site.people``.
"""
from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import Sequence

import numpy as np
from jaxtyping import Float

from tvad.errors import DatasetError
from tvad.scenes.camera import Camera
from tvad.scenes.composite.backdrop import Background, Blob, blobs
from tvad.scenes.composite.lens import DEFAULT, fit_heights, person_pixels, solve_camera
from tvad.scenes.composite.looks import measure_look
from tvad.scenes.composite.site import Look, Site
from tvad.scenes.composite.sun import shadow_level
from tvad.video.frames import Frames

_LOG = logging.getLogger(__name__)
_FORMAT = "site-1"
_WALK = 1.25       # metres a second of simulated walkers, in the median
_STRIDE = 0.4      # seconds over which a walk is measured: long against the sway of one step
_LEAST_PEOPLE = 12
_MARGIN = 1        # pixels that blur adds to a person on every side


@dataclass(frozen=True)
class Sample:
    """A blob in a frame of a video, and the pixel motion to the same blob ``_STRIDE`` seconds later (nan: not found)."""
    video: int
    index: int
    blob: Blob
    motion: tuple[float, float]
    inside: bool


def survey(videos: Sequence[Frames], *, samples: int = 360, seed: int = 0,
           backgrounds: Sequence[Background] | None = None) -> Site:
    """Estimate the :class:`Site` of one camera from normal footage; about ``samples`` frames are looked at.

    ``backgrounds``: one a video, where they are at hand.  Raises :class:`DatasetError` for no videos or videos of
    different frame sizes (which are not of one camera).
    """
    if not videos:
        raise DatasetError("survey: no footage; give at least one video of the camera")
    sizes = {tuple(video.size) for video in videos}
    if len(sizes) > 1:
        raise DatasetError(f"{videos[0].name}: videos of different sizes {sorted(sizes)}; one camera has one, adapt to "
                           "each camera on its own or open the videos with size=(height, width)")
    size, fps = sizes.pop(), float(np.median([video.fps for video in videos]))
    backs = [Background(video) for video in videos] if backgrounds is None else list(backgrounds)
    level = _cast_level(videos, backs)
    for back in backs:
        back.shadow = level
    found = _gather(videos, backs, samples)
    line, rows, single = _scale([sample.blob for sample in found if sample.inside], size, seed)
    camera = solve_camera(line, rows, size) if single else DEFAULT
    people = [sample for sample in found if sample.inside and _fits(sample.blob, line)]
    feet, headings, speeds = _ways(people, camera, size, fps)
    if len(feet) < _LEAST_PEOPLE:
        _LOG.warning("survey: %d single people in %d frames; the camera is guessed, give footage with more people",
                     len(feet), samples)
        feet, headings = _guess(camera, size, seed) if not len(feet) else (feet, headings)
    pace = float(np.clip(np.median(speeds) / _WALK, 0.15, 4.0)) if len(speeds) >= _LEAST_PEOPLE else 1.0
    digest = hashlib.sha256(repr([_FORMAT, samples, seed, [video.fingerprint for video in videos]]).encode())
    site = Site(name=f"site-{digest.hexdigest()[:8]}", size=size, fps=fps, camera=camera, line=line, feet=feet,
                headings=headings, pace=pace, look=Look(noise=float(np.median([back.noise for back in backs])), cast=level),
                people=len(people), density=len(found) / max(1, len({(s.video, s.index) for s in found})),
                fingerprint=digest.hexdigest()[:24])
    return replace(site, look=measure_look(site, videos, backs, [(s.video, s.index, s.blob) for s in people]))


def _cast_level(videos: Sequence[Frames], backs: Sequence[Background]) -> float | None:
    """The light that cast shadows leave, from some 24 frames; None without cast shadows."""
    frames, pictures, masks = [], [], []
    each = max(1, 24 // len(videos))
    for video, back in zip(videos, backs):
        back.shadow = None
        for index in np.linspace(0, len(video) - 1, each + 2)[1:-1].round().astype(int).tolist():
            frames.append(video.read(index, index + 1)[0])
            pictures.append(back.at(index))
            masks.append(back.foreground(frames[-1], index))
    return shadow_level(frames, pictures, masks)


def _gather(videos: Sequence[Frames], backs: Sequence[Background], samples: int) -> list[Sample]:
    """Blobs of evenly spaced frames of all videos, with their motion."""
    each = max(2, samples // len(videos))
    found = []
    for number, (video, back) in enumerate(zip(videos, backs)):
        ahead = max(1, round(_STRIDE * video.fps))
        for index in np.unique(np.linspace(0, max(0, len(video) - 1 - ahead), each).round().astype(int)).tolist():
            now, _, _ = blobs(back.foreground(video.read(index, index + 1)[0], index))
            then = min(index + ahead, len(video) - 1)
            later, _, _ = blobs(back.foreground(video.read(then, then + 1)[0], then))
            for blob in now:
                height, width = video.size
                inside = blob.left > 1 and blob.top > 1 and blob.right < width - 1 and blob.bottom < height - 1
                found.append(Sample(number, index, _shrunk(blob), _motion(blob, later), inside))
    return found


def _shrunk(blob: Blob) -> Blob:
    return replace(blob, left=blob.left + _MARGIN, top=blob.top + _MARGIN, right=blob.right - _MARGIN,
                   bottom=blob.bottom - _MARGIN)


def _motion(blob: Blob, later: Sequence[Blob]) -> tuple[float, float]:
    """Motion of the middle to the nearest blob of like size within a body's height, in pixels."""
    middle = np.array([blob.left + blob.right, blob.top + blob.bottom]) / 2
    best, near = (np.nan, np.nan), 1.0 * blob.height
    for other in later:
        if 0.75 < other.height / blob.height < 1.33 and 0.6 < other.area / blob.area < 1.6:
            step = np.array([other.left + other.right, other.top + other.bottom]) / 2 - middle
            if np.hypot(*step) < near:
                best, near = (float(step[0]), float(step[1])), float(np.hypot(*step))
    return best


def _scale(found: Sequence[Blob], size: tuple[int, int], seed: int) -> tuple[tuple[float, float], tuple[float, float], int]:
    """The line of people's heights, the rows of their feet, and how many lie on it (0: guessed)."""
    upright = [blob for blob in found if _slim(blob) and 8 <= blob.height < 0.7 * size[0]]
    feet, heights = (np.array([getattr(blob, name) for blob in upright], float) for name in ("bottom", "height"))
    if len(upright) >= _LEAST_PEOPLE:
        line, near = fit_heights(feet, heights, seed=seed)
        if near.sum() >= _LEAST_PEOPLE:
            return line, tuple(np.quantile(feet[near], (0.03, 0.97))), int(near.sum())
    rows = np.linspace(0.3, 1.0, 8) * size[0]
    slope, base = np.polyfit(rows, person_pixels(DEFAULT, rows, size), 1)
    return (float(base), float(slope)), (0.3 * size[0], float(size[0])), 0


def _fits(blob: Blob, line: tuple[float, float]) -> bool:
    """Whether a blob is one person: as high as people are there, and as slim."""
    wanted = max(4.0, line[0] + line[1] * blob.bottom)
    return abs(blob.height / wanted - 1) < 0.2 and _slim(blob)


def _slim(blob: Blob) -> bool:
    """Whether a blob has the proportions of one upright person; two behind one another are taller, two abreast wider."""
    return 1.6 < blob.height / max(1, blob.width) < 3.7


def _ways(people: Sequence[Sample], camera: Camera, size: tuple[int, int],
          fps: float) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """Feet in pixels, headings on the ground and speeds (m/s) of those who walk."""
    moving = [sample for sample in people if np.isfinite(sample.motion[0])]
    if not moving:
        return np.zeros((0, 2)), np.zeros(0), np.zeros(0)
    feet = np.array([sample.blob.foot for sample in moving])
    motion = np.array([sample.motion for sample in moving])
    here, there = camera.ground(feet, size=size), camera.ground(feet + motion, size=size)
    step = there - here
    ahead = max(1, round(_STRIDE * fps)) / fps
    speed = np.hypot(step[:, 0], step[:, 1]) / ahead
    walks = np.isfinite(speed) & (speed > 0.35)
    return feet[walks], np.arctan2(step[walks, 1], step[walks, 0]), speed[walks]


def _guess(camera: Camera, size: tuple[int, int], seed: int) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "k"]]:
    """Places all over the lower two thirds and ways in any direction, where nobody was seen."""
    rng = np.random.default_rng([seed, 32])
    feet = rng.uniform((0.05 * size[1], 0.4 * size[0]), (0.95 * size[1], 0.97 * size[0]), (64, 2))
    feet = feet[np.isfinite(camera.ground(feet, size=size)).all(-1)]
    return feet, rng.uniform(-np.pi, np.pi, len(feet))
