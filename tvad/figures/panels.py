"""Panels that figures are put together from: a frame with ground truth and heat, a score curve with its intervals."""
from __future__ import annotations

from typing import Any

import cv2
import matplotlib
import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes

from tvad.detection import Detection
from tvad.figures.style import BLUE, HEAT, INTERVAL, SKY, TRUTH, few_colours

_SHARPNESS = 150        # pixels an inch at which frames are put into figures


def overlay(frame: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "gh gw"] | None = None
            ) -> UInt8[np.ndarray, "h w 3"]:
    """A frame with its heatmap laid over it: the hotter, the less of the frame is seen.  Patches stay as they are."""
    if heat is None:
        return frame
    rows = np.arange(frame.shape[0]) * heat.shape[0] // frame.shape[0]
    columns = np.arange(frame.shape[1]) * heat.shape[1] // frame.shape[1]
    large = np.clip(heat, 0, 1)[rows][:, columns]
    # The lower third of inferno is black and would look like a shadow, not like heat.
    colour = 255 * matplotlib.colormaps[HEAT](0.3 + 0.7 * large)[..., :3]
    share = (0.8 * np.sqrt(large) * (large > 0.02))[..., None]
    return (frame * (1 - share) + colour * share).round().astype(np.uint8)


def frame_panel(axes: Axes, frame: UInt8[np.ndarray, "h w 3"], *, heat: Float[np.ndarray, "gh gw"] | None = None,
                mask: UInt8[np.ndarray, "h w"] | None = None, inches: float = 1.65) -> None:
    """A frame, its heat over it, and the outline of the ground truth around that; shown ``inches`` wide."""
    height, width = frame.shape[:2]
    axes.imshow(few_colours(shrunk(overlay(frame, heat), inches)), extent=(0, width, height, 0))
    if mask is not None and (mask > 0).any():
        # A border of zeros closes outlines at the edge of the frame; a pixel's middle lies at .5.
        padded = np.pad((mask > 0).astype(np.float32), 1)
        x, y = np.arange(-1, width + 1) + 0.5, np.arange(-1, height + 1) + 0.5
        axes.contour(x, y, padded, levels=[0.5], colors=[TRUTH], linewidths=0.7)
    bare(axes, width, height)


def shrunk(picture: UInt8[np.ndarray, "h w 3"], inches: float) -> UInt8[np.ndarray, "H W 3"]:
    """A picture with no more pixels than print needs at this width."""
    height, width = picture.shape[:2]
    shown = round(_SHARPNESS * inches)
    if width <= shown:
        return picture
    return cv2.resize(picture, (shown, round(height * shown / width)), interpolation=cv2.INTER_AREA)


def bare(axes: Axes, width: float, height: float) -> None:
    """A picture's axes: no ticks, thin frame, limits at the picture's edge."""
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4, color="#444444")


def curve_panel(axes: Axes, detection: Detection, video: Any, *, marked: int | None = None,
                kind: str | None = None) -> None:
    """Raw and smoothed frame score over time, labelled intervals shaded, the ``marked`` frame as a dotted line.

    ``kind``: frames that are labelled for other events than these alone are shaded lightly.
    """
    time = np.arange(len(detection.raw_scores)) / video.frames.fps
    for start, stop in labelled_spans(video.labels):
        axes.axvspan(start / video.frames.fps, stop / video.frames.fps, color=INTERVAL, lw=0,
                     alpha=1 if kind is None else 0.4)
    if kind is not None:
        for start, stop in labelled_spans(event_frames(video, kind)):
            axes.axvspan(start / video.frames.fps, stop / video.frames.fps, color=INTERVAL, lw=0)
    axes.plot(time, detection.raw_scores, color=SKY, lw=0.5, label="raw")
    axes.plot(time, detection.frame_scores, color=BLUE, lw=1.1, label="smoothed")
    if marked is not None:
        axes.axvline(marked / video.frames.fps, color="#333333", lw=0.6, ls=":")
    axes.set(xlim=(0, max(time[-1], 1e-6)), ylim=(0, 1.02), yticks=[0, 0.5, 1])


def event_frames(video: Any, kind: str) -> Bool[np.ndarray, "n"]:
    """Which frames are labelled for events of one class."""
    inside = np.zeros(len(video), bool)
    for event in video.events:
        if event.kind == kind:
            inside[event.start:event.stop] = True
    return inside & (np.asarray(video.labels) == 1)


def labelled_spans(labels: UInt8[np.ndarray, "n"]) -> list[tuple[int, int]]:
    """Half-open ranges of anomalous frames."""
    edges = np.flatnonzero(np.diff(np.r_[0, np.asarray(labels, np.int8), 0]))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def mask_at(video: Any, frame: int) -> UInt8[np.ndarray, "h w"] | None:
    """The ground truth of one frame; None where the data set has none."""
    return None if video.masks is None else video.masks(frame, frame + 1)[0]


def frame_at(video: Any, frame: int) -> UInt8[np.ndarray, "h w 3"]:
    """One frame as RGB."""
    return video.frames.read(frame, frame + 1)[0]


def place_of(video: Any) -> str:
    """The scene of a video, or its own name where every clip is of one scene."""
    return video.scene if video.scene and video.scene != video.dataset else video.id


def plain_name(kind: str) -> str:
    """An event's name as a label shows it."""
    return kind.replace("_", " ")
