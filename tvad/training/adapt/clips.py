"""Whole clips of held-out footage with people and events passing through them: what the last choices are made on.

Single pairs cannot say over how many frames scores are to be smoothed, how steady a heatmap is, or whether a second gap
helps.  So windows of footage that no decoder was trained on are shown as they are, with ordinary people alone and with an
event among them; the detector looks at them as it will at the camera, and what ranks their frames and pixels best is
taken.  No label of the camera is needed.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, UInt8
from tqdm.auto import tqdm

from tvad.adaptation.detector import AdaptedDetector
from tvad.adaptation.evidence import blurred, fuse
from tvad.cores import on_each_core
from tvad.detection import SIGMAS, top_mean
from tvad.metrics.frame import micro_auc, smooth
from tvad.metrics.pixel import fitted, pixel_auroc
from tvad.scenes.composite.compose import ORDINARY_ALONE, Compositor
from tvad.training.adapt.pairs import Stretch

BLURS = ((0.0, 0.0), (0.0, 0.7), (1.0, 0.0), (1.0, 0.7), (1.5, 0.7))    # compared: over pairs, over patches
_SECONDS = 15.0     # of simulated life in a window, as long as a simulated video
_PAIRS = (8, 90)    # least and most that are looked at in a window
_EVENTS = 2         # clips with an event that a window serves, beside one as it is and one with ordinary people alone
_SPARSE = 3         # of so many masks one is kept
_GAIN = 0.003       # of micro AUC that a second gap, which costs a second pass of the tower, must bring
_USUAL_FPS = 10.0   # of the footage that ``SIGMAS`` were made for
_SEED = 15_485_863  # other actors than those of training and validation


@dataclass(frozen=True)
class Window:
    """Pairs of a stretch that begin at frames ``starts``, ``step`` apart."""
    part: Stretch
    starts: Int[np.ndarray, "n"]
    step: int


@dataclass(frozen=True)
class Watched:
    """What the detector saw of one clip of n pairs: its evidence by name (n h w), ``labels`` and every third mask.

    ``kind``: "" for footage as it is, else what was pasted; ``step``: frames from pair to pair.
    """
    kind: str
    parts: Mapping[str, Float32[np.ndarray, "n h w"]]
    labels: UInt8[np.ndarray, "n"]
    masks: Bool[np.ndarray, "m H W"]
    step: int

    def blurred(self, maps: Float32[np.ndarray, "n h w"], blur: tuple[float, float]) -> Float32[np.ndarray, "n h w"]:
        """As :func:`tvad.adaptation.evidence.blurred`, whose pairs are two frames apart."""
        return blurred(maps, (blur[0] * 2 / self.step, blur[1]))


@dataclass(frozen=True)
class Chosen:
    """``sigma``: smoothing of scores, frames; ``blur``: of heatmaps, (pairs, patches); ``gaps`` that are averaged;
    ``figures``: what each of those compared reached, by name."""
    sigma: float
    blur: tuple[float, float]
    gaps: tuple[int, ...]
    figures: Mapping[str, Any]


def windows(parts: Sequence[Stretch], count: int, *, reach: int, pace: float) -> list[Window]:
    """At most ``count`` windows, evenly spread over stretches that have room for eight pairs of a gap of ``reach``."""
    found = []
    for part in parts:
        room = part.stop - part.start - reach
        if room < 2 * _PAIRS[0]:
            continue
        length = min(room, max(2 * _PAIRS[0], round(_SECONDS * part.frames.fps / pace)))
        step = 2 * -(-length // (2 * _PAIRS[1]))
        many = max(1, min(room // length, -(-count // len(parts))))
        found += [Window(part, np.arange(first, first + length, step), step)
                  for first in np.linspace(part.start, part.start + room - length, many).round().astype(int)]
    places = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)) if found else ()
    return [found[place] for place in places]


def near_gap(gap: int) -> int:
    """The second gap that is tried beside ``gap``: about half of it, two where there is none."""
    return gap - gap // 2 if gap > 1 else 2


def watch(detector: AdaptedDetector, compositor: Compositor, parts: Sequence[Stretch], count: int, *,
          progress: bool = True) -> list[Watched]:
    """About ``count`` clips and all evidence that ``detector`` has of them; none where no stretch has room."""
    gaps, events = detector.fusion.gaps, compositor.mixture.events
    chosen = windows(parts, -(-count // (_EVENTS + 2)), reach=max(gaps), pace=compositor.site.pace)
    kinds = [(window, kind) for number, window in enumerate(chosen) for kind in
             ("", ORDINARY_ALONE, *(events[(number * _EVENTS + one) % len(events)] for one in range(_EVENTS)))]
    truth: list[tuple[np.ndarray, np.ndarray]] = []

    def pictures() -> Iterator[tuple[int, int, np.ndarray]]:
        for number, (window, kind) in enumerate(tqdm(kinds, desc="held-out clips", unit="clip", disable=not progress)):
            places = np.unique([window.starts + gap for gap in (0, *gaps)])
            clip = compositor.clip(window.part.frames, places.tolist(), seed=_SEED + number, kind=kind)
            rows = np.searchsorted(places, window.starts)
            truth.append((clip.labels[rows], clip.masks[rows[::_SPARSE]] > 0))
            for gap in gaps:
                pairs = np.searchsorted(places, np.stack([window.starts, window.starts + gap], 1))
                for first in range(0, len(pairs), 4):
                    yield number, gap, clip.frames[pairs[first:first + 4]]

    def look(some: tuple[int, int, np.ndarray]) -> tuple[int, dict[str, np.ndarray]]:
        number, gap, pairs = some
        return number, detector.parts(pairs, fps=compositor.site.fps, gap=gap)

    seen: list[dict[str, list[np.ndarray]]] = [{} for _ in kinds]
    with torch.inference_mode():
        for number, found in on_each_core(look, pictures(), device=getattr(detector.backbone, "device", "cpu")):
            for name, maps in found.items():
                seen[number].setdefault(name, []).append(maps)
    return [Watched(kind, {name: np.concatenate(maps) for name, maps in found.items()}, labels, masks, window.step)
            for (window, kind), found, (labels, masks) in zip(kinds, seen, truth)]


def choose(clips: Sequence[Watched], detector: AdaptedDetector, *, gaps: Sequence[int] = (), fps: float = _USUAL_FPS,
           tempo: float = 1.0, blurs: Sequence[tuple[float, float]] = BLURS) -> Chosen | None:
    """Gaps and smoothing of scores by micro AUC, smoothing of heatmaps by pixel AUROC; of equals what costs less.

    ``gaps``: second ones to try beside the detector's.  Scores may be smoothed as long as those of simulated footage, in
    seconds (``fps``) or in paces (``tempo``: frames in which people move as far as simulated ones do in one).  Returns None
    where the clips show no event, or nothing else.
    """
    labels = [clip.labels for clip in clips]
    if not clips or len(np.unique(np.concatenate(labels))) < 2:
        return None
    own = detector.fusion.gaps
    sigmas = sorted({round(sigma * factor, 1) for sigma in SIGMAS for factor in (fps / _USUAL_FPS, tempo)})
    tried = {}
    for some in (own, *((*own, gap) for gap in gaps)):
        raw = [top_mean(maps, detector.scoring.top_fraction) for maps in _fused(clips, detector, some)]
        tried[some] = {sigma: float(micro_auc([smooth([scores], sigma / clip.step)[0] for scores, clip in zip(raw, clips)],
                                              labels)) for sigma in sigmas}
    reached = {some: max(found.values()) for some, found in tried.items()}
    best = max(reached, key=reached.get)
    best = best if reached[best] >= reached[own] + _GAIN else own
    sigma = max(sigmas, key=tried[best].get)
    fused, masks = _fused(clips, detector, best), [clip.masks.astype(np.uint8) for clip in clips]
    pixel = {blur: float(pixel_auroc([fitted(clip.blurred(maps, blur)[::_SPARSE], clip.masks.shape[1:])
                                      for maps, clip in zip(fused, clips)], masks)) for blur in blurs}
    figures = {"micro_auc": {"+".join(map(str, some)): round(value, 4) for some, value in reached.items()},
               "smoothed": {f"{each:g}": round(value, 4) for each, value in tried[best].items()},
               "pixel_auroc": {f"{over:g}, {about:g}": round(value, 4) for (over, about), value in pixel.items()},
               "clips": len(clips), "positive_rate": round(float(np.concatenate(labels).mean()), 3)}
    return Chosen(sigma, max(pixel, key=pixel.get), best, figures)


def _fused(clips: Sequence[Watched], detector: AdaptedDetector, gaps: tuple[int, ...]) -> list[np.ndarray]:
    return [fuse(clip.parts, detector.calibration, replace(detector.fusion, gaps=gaps)) for clip in clips]
