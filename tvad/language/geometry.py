"""Boxes as plain tuples, for loops over few of them, and as arrays for many.

Corners are inclusive, so a side is ``x2 - x1 + 1`` long.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Box = Sequence[float]  # x1, y1, x2, y2, then perhaps more


def sides(box: Box) -> tuple[float, float]:
    """Width and height."""
    return box[2] - box[0] + 1, box[3] - box[1] + 1


def middle(box: Box) -> tuple[float, float]:
    """Its x and y."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def surface(box: Box) -> float:
    """Pixels that it covers."""
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def overlap(one: Box, two: Box) -> float:
    """Pixels that both cover."""
    wide = min(one[2], two[2]) - max(one[0], two[0]) + 1
    high = min(one[3], two[3]) - max(one[1], two[1]) + 1
    return wide * high if wide > 0 and high > 0 else 0.0


def gap(one: Box, two: Box) -> float:
    """Empty pixels between two boxes, along the axis where there are more; 0 where they touch."""
    return max(0, max(one[0], two[0]) - min(one[2], two[2]) - 1, max(one[1], two[1]) - min(one[3], two[3]) - 1)


def union(boxes: Sequence[Box]) -> Box:
    """The least box around all."""
    return (min(box[0] for box in boxes), min(box[1] for box in boxes),
            max(box[2] for box in boxes), max(box[3] for box in boxes))


def resized(box: Box, sides: tuple[float, float]) -> Box:
    """A box of width and height ``sides`` about the same middle."""
    (x, y), (wide, high) = middle(box), sides
    return x - (wide - 1) / 2, y - (high - 1) / 2, x + (wide - 1) / 2, y + (high - 1) / 2


def gaps(ones: Float[np.ndarray, "*n 4"], twos: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n"]:
    """:func:`gap` of many boxes, pair by pair; one of the two may be a single box."""
    apart = np.maximum(ones[..., :2], twos[..., :2]) - np.minimum(ones[..., 2:], twos[..., 2:]) - 1
    return np.maximum(0, apart.max(axis=-1))


def overlaps(ones: Float[np.ndarray, "n 4"], twos: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """:func:`overlap` of each of ``ones`` with each of ``twos``."""
    ones, twos = ones[:, None], twos[None]
    both = np.minimum(ones[..., 2:], twos[..., 2:]) - np.maximum(ones[..., :2], twos[..., :2]) + 1
    return np.maximum(both, 0).prod(axis=-1)
