"""Two who fight and circle each other: where they change sides, told by the outline of the blob that they share.

Left and right are all that divides a blob between two people, and whoever walks around the other changes them.  A pair
that turns at a steady rate shows its angle twice: the blob is wide where they stand side by side and narrow where one
stands before the other, and its pixels lean to the side on which the nearer one stands, since his feet are lower in the
picture.  With angle ``a`` of the pair on the ground, the variance of the pixels along x goes as ``cos 2a`` and the
covariance of x and y as ``sin 2a``, so both are linear for a given start and rate, and the best of a grid of these is
taken.  A change of sides is believed only where it explains both much better than any turn without one.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from tvad.language.counting import View

LEAST = 12        # frames from which a turn can be told
_FASTEST = 0.06   # radians a frame: a third of a turn in 3.5 s at 10 frames/s
_GAIN = 0.25      # of the two shares of variance left over (0 to 2), that a change of sides must explain
_MARGIN = 3       # frames from either end within which a change of sides is none


@dataclass(frozen=True)
class Turn:
    """Of each view: whether who began at the left is now at the right, and how far the two are apart in pixels."""

    changed: Bool[np.ndarray, "n"]
    apart: Float[np.ndarray, "n"]


def turn_of(views: Sequence[View]) -> Turn | None:
    """How a pair turns that changes sides; None where the outline does not show that it does."""
    if len(views) < LEAST:
        return None
    high = float(np.median([view.pixels.shape[0] for view in views]))
    frame = np.array([view.frame for view in views], float)
    spread, lean = (np.array(values) / high**2 for values in zip(*map(_moments, views)))
    rates, starts = np.meshgrid(np.linspace(-_FASTEST, _FASTEST, 25), np.arange(36) * np.pi / 36, indexing="ij")
    angle: Float[np.ndarray, "g n"] = starts.reshape(-1, 1) + rates.reshape(-1, 1) * (frame - frame.mean())
    wide, left = _fit(np.cos(2 * angle), spread, centred=True)
    _, also = _fit(np.sin(2 * angle), lean, centred=False)
    side = np.cos(angle) > 0
    flips = (side[:, 1:] != side[:, :-1]).sum(axis=1)
    inside = flips == (side[:, _MARGIN:1 - _MARGIN] != side[:, _MARGIN - 1:-_MARGIN]).sum(axis=1)
    total = left + also
    best = int(np.argmin(np.where((flips > 0) & inside, total, np.inf)))
    if not flips[best] or total[best] > total[flips == 0].min() - _GAIN:
        return None
    return Turn(side[best] != side[best, 0], np.sqrt(8 * wide[best]) * high * np.abs(np.cos(angle[best])))


def _moments(view: View) -> tuple[float, float]:
    """Variance of x, and covariance of x and y, of a view's pixels."""
    y, x = np.nonzero(view.pixels)
    x, y = x - x.mean(), y - y.mean()
    return float((x * x).mean()), float((x * y).mean())


def _fit(shape: Float[np.ndarray, "g n"], seen: Float[np.ndarray, "n"], *,
         centred: bool) -> tuple[Float[np.ndarray, "g"], Float[np.ndarray, "g"]]:
    """For each row the factor, 0 or more, that fits it best to ``seen``, and the share of the squares then left."""
    if centred:
        shape, seen = shape - shape.mean(axis=1, keepdims=True), seen - seen.mean()
    factor = np.maximum(0.0, shape @ seen / np.maximum((shape * shape).sum(axis=1), 1e-9))
    rest = ((seen - factor[:, None] * shape) ** 2).mean(axis=1)
    return factor, rest / max(float((seen * seen).mean()), 1e-9)
