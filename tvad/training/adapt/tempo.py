"""How a camera's time and scale are taken: frames between the two of a pair, smoothing, patches that count."""
from __future__ import annotations

import math
from dataclasses import replace

from tvad.detection import Scoring
from tvad.scenes.composite.site import Site
from tvad.training.adapt.config import AdaptConfig

_STEP_SECONDS = 0.1   # between the frames of a pair in the simulated footage that the tower was trained on
_SLIM = 0.35     # area of a person's box in squares of its height
_SPOTS = (0.001, 0.05)   # least and largest share of a picture that a person is taken to cover


def scoring_of(scoring: Scoring, site: Site, config: AdaptConfig, grid: tuple[int, int]) -> Scoring:
    """The model's way from heatmaps to scores and regions at the scale of a camera whose maps have ``grid`` patches.

    Smoothing is a time and follows the people's pace.  Over more patches than a person covers, a mean counts how many
    people are about; what is smaller than half a person is no region.  Thresholds lie on the scale of held-out footage.
    """
    scoring = replace(scoring, thresholds=config.thresholds, region_score="max")
    if config.smoothing == "pace":
        scoring = replace(scoring, sigma=round(scoring.sigma * tempo(site.fps, site.pace), 1))
    if config.spot == "person":
        height, width = site.size
        share = _SLIM * site.pixels_high(0.5 * height) ** 2 / (height * width)
        scoring = replace(scoring, top_fraction=round(min(max(share, _SPOTS[0]), _SPOTS[1]), 5),
                          min_area=max(1, math.ceil(0.5 * share * grid[0] * grid[1])))
    return scoring


def automatic_gap(fps: float, pace: float) -> int:
    """Frames between the two of a pair at which people move as far as in the footage that the tower was trained on."""
    return max(1, round(tempo(fps, pace)))


def tempo(fps: float, pace: float) -> float:
    """Frames of the camera in which people move as far as simulated people do from one frame to the next."""
    return _STEP_SECONDS * fps / pace
