"""Whole clips of held-out footage with people and events passing through them: what the last choices are made on.

Single pairs cannot say over how many frames scores are to be smoothed, or how steady a heatmap should be.  So windows of
footage that no decoder was trained on are shown as they are, with ordinary people alone and with an event among them; the
detector looks at them as it will at the camera, and what ranks their frames and pixels best is taken.  No label of the
camera is needed.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int, UInt8
from tqdm.auto import tqdm

from tvad.adaptation.detector import AdaptedDetector
from tvad.adaptation.evidence import blurred, fuse, squash
from tvad.cores import on_each_core
from tvad.detection import SIGMAS, top_mean
from tvad.metrics.frame import micro_auc, smooth
from tvad.metrics.pixel import fitted, pixel_auroc
from tvad.scenes.composite.compose import ORDINARY_ALONE, Compositor
from tvad.training.adapt.pairs import Stretch

BLURS = ((0.0, 0.0), (0.0, 0.7), (1.0, 0.0), (1.0, 0.7), (1.5, 0.7))    # compared: over pairs, over patches
_STEP = 2           # frames from one pair to the next, as in detection
_SECONDS = 15.0     # of simulated life in a window, as long as a simulated video
_PAIRS = (8, 90)    # least and most of a window
_EVENTS = 4         # clips with an event for each one as it is and one with ordinary people alone
_SPARSE = 3         # of so many masks one is kept
_USUAL_FPS = 10.0   # of the footage that ``SIGMAS`` and ``BLURS`` were made for
_SEED = 15_485_863  # other actors than those of training and validation
RULES = (BLURS, SIGMAS, _STEP, _SECONDS, _PAIRS, _EVENTS, _SPARSE, _USUAL_FPS, _SEED)     # what decides beside the data


@dataclass(frozen=True)
class Window:
    """Pairs of a stretch that begin at frames ``starts``."""
    part: Stretch
    starts: Int[np.ndarray, "n"]


@dataclass(frozen=True)
class Watched:
    """What the detector saw of one clip of n pairs: its evidence by name (n h w), ``labels`` and every third mask.

    ``kind``: "" for footage as it is, else what was to be pasted.
    """
    kind: str
    parts: Mapping[str, Float32[np.ndarray, "n h w"]]
    labels: UInt8[np.ndarray, "n"]
    masks: UInt8[np.ndarray, "m H W"]


@dataclass(frozen=True)
class Chosen:
    """``sigma``: smoothing of scores, frames; ``blur``: of heatmaps, (pairs, patches); ``figures``: what each of those
    compared reached, by name."""
    sigma: float
    blur: tuple[float, float]
    figures: Mapping[str, Any]


def windows(parts: Sequence[Stretch], count: int, *, reach: int, pace: float) -> list[Window]:
    """At most ``count`` windows, evenly spread over the longer of the stretches that have room for eight pairs.

    ``reach``: the longest gap of a pair; ``pace``: of the people, against simulated ones.
    """
    rooms = [(part, part.stop - part.start - reach) for part in parts]
    lengths = [min(room, _STEP * _PAIRS[1], max(_STEP * _PAIRS[0], round(_SECONDS * part.frames.fps / pace)))
               for part, room in rooms]
    longest = max(lengths, default=0)
    roomy = [(part, room, length) for (part, room), length in zip(rooms, lengths)
             if length >= max(_STEP * _PAIRS[0], longest / 2)]
    found = []
    for part, room, length in roomy:
        many = max(1, min(room // length, -(-count // len(roomy))))
        found += [Window(part, np.arange(first, first + length - _STEP + 1, _STEP))
                  for first in np.linspace(part.start, part.start + room - length, many).round().astype(int)]
    places = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)) if found else ()
    return [found[place] for place in places]


def watch(detector: AdaptedDetector, compositor: Compositor, *, parts: Sequence[Stretch], count: int,
          progress: bool = True) -> list[Watched]:
    """About ``count`` clips, as many of each window, and all evidence of them; none where no stretch has room.

    Raises what ``detector.parts`` and ``compositor.clip`` do.
    """
    gaps, events = detector.fusion.gaps, itertools.cycle(compositor.mixture.events)
    chosen = windows(parts, -(-count // (_EVENTS + 2)), reach=max(gaps), pace=compositor.site.pace)
    each = max(3, -(-count // max(1, len(chosen))))
    kinds = [(window, kind) for window in chosen for kind in
             ("", ORDINARY_ALONE, *itertools.islice(events, each - 2))]
    device = torch.device(getattr(detector.backbone, "device", "cpu"))
    batch, truth = 4 if device.type == "cpu" else detector.batch, []

    def pictures() -> Iterator[tuple[int, int, np.ndarray]]:
        for number, (window, kind) in enumerate(tqdm(kinds, desc="held-out clips", unit="clip", disable=not progress)):
            places = np.unique([window.starts + gap for gap in (0, *gaps)])
            clip = compositor.clip(window.part.frames, places.tolist(), seed=_SEED + number, kind=kind)
            rows = np.searchsorted(places, window.starts)
            truth.append((clip.labels[rows], (clip.masks[rows[::_SPARSE]] > 0).astype(np.uint8)))
            for gap in gaps:
                pairs = np.searchsorted(places, np.stack([window.starts, window.starts + gap], 1))
                for first in range(0, len(pairs), batch):
                    yield number, gap, clip.frames[pairs[first:first + batch]]

    def look(some: tuple[int, int, np.ndarray]) -> tuple[int, dict[str, np.ndarray]]:
        number, gap, pairs = some
        return number, detector.parts(pairs, fps=compositor.site.fps, gap=gap)

    seen: list[dict[str, list[np.ndarray]]] = [{} for _ in kinds]
    with torch.inference_mode():
        for number, found in on_each_core(look, pictures(), device=device):
            for name, maps in found.items():
                seen[number].setdefault(name, []).append(maps)
    return [Watched(kind, {name: np.concatenate(maps) for name, maps in found.items()}, labels, masks)
            for (_, kind), found, (labels, masks) in zip(kinds, seen, truth)]


def choose(clips: Sequence[Watched], detector: AdaptedDetector, *, fps: float = _USUAL_FPS,
           tempo: float = 1.0) -> Chosen | None:
    """Smoothing of scores by micro AUC, of heatmaps by pixel AUROC; of equals the least.

    Scores are smoothed up to as long as those of simulated footage, in seconds (``fps``) or in paces (``tempo``: frames in
    which people move as far as simulated ones do in one).  Returns None where the clips show no event, or nothing else.
    """
    labels = [clip.labels for clip in clips]
    if not clips or len(np.unique(np.concatenate(labels))) < 2:
        return None
    fused = [fuse(clip.parts, detector.calibration, detector.fusion) for clip in clips]
    raw = [squash(top_mean(maps, detector.scoring.top_fraction), detector.calibration) for maps in fused]
    sigmas = sorted({round(sigma * factor, 1) for sigma in SIGMAS for factor in (fps / _USUAL_FPS, tempo)})
    micro = {sigma: float(micro_auc(smooth(raw, sigma / _STEP), labels)) for sigma in sigmas}
    # The same time at another frame rate is another number of pairs; a folder of frames has a rate that is only assumed.
    blurs = sorted({(round(over * factor, 2), about) for over, about in BLURS for factor in (1.0, fps / _USUAL_FPS)})
    masks = [clip.masks for clip in clips]
    pixel = {}
    if any(mask.any() for mask in masks):       # an event may pass between the masks that are kept
        for blur in blurs:
            heats = [partial(_heat, maps, blur, mask.shape[1:]) for maps, mask in zip(fused, masks)]
            pixel[blur] = float(pixel_auroc(heats, masks))
    figures = {"micro_auc": {f"{sigma:g}": round(value, 4) for sigma, value in micro.items()},
               "pixel_auroc": {f"{over:g}, {about:g}": round(value, 4) for (over, about), value in pixel.items()},
               "clips": len(clips), "positive_rate": round(float(np.concatenate(labels).mean()), 3)}
    return Chosen(max(micro, key=micro.get), max(pixel, key=pixel.get, default=blurs[0]), figures)


def _heat(maps: Float32[np.ndarray, "n h w"], blur: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    return fitted(blurred(maps, blur)[::_SPARSE], size)
