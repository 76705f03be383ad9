"""How large a tower should see the pictures of a camera, told without a label.

People of a camera may be as high as simulated ones and still fill too few patches: they walk slower in pixels, are dimmer
or cut otherwise.  So it is tried: the decoder from before the adaptation looks at a few composites of the training footage
and at the real pairs that they were made of, at each magnification, and the one at which composites with an event stand
out most is kept.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tvad.detection import top_mean
from tvad.heatmap import AnomalyHeatmapDecoder
from tvad.metrics.frame import micro_auc
from tvad.scenes.composite.compose import Compositor
from tvad.training.adapt.pairs import Stretch
from tvad.video.clip import Clip

COUNT = 48          # composites that it is tried on, and as many real pairs
_MARGIN = 0.005     # by which a larger picture, which costs more, must be better
_SEED = 104_729     # other composites than those of training and validation


def choose_zoom(backbone: Any, decoder: AnomalyHeatmapDecoder, prototypes: Float[Tensor, "2 d"], compositor: Compositor,
                parts: Sequence[Stretch], *, zooms: Sequence[float], gap: int, top_fraction: float = 0.01,
                count: int = COUNT) -> tuple[float, Mapping[str, float]]:
    """The best of ``zooms``, and the AUC of events against real pairs at each, by its name; a single one is not tried.

    ``backbone`` must have ``enlarged``.  The smallest that is within half a percent of the best is taken; where no stretch
    has room for a pair nothing is tried, and pictures stay as they are where that is among ``zooms``.
    """
    zooms = sorted(zooms)
    if len(zooms) == 1:
        return zooms[0], {}
    numbered = _chosen(list(enumerate(parts)), count, gap)
    pairs = [pair for number, part in numbered for pair in _pairs(compositor, part, -(-count // len(numbered)), gap,
                                                                  number)]
    if not pairs:
        return (1.0 if 1.0 in zooms else zooms[0]), {}
    found = {}
    for zoom in zooms:
        seeing = backbone if zoom == 1 else backbone.enlarged(zoom)
        scores = [np.array([_score(seeing, decoder, prototypes, frames, top_fraction) for frames in kind])
                  for kind in zip(*pairs)]
        found[zoom] = micro_auc(scores, [np.ones(len(scores[0]), np.uint8), np.zeros(len(scores[1]), np.uint8)])
    best = max(found.values())
    chosen = next(zoom for zoom in zooms if found[zoom] >= best - _MARGIN)
    return chosen, {f"{zoom:g}": round(value, 4) for zoom, value in found.items()}


def _chosen(numbered: list[tuple[int, Stretch]], count: int, gap: int) -> list[tuple[int, Stretch]]:
    """At most ``count`` stretches, evenly spaced among those that have room for a pair."""
    if len(numbered) <= count:
        return numbered
    roomy = [one for one in numbered if one[1].starts(1, gap=gap)]
    places = np.linspace(0, len(roomy) - 1, min(count, len(roomy))).round().astype(int)
    return [roomy[place] for place in places]


def _pairs(compositor: Compositor, part: Stretch, count: int, gap: int, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(composite with an event, the real pair that it was made of), at evenly spaced moments of a stretch."""
    return [(compositor.pair(part.footage, start, gap=gap, seed=_SEED + number, anomalous=True).frames,
             np.stack(list(part.footage.take((start, start + gap))))) for start in part.starts(count, gap=gap)]


@torch.no_grad()
def _score(backbone: Any, decoder: AnomalyHeatmapDecoder, prototypes: Tensor, frames: np.ndarray,
           top_fraction: float) -> float:
    sight = backbone.see(Clip(frames, 1.0, 0, "pair"))
    device = next(decoder.parameters()).device
    heat = decoder.heatmap([tap.to(device) for tap in sight.taps], prototypes.to(device))
    return float(top_mean(heat.float().cpu().numpy(), top_fraction)[0])
