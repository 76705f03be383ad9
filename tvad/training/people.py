"""Ordinary people of a clip whose looks a script knows: a great many lessons in colours, where targets give a few.

What somebody wears does not depend on whether he does something odd.  SimCampus knows it of everybody (``Video.text``), so
the classifiers of clothes learn from all who can be seen; other data sets have no script, and none are there.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from tvad.language.appearance import tone_of

_LEAST = 1.5        # patches that somebody must be high
_HIDDEN = 0.3       # of a box that others may cover


@dataclass(frozen=True, eq=False)
class Person:
    """``words`` of the clothes (``top``, ``bottom``) and the box of each step, x1 y1 x2 y2 in patches, nan where hidden."""

    words: Mapping[str, str]
    boxes: Float[np.ndarray, "t 4"]


def people_of(video: Any, frames: Sequence[int], *, grid: tuple[int, int, int], grey: bool) -> tuple[Person, ...]:
    """The ordinary people of a video in some of its frames, one a step of ``grid``; none without a script.

    ``grey``: the footage has no colours, and tones are told instead.
    """
    actors = video.text.get("actors") or ()
    height, width = video.frames.size
    scale = np.array([grid[2] / width, grid[1] / height] * 2)
    boxes = np.full((len(actors), len(frames), 4), np.nan)
    for number, actor in enumerate(actors):
        for step, frame in enumerate(frames):
            if (box := actor["box"][frame]) is not None:
                boxes[number, step] = np.array(box) + (0, 0, 1, 1)
    boxes *= scale
    found = []
    for number, actor in enumerate(actors):
        looks = {name: actor["appearance"].get(name, "") for name in ("top", "bottom")}
        if actor["anomalous"] or not all(looks.values()):
            continue
        own = np.where(_clear(boxes, number)[:, None], boxes[number], np.nan)
        if not np.isnan(own).all():
            words = {name: tone_of(colour) if grey else colour for name, colour in looks.items()}
            found.append(Person(words, own))
    return tuple(found)


def _clear(boxes: Float[np.ndarray, "a t 4"], number: int) -> np.ndarray:
    """The steps in which somebody is high enough and hardly covered by another's box."""
    own, others = boxes[number], np.delete(boxes, number, 0)
    wide = np.minimum(own[:, 2], others[..., 2]) - np.maximum(own[:, 0], others[..., 0])
    high = np.minimum(own[:, 3], others[..., 3]) - np.maximum(own[:, 1], others[..., 1])
    shared = np.where((wide > 0) & (high > 0), wide * high, 0).max(0, initial=0.0)
    sides = own[:, 2:] - own[:, :2]
    return (sides[:, 1] >= _LEAST) & (shared <= _HIDDEN * sides.prod(1))
