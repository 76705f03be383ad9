"""How far a single cue goes on SimCampus: size, speed or number of the people in view, read from the script's truth.

A frame is scored by its largest, its fastest or all its actors with perfect knowledge of their boxes and velocities, so
that each figure is the most that a detector of that cue alone could reach.  ``python -m tvad.datasets.shortcuts``
prints them.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from tvad.datasets.base import Video
from tvad.datasets.simcampus import SimCampus
from tvad.errors import DatasetError, TvadError
from tvad.metrics.frame import micro_auc
from tvad.scenes.types import ActorTrack

CUES = ("height", "area", "speed", "speed by height", "number of people")
_SMALLEST = 8.0  # pixels: lower boxes are slivers behind something, whose speed by height means nothing


def cue_scores(actors: Sequence[ActorTrack], cue: str) -> Float[np.ndarray, "n"]:
    """A score a frame: the largest value of ``cue`` among the actors in view, 0 where nobody is.

    Heights and speeds in pixels and pixels a frame.  Raises :class:`DatasetError` for an unknown cue or no actor.
    """
    if cue not in CUES:
        raise DatasetError(f"shortcuts: unknown cue {cue!r}; give one of {', '.join(CUES)}")
    if not actors:
        raise DatasetError("shortcuts: a video without any actor has no cue")
    present = np.stack([actor.present for actor in actors])
    if cue == "number of people":
        return present.sum(0).astype(float)
    boxes = np.nan_to_num(np.stack([actor.box for actor in actors]))
    width, height = boxes[..., 2] - boxes[..., 0] + 1, boxes[..., 3] - boxes[..., 1] + 1
    speed = np.nan_to_num(np.linalg.norm(np.stack([actor.velocity for actor in actors]), axis=-1))
    value = {"height": height, "area": height * width, "speed": speed,
             "speed by height": np.where(height >= _SMALLEST, speed / np.maximum(height, 1), 0)}[cue]
    return np.where(present, value, 0).max(0)


def shortcuts(videos: Sequence[Video]) -> dict[str, float]:
    """Micro AUC of each cue over ``videos``, which must be simulated: their truth is read."""
    labels = [np.asarray(video.labels) for video in videos]
    actors = [video.truth().actors for video in videos]
    return {cue: micro_auc([cue_scores(of, cue) for of in actors], labels) for cue in CUES}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tvad.datasets.shortcuts", description=__doc__.splitlines()[0])
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    given = parser.parse_args(arguments)
    try:
        data = SimCampus()
        data.prepare([given.split], workers=2)
        found = shortcuts(data.videos(given.split))
    except TvadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"SimCampus {given.split} (simulated), micro AUC of one cue with perfect knowledge of it:")
    print("\n".join(f"  {cue:18}{value:.3f}" for cue, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
