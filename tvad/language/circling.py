"""Two or three who fight and circle each other: where they change places, told by the outline of the blob they share.

Left and right are all that divides a blob between people, and whoever walks around the others changes them.  ``n`` people
that turn at a steady rate, evenly around one spot, show their angle ``n`` times a turn: the mean of x to the power ``n``
over the blob's pixels goes as ``cos n a`` (two: the blob is wide where they stand side by side), and that of x to the
power ``n - 1`` times y as ``sin n a``, since the feet of who stands nearer are lower in the picture.  Both are linear for
a given start and rate, and the best of a grid of these is taken.  A change of places is believed only where it explains
both much better than any turn without one.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from tvad.language.views import View

LEAST = 12        # frames from which a turn can be told
_FASTEST = 0.06   # radians a frame: a third of a turn in 3.5 s at 10 frames/s
_GAIN = 0.2       # of the two shares of variance left over (0 to 2), that a change of places must explain
_MARGIN = 3       # frames from either end within which a change of sides is none


@dataclass(frozen=True)
class Turn:
    """Of each person and view: how far right of the spot they turn about he stands, in pixels; who is leftmost in the first
    view comes first."""

    places: Float[np.ndarray, "p n"]


def turn_of(views: Sequence[View], people: int = 2) -> Turn | None:
    """How people turn that change places; None where the outline does not show that they do.

    A view without pixels says nothing; the turn is told for it as for the others.
    """
    fit = _fitted(views, people)
    if fit is None:
        return None
    angle, size, total = fit
    x = np.cos(angle[:, None] + 2 * np.pi * np.arange(people)[:, None] / people)     # of grid, person, view
    order = np.argsort(x, axis=1)
    changes: Bool[np.ndarray, "g n-1"] = (order[..., 1:] != order[..., :-1]).any(axis=1)
    inside = changes.sum(axis=1) == changes[:, _MARGIN - 1:1 - _MARGIN].sum(axis=1)
    change = changes.any(axis=1)
    best = int(np.argmin(np.where(change & inside, total, np.inf)))
    if not change[best] or total[best] > total[~change].min() - _GAIN:
        return None
    return Turn(size[best] * x[best][order[best][:, 0]])


def left_over(views: Sequence[View], people: int) -> float:
    """The two shares of variance, 0 to 2, that so many people who circle each other leave unexplained; 2 for few views."""
    fit = _fitted(views, people)
    return 2.0 if fit is None else float(fit[2].min())


def _fitted(views: Sequence[View], people: int) -> tuple[Float[np.ndarray, "g n"], Float[np.ndarray, "g"],
                                                         Float[np.ndarray, "g"]] | None:
    """For a grid of starts and rates: angles in each view, distance from the spot in pixels, and what is left over."""
    full = [k for k, view in enumerate(views) if view.pixels.any()]
    if len(full) < LEAST:
        return None
    high = float(np.median([views[k].pixels.shape[0] for k in full]))
    frame = np.array([view.frame for view in views], float)
    spread, lean = (np.array(values) / high**people for values in zip(*(_moments(views[k], people) for k in full)))
    rates, starts = np.meshgrid(np.linspace(-_FASTEST, _FASTEST, 25), np.arange(36) * 2 * np.pi / 36 / people,
                                indexing="ij")
    angle = starts.reshape(-1, 1) + rates.reshape(-1, 1) * (frame - frame.mean())
    wide, left = _fit(np.cos(people * angle[:, full]), spread, centred=True)
    _, also = _fit(np.sin(people * angle[:, full]), lean, centred=False)
    return angle, high * (wide * 2 ** (people - 1)) ** (1 / people), left + also


def _moments(view: View, people: int) -> tuple[float, float]:
    y, x = np.nonzero(view.pixels)
    x, y = x - x.mean(), y - y.mean()
    power = x ** (people - 1)
    return float((power * x).mean()), float((power * y).mean() - power.mean() * y.mean())


def _fit(shape, seen, *, centred):
    if centred:
        shape, seen = shape - shape.mean(axis=1, keepdims=True), seen - seen.mean()
    factor = np.maximum(0.0, shape @ seen / np.maximum((shape * shape).sum(axis=1), 1e-9))
    rest = ((seen - factor[:, None] * shape) ** 2).mean(axis=1)
    return factor, rest / max(float((seen * seen).mean()), 1e-9)
