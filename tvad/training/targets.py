"""From pixel masks to the patch grid of the heatmap, and which frame pairs of a video are worth keeping.

The thesis resized masks by nearest neighbour, which loses a target that is smaller than a patch (specification, 8,
item 12).  The cover of every patch is kept instead, and a rule makes labels of it.
"""
from __future__ import annotations

import zlib
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from tvad.errors import DatasetError, ParameterError

RULES = ("any", "area", "nearest")


def cover(masks: UInt8[np.ndarray, "n h w"], grid: tuple[int, int]) -> Float[np.ndarray, "gh gw"]:
    """Share of each patch that any of the frames marks as anomalous, 0..1 (maximum over the frames, then area mean).

    A patch that is touched at all has a share above 0, whatever the rounding of the resize.
    """
    union = (np.asarray(masks) > 0).any(axis=0)
    height, width = union.shape
    share = cv2.resize(union.astype(np.float32), (grid[1], grid[0]), interpolation=cv2.INTER_AREA)
    rows, columns = np.nonzero(union)
    touched = np.zeros(grid, bool)
    touched[rows * grid[0] // height, columns * grid[1] // width] = True
    return np.where(touched, np.maximum(share, 1 / 255), 0).astype(np.float32)


def nearest(masks: UInt8[np.ndarray, "n h w"], grid: tuple[int, int]) -> UInt8[np.ndarray, "gh gw"]:
    """The rule of the thesis: maximum over the frames, then the value at the middle of each patch."""
    union = (np.asarray(masks) > 0).any(axis=0)
    rows = ((np.arange(grid[0]) + 0.5) * union.shape[0] / grid[0]).astype(int)
    columns = ((np.arange(grid[1]) + 0.5) * union.shape[1] / grid[1]).astype(int)
    return union[np.ix_(rows, columns)].astype(np.uint8)


def labels_of(share: Float[np.ndarray, "n gh gw"], centre: UInt8[np.ndarray, "n gh gw"], *, rule: str,
              threshold: float = 0.25) -> UInt8[np.ndarray, "n gh gw"]:
    """Patch labels by ``rule``.

    ``any``: every touched patch. ``area``: patches covered to at least ``threshold``, and of each connected target the
    best covered patch, so that none is lost. ``nearest``: the thesis.

    Raises:
        ParameterError: an unknown rule.
    """
    if rule == "any":
        return (share > 0).astype(np.uint8)
    if rule == "nearest":
        return np.asarray(centre, np.uint8)
    if rule != "area":
        raise ParameterError(f"unknown target rule {rule!r}; give one of {', '.join(RULES)}")
    labels = (share >= threshold).astype(np.uint8)
    for index in np.flatnonzero((share > 0).any(axis=(1, 2))):
        parts, count = ndimage.label(share[index] > 0, structure=np.ones((3, 3)))
        for place in ndimage.maximum_position(share[index], parts, range(1, count + 1)):
            labels[(index, *place)] = 1
    return labels


def pair_labels(video: Any) -> UInt8[np.ndarray, "p"]:
    """1 for each frame pair (start, start + 1) of the video with an anomalous frame; a one-frame video has one pair.

    Raises:
        DatasetError: the video has no frame labels, so that it cannot be sampled by class.
    """
    if video.labels is None:
        raise DatasetError(f"{video.dataset}/{video.id}: no frame labels, which training needs; "
                           "take a split with annotation")
    labels = np.asarray(video.labels, np.uint8)
    return labels if len(labels) < 2 else np.maximum(labels[:-1], labels[1:])


def _spread(candidates: np.ndarray, count: int, rng: np.random.Generator) -> set[int]:
    """One draw from each of ``count`` equal stretches of the candidates: random, yet spread over the whole time."""
    count = min(count, len(candidates))
    return {int(rng.choice(part)) for part in np.array_split(candidates, count)} if count else set()


def choose_pairs(video: Any, count: int, *, seed: int, positive_share: float = 0.5) -> tuple[int, ...]:
    """Starts of ``count`` frame pairs of a training video (fewer if it is shorter), sorted, fixed by seed and video id.

    About ``positive_share`` of them are anomalous where the video has such pairs; every event gets at least one, and
    the events of a video share equally whatever their length.  Each choice depends on the video alone, so that data
    splits which share videos share their cached features.
    """
    rng = np.random.default_rng([seed, zlib.crc32(video.id.encode())])
    labels = pair_labels(video)
    positive, normal = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    wanted = max(len(video.events), round(count * positive_share)) if len(positive) else 0
    wanted = min(len(positive), max(wanted, count - len(normal)))
    chosen: set[int] = set()
    events = [positive[(positive >= event.start - 1) & (positive < event.stop)] for event in video.events]
    events = [candidates for candidates in events if len(candidates)]
    for index, candidates in enumerate(events):
        chosen |= _spread(candidates, max(1, (wanted + index) // len(events)), rng)
    rest = np.setdiff1d(positive, sorted(chosen))
    chosen |= _spread(rest, wanted - len(chosen), rng) if wanted > len(chosen) else set()
    chosen |= _spread(normal, max(0, count - len(chosen)), rng)
    return tuple(sorted(chosen))


def spaced_pairs(video: Any, count: int) -> tuple[int, ...]:
    """Starts of ``count`` evenly spaced frame pairs: the natural share of anomalies, for validation."""
    total = len(pair_labels(video))
    return tuple(sorted({int(start) for start in np.linspace(0, total - 1, min(count, total)).round()}))


def masks_of(video: Any, start: int, stop: int, size: tuple[int, int]) -> UInt8[np.ndarray, "n h w"]:
    """Instance masks of the frames; a wholly normal video needs none.

    Raises:
        DatasetError: anomalous frames but no masks, so that no heatmap can be trained or measured.
    """
    if video.masks is not None:
        return np.asarray(video.masks(start, stop))
    if video.labels is not None and not np.asarray(video.labels[start:stop]).any():
        return np.zeros((stop - start, *size), np.uint8)
    raise DatasetError(f"{video.dataset}/{video.id}: frames {start} to {stop - 1} are anomalous but have no masks; "
                       "leave the video out or give its masks")
