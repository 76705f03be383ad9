"""What linking works on: the blobs of a frame, and what is known of one target so far."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tvad.language import geometry
from tvad.language.geometry import Box

RECENT = 5            # observations that velocity is measured over
YOUNG = 8             # frames before which a target that vanishes into another was a piece of it
_BOUND, _LESS = 1.4, 1.25  # growth and loss of area that tell of another target in the blob, or before it
_COMING = 2.0          # growth in a few frames of what comes in by the border of the picture, at most
_UNUSUAL = 20          # frames after which such a size is the usual one
_CREEP = 1.04          # growth of the remembered sides from frame to frame, at most


class Blob(NamedTuple):
    """A component, or all pixels of one instance, in one frame; ``label`` is its value in the label map."""

    x1: int
    y1: int
    x2: int
    y2: int
    area: int
    label: int


@dataclass
class Target:
    """What is known of one target so far. ``parts`` holds the labels of its blobs in each frame."""

    frames: list[int]
    boxes: list[Box]
    areas: list[int]
    parts: list[tuple[int, ...]]
    sides: tuple[float, float]
    parent: Target | None = None
    whole: Target | None = None                       # what it was a piece of all the time
    shared: set[int] = field(default_factory=set)     # frames in which its blob is another's too
    unusual: int = 0                                  # frames since its area changed at a bound
    velocity: tuple[float, float] = (0.0, 0.0)
    covered: int = 0                                  # frames since last seen in which another's blob lay over it

    def unseen(self, frame: int) -> int:
        """Frames before ``frame`` in which it was not seen; those in which it could not be count a third."""
        return frame - self.frames[-1] - 1 - 2 * self.covered // 3

    def predict(self, frame: int) -> Box:
        """The box expected in ``frame``: the last one moved on, or the last before its area changed at a bound."""
        last = len(self.frames) - 1 - self.unusual
        steps = frame - self.frames[last]
        x1, y1, x2, y2 = self.boxes[last]
        dx, dy = self.velocity[0] * steps, self.velocity[1] * steps
        return x1 + dx, y1 + dy, x2 + dx, y2 + dy

    def add(self, frame: int, box: Box, *, area: int, parts: tuple[int, ...], shared: bool = False,
            cut: bool = False) -> None:
        """Take in an observation; ``cut``: by the border of the picture, so that it may grow."""
        self.whole, self.covered = None, 0
        usual = np.median(self.areas[-RECENT - self.unusual:len(self.areas) - self.unusual])
        comes = cut and len(parts) == 1 and usual <= area <= usual * _COMING
        unusual = not (shared or comes) and len(self.frames) > YOUNG and not usual / _LESS <= area <= usual * _BOUND
        self.unusual = self.unusual + 1 if unusual and self.unusual < _UNUSUAL else 0
        self.frames.append(frame)
        self.boxes.append(box)
        self.areas.append(area)
        self.parts.append(parts)
        wide, high = geometry.sides(box)
        if shared:  # the middle of a part of a blob says little of where its target is going
            self.shared.add(frame)
            return
        if self.unusual:  # a covered side seems to move to the other, another's blob seems to be its own
            return
        # pieces may drift apart, and a blob may take up another target: what is remembered then grows slowly
        most = _CREEP if len(parts) > 1 or len(self.frames) > YOUNG and not comes else np.inf
        self.sides = tuple(min(old + 0.3 * (new - old), most * old) for old, new in zip(self.sides, (wide, high)))
        first = max(0, len(self.frames) - RECENT)
        span = self.frames[-1] - self.frames[first]
        if span:
            (ax, ay), (bx, by) = geometry.middle(self.boxes[first]), geometry.middle(box)
            self.velocity = ((bx - ax) / span, (by - ay) / span)
