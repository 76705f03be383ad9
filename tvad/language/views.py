"""A target's pixels frame by frame, where its blobs are its own."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from tvad.language.target import Target


@dataclass
class View:
    """Pixels of a target in one frame, within its box whose corner is at ``x``, ``y``."""

    frame: int
    x: int
    y: int
    pixels: Bool[np.ndarray, "h w"]


def views_of(target: Target, labels: Int[np.ndarray, "n h w"]) -> list[View]:
    """The frames in which its blobs are its own and seen in its box; ``labels`` is their label map."""
    found = []
    for frame, box, parts in zip(target.frames, target.boxes, target.parts):
        if frame not in target.shared:
            x1, y1, x2, y2 = (int(edge) for edge in box)
            window = labels[frame, y1:y2 + 1, x1:x2 + 1]
            pixels = window == parts[0] if len(parts) == 1 else np.isin(window, parts)
            if pixels.any():
                found.append(View(frame, x1, y1, pixels))
    return found
