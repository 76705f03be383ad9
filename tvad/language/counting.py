"""How many people a blob holds that stays on a spot: one, or a fight of two or three whose masks never come apart.

Linking divides a blob between targets that were seen apart.  Fighters often are not: their masks touch through every
arm.  What tells them is how the outline looks and lives: more runs of pixels in a row than one body has, a width that
comes and goes while the middle hardly moves, now and then a thin column between two upright figures.  Two logistic
regressions over six and four such traits decide.  Their weights were fitted on the SimCampus splits train and val,
whole videos and 16-frame windows; ``python -m tvad.language.fit_counting`` fits them again and prints what a fit on the
other scenes gets right of each scene's.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from tvad.language import geometry
from tvad.language.circling import left_over
from tvad.language.geometry import Box
from tvad.language.target import Target
from tvad.language.views import View, views_of

LEAST = 4                    # frames from which anything can be told
SPOT = 0.6                   # heights within which a target stays on a spot
_THIN = 0.4                  # pixels of the thinnest column between figures, as a share of their fullest
_UPRIGHT = 1.2               # height over width of a figure
_ALIKE = 0.7                 # height of the lower figure over that of the other
# Weights of traits: of several people against one, and of three against two.
SEVERAL: Mapping[str, float] = {"runs": 6.76, "slim": -6.3, "sway": -43.37, "breath": 9.06, "travel": -6.02,
                                 "apart": 2.71, "one": -5.69}
THREE: Mapping[str, float] = {"runs": 5.52, "foot": -20.67, "low": 3.44, "turn": 2.31, "one": -13.58}


def people_in(target: Target, labels: Int[np.ndarray, "n h w"]) -> int:
    """1, 2 or 3; 1 for what leaves its spot: a person who pushes a loaded hand truck looks like two."""
    high = float(np.median([geometry.sides(box)[1] for box in target.boxes]))
    if len(target.frames) < LEAST or max(geometry.sides(box)[0] for box in target.boxes) < 6:
        return 1
    if travel(target.boxes) > SPOT * high:
        return 1
    views = views_of(target, labels)
    if len(views) < LEAST:
        return 1
    found = traits(views)
    if weighted(SEVERAL, found) <= 0:
        return 1
    return 2 if weighted(THREE, found | {"turn": turning(views)}) <= 0 else 3


def weighted(weights: Mapping[str, float], found: Mapping[str, float]) -> float:
    """The sum of ``found`` traits times their ``weights``: above 0 for yes."""
    return sum(weight * found[name] for name, weight in weights.items())


def travel(boxes: Sequence[Box]) -> float:
    """Pixels between the middles of the first and the last five boxes."""
    first, last = (np.median(np.array(part, float), axis=0) for part in (boxes[:5], boxes[-5:]))
    return float(np.hypot(*((last[:2] + last[2:] - first[:2] - first[2:]) / 2)))


def traits(views: Sequence[View]) -> dict[str, float]:
    """What is weighed; lengths in median heights of the blob.

    ``runs``, ``low``: runs of pixels in a row, mean over all rows and over the lowest third; ``slim``: width in the
    slimmest tenth of frames; ``breath``: standard deviation of the width; ``foot``: extent of the lowest rows;
    ``sway``: path of the box's middle in a frame; ``travel``: from first to last; ``apart``: share of frames with two
    upright figures side by side; ``one``: 1.  Not among them, as it takes longer: :func:`turning`.
    """
    high = float(np.median([view.pixels.shape[0] for view in views]))
    runs, low, wide, foot = [], [], [], []
    for view in views:
        rows, columns = view.pixels.shape
        row_runs = view.pixels[:, 0].astype(int) + (view.pixels[:, 1:] & ~view.pixels[:, :-1]).sum(axis=1)
        runs.append(row_runs.mean())
        low.append(row_runs[-max(1, rows // 3):].mean())
        wide.append(columns)
        sole = view.pixels[-max(1, round(0.15 * rows)):]
        extent = columns - sole.argmax(axis=1) - sole[:, ::-1].argmax(axis=1)
        foot.append(np.where(sole.any(axis=1), extent, 0).mean())
    boxes = [(view.x, view.y, view.x + view.pixels.shape[1] - 1, view.y + view.pixels.shape[0] - 1) for view in views]
    middles = np.array([geometry.middle(box) for box in boxes])
    return {"runs": float(np.mean(runs)), "low": float(np.mean(low)), "slim": float(np.percentile(wide, 10)) / high,
            "breath": float(np.std(wide)) / high, "foot": float(np.mean(foot)) / high,
            "sway": float(np.abs(np.diff(middles, axis=0)).sum(axis=1).mean()) / high, "travel": travel(boxes) / high,
            "apart": float(np.mean([gap_between(view) is not None for view in views])), "one": 1.0}


def turning(views: Sequence[View]) -> float:
    """The trait ``turn``: how much better three who circle each other explain the outline than two do, -2 to 2."""
    return left_over(views, 2) - left_over(views, 3)


def gap_between(view: View, shares: tuple[float, float] = (0.25, 0.75)) -> int | None:
    """The thin column between two upright figures side by side, counted from the view's left; None where there is none.

    ``shares``: least and most of the pixels to its left.
    """
    count = view.pixels.sum(axis=0)
    share = np.cumsum(count) / max(1, count.sum())
    inner = np.flatnonzero((share >= shares[0]) & (share <= shares[1]))
    if not len(inner):
        return None
    cut = int(inner[np.argmin(count[inner])])
    if not cut or cut + 1 >= len(count) or count[cut] > _THIN * min(count[:cut].max(), count[cut + 1:].max()):
        return None
    spans = [[np.flatnonzero(side.any(axis=axis)) for axis in (1, 0)]
             for side in (view.pixels[:, :cut], view.pixels[:, cut + 1:])]
    (high, wide), (other_high, other_wide) = ([int(at[-1] - at[0] + 1) for at in span] for span in spans)
    alike = min(high, other_high) >= _ALIKE * max(high, other_high)
    upright = high >= _UPRIGHT * wide and other_high >= _UPRIGHT * other_wide
    return cut if alike and upright else None
