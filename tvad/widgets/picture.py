"""The demo's picture of a frame: heat over footage, boxes with tracks and trails, as JPEG.

Heat uses the inferno scale, whose brightness rises steadily, so that it reads without colour vision; its opacity grows
with the heat, and the line at the threshold is white on black.  Boxes are white with a dark rim; tracks are told apart by
their numbers, never by colour.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from tvad.errors import VideoError

if TYPE_CHECKING:
    from tvad.metrics.region import Regions

WIDTH = 768             # pixels of the shown picture: lines and letters stay crisp on small footage
QUALITY = 85
TRAIL = 25              # frames of a track's past that are drawn
_WHITE, _DARK = (255, 255, 255), (20, 20, 24)


@dataclass(frozen=True)
class View:
    """What the page shows: frame, layer, threshold, strength of the heat and which marks are on."""

    frame: int = 0
    layer: str = ""
    threshold: float = 0.5
    opacity: float = 0.65
    heat: bool = True
    boxes: bool = True
    trails: bool = True


def paint(
    frame: UInt8[np.ndarray, "h w 3"], heat: Float32[np.ndarray, "a b"] | None, *, view: View,
    boxes: Regions | None = None, trails: Regions | None = None, width: int | None = WIDTH,
) -> UInt8[np.ndarray, "H W 3"]:
    """The RGB picture, ``width`` pixels wide (None: as the frame).

    boxes: regions of this frame; trails: those of the frames before, whose tracks are followed back.
    """
    scale = 1.0 if width is None else width / frame.shape[1]
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    shrinks = scale < 1
    picture = frame if scale == 1 else cv2.resize(frame, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    if heat is not None and view.heat:
        picture = _warm(picture, heat, view)
    picture = np.ascontiguousarray(picture)
    if view.boxes and boxes is not None:
        thick = max(1, round(size[0] / 400))
        if view.trails and trails is not None:
            _draw_trails(picture, boxes, trails, scale=scale, thick=thick)
        for box, score, track in zip(boxes.box, boxes.score, boxes.track):
            _draw_box(picture, box * scale, _label(score, track), thick=thick)
    return picture


def _warm(picture: np.ndarray, heat: np.ndarray, view: View) -> np.ndarray:
    smooth = cv2.resize(np.asarray(heat, np.float32), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colours = cv2.applyColorMap((smooth * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    # Cold places stay as filmed: a veil over the whole picture would hide the footage.
    alpha = (view.opacity * np.sqrt(smooth))[..., None]
    warm = (picture * (1 - alpha) + colours * alpha).round().astype(np.uint8)
    outline, _ = cv2.findContours((smooth >= view.threshold).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(warm, outline, -1, _DARK, 3, cv2.LINE_AA)
    cv2.drawContours(warm, outline, -1, _WHITE, 1, cv2.LINE_AA)
    return warm


def _label(score: float, track: int) -> str:
    return f"{score:.2f}" if track < 0 else f"#{track + 1} {score:.2f}"


def _draw_box(picture: np.ndarray, box: np.ndarray, text: str, *, thick: int) -> None:
    left, top, right, bottom = (int(round(value)) for value in box)
    for colour, width in ((_DARK, thick + 2), (_WHITE, thick)):
        cv2.rectangle(picture, (left, top), (right, bottom), colour, width, cv2.LINE_AA)
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.45 * max(1.0, picture.shape[1] / 900)
    (wide, high), base = cv2.getTextSize(text, font, size, 1)
    x = min(max(0, left), max(0, picture.shape[1] - wide - 6))
    y = top - 4 if top >= high + base + 6 else min(bottom + high + 8, picture.shape[0] - base)
    cv2.rectangle(picture, (x, y - high - 4), (x + wide + 6, y + base), _DARK, -1)
    cv2.putText(picture, text, (x + 3, y - 1), font, size, _WHITE, 1, cv2.LINE_AA)


def _draw_trails(picture: np.ndarray, boxes: Regions, trails: Regions, *, scale: float, thick: int) -> None:
    for track in boxes.track[boxes.track >= 0]:
        own = trails.track == track
        order = np.argsort(trails.frame[own], kind="stable")
        box = trails.box[own][order] * scale
        # The foot of the box is where a person stands.
        points = np.stack([(box[:, 0] + box[:, 2]) / 2, box[:, 3]], 1).round().astype(np.int32)
        if len(points) > 1:
            cv2.polylines(picture, [points], False, _DARK, thick + 2, cv2.LINE_AA)
            cv2.polylines(picture, [points], False, _WHITE, thick, cv2.LINE_AA)


def jpeg(picture: UInt8[np.ndarray, "h w 3"], *, quality: int = QUALITY) -> bytes:
    """The picture as JPEG."""
    done, code = cv2.imencode(".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
    if not done:
        raise VideoError(f"a picture of {picture.shape[1]}x{picture.shape[0]} pixels cannot be encoded; report this")
    return code.tobytes()


def card(lines: tuple[str, ...], *, size: tuple[int, int] = (512, WIDTH)) -> UInt8[np.ndarray, "h w 3"]:
    """A plain dark picture with a few centred lines, for when there is no frame to show."""
    picture = np.full((*size, 3), (21, 23, 27), np.uint8)      # the stage's own colour
    for number, text in enumerate(lines):
        scale = 0.8 if number == 0 else 0.55
        (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        place = max(8, (size[1] - wide) // 2), size[0] // 2 + 30 * number - 10 * len(lines)
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (215, 215, 222), 1, cv2.LINE_AA)
    return picture
