"""Which clips stand for a split in pictures, by rule and before any result, and how features become colours."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from tvad.errors import DatasetError


def first_of_each_kind(videos: Sequence[Any], count: int) -> list[Any]:
    """Up to ``count`` videos with events: the first of each class, then (where classes are few) evenly spaced ones."""
    anomalous = [video for video in videos if video.events]
    if not anomalous:
        raise DatasetError("no video of the evaluated split holds an event; evaluate a split with anomalies")
    first: dict[str, Any] = {}
    for video in anomalous:
        first.setdefault(video.events[0].kind, video)
    if len(first) >= count:
        return list(first.values())[:count]
    places = np.linspace(0, len(anomalous), min(count, len(anomalous)), endpoint=False).astype(int)
    return [anomalous[place] for place in places]


def largest_target(video: Any, kind: str | None = None) -> int:
    """The frame in which the anomalous targets cover most pixels (those of one kind of event where given)."""
    if video.masks is None:
        events = [event for event in video.events if kind is None or event.kind == kind]
        return (events[0].start + events[0].stop) // 2
    return int(target_areas(video, kind).argmax())


def target_areas(video: Any, kind: str | None = None) -> Int[np.ndarray, "n"]:
    """Pixels that the anomalous targets cover in each frame; zeros where the data set has no masks."""
    areas = np.zeros(len(video), np.int64)
    for event in video.events if video.masks is not None else ():
        if kind is None or event.kind == kind:
            masks = video.masks(event.start, event.stop)
            own = masks == event.target if event.target else masks > 0
            areas[event.start:event.stop] += own.sum(axis=(1, 2))
    return areas


def principal_colours(features: Float[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """The first three principal components of a map's patches as red, green and blue, each from 2nd to 98th centile.

    The sign of a component is free; it is fixed so that its largest weight is positive.
    """
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    _, _, axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    axes = axes[:3] * np.sign(axes[np.arange(3), np.abs(axes[:3]).argmax(1)])[:, None]
    parts = (flat - flat.mean(0)) @ axes.T
    low, high = np.quantile(parts, [0.02, 0.98], axis=0)
    scaled = np.clip((parts - low) / np.maximum(high - low, 1e-9), 0, 1)
    return (255 * scaled).round().astype(np.uint8).reshape(*features.shape[:2], 3)
